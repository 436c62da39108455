"""The catalogue: every command with its arguments, its effect, and what it answers.

One of the two doors to pydantic. Arguments arrive as CBOR and are checked here, once; what a
handler gets is well-formed. Unknown arguments are refused, because a misspelt `timeout` that
is silently ignored is worse than an error. Durations are seconds, sizes bytes, times
nanoseconds since the epoch.

A path is text, or bytes where the name is not UTF-8. It is relative to the workspace; an
absolute path below the workspace is accepted.

    command         effect  answer
    sidecar.info    read    version, run, form, trust, limits, channel, counts, capabilities
    sidecar.ping    read    {"pong": what came, "time_ms": ...}
    exec.run        exec    {"status" | "signal", "stdout", "stderr", "duration", ...}
    files.read      read    {"size", "offset", "length", "etag", "content"?}, stream 3
    files.write     write   {"size", "sha256", "etag", "mode"}
    files.list      read    {"entries": [...], "next": name | absent}
    files.stat      read    one entry
    files.mkdir     write   {}
    files.move      write   {}
    files.remove    write   {"removed": entries}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sidecar.errors import Invalid, ProtocolError
from sidecar.protocol.effects import REPEATABLE, Effect
from sidecar.protocol.envelope import loads
from sidecar.protocol.limits import ANSWER_BYTES

Path = Annotated[str | bytes, Field(max_length=8192)]
Text = Annotated[str, Field(max_length=1024 * 1024)]
Word = Annotated[str | bytes, Field(max_length=1024 * 1024)]
Seconds = Annotated[float, Field(gt=0, le=30 * 86400)]
Size = Annotated[int, Field(ge=0, lt=1 << 63)]
Digest = Annotated[bytes, Field(min_length=32, max_length=32)]


class Arguments(BaseModel):
    """Base of all arguments: strict types, no unknown names."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Nothing(Arguments):
    """A command without arguments."""


class Ping(Arguments):
    payload: Annotated[bytes, Field(max_length=16 * 1024)] = b""


class ExecRun(Arguments):
    """Run a program and answer when it ends. `argv` or `shell`, not both.

    With `live` the output is sent as streams 1 and 2 while the program runs. Without it, up
    to 64 KiB of each stand in the result, and what is larger becomes a stream.
    """

    argv: Annotated[list[Word], Field(min_length=1, max_length=65536)] | None = None
    shell: Text | None = None
    cwd: Path | None = None
    env: dict[str, Text] = Field(default_factory=dict)
    unset: list[str] = Field(default_factory=list)
    stdin: Literal["none", "stream"] | Annotated[bytes, Field(max_length=ANSWER_BYTES)] = "none"
    timeout: Seconds | None = None
    grace: Annotated[float, Field(ge=0, le=60)] = 5.0
    live: bool = True
    on_full: Literal["drop", "hold"] = "drop"

    @model_validator(mode="after")
    def _one_program(self) -> ExecRun:
        if (self.argv is None) == (self.shell is None):
            raise ValueError("exactly one of argv and shell is expected")
        return self


class FilesRead(Arguments):
    """Bytes of a regular file, by stream 3; up to 64 KiB stand in the result with `inline`."""

    path: Path
    offset: Size = 0
    length: Size | None = None
    inline: bool = True


class FilesWrite(Arguments):
    """Replace a file atomically. The bytes are `content`, or come as stream 3.

    `sha256` is compared with what arrived before anything is renamed.
    """

    path: Path
    content: Annotated[bytes, Field(max_length=ANSWER_BYTES)] | None = None
    sha256: Digest | None = None
    size: Size | None = None
    mode: Annotated[int, Field(ge=0, le=0o7777)] | None = None
    mtime_ns: Size | None = None
    parents: bool = False


class FilesList(Arguments):
    """One page of a directory, sorted by name; `after` is the last name of the page before."""

    path: Path = ""
    after: Path | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000


class FilesStat(Arguments):
    path: Path
    follow: bool = False


class FilesMkdir(Arguments):
    path: Path
    parents: bool = False
    exist_ok: bool = False
    mode: Annotated[int, Field(ge=0, le=0o7777)] = 0o777


class FilesMove(Arguments):
    """Rename, atomically. With `replace` false an existing target is an error."""

    source: Path
    target: Path
    replace: bool = True


class FilesRemove(Arguments):
    """A file, a link (never its target), or a directory; a full one only when `recursive`."""

    path: Path
    recursive: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """One verb of the catalogue."""

    name: str
    arguments: type[Arguments]
    effect: Effect
    sends: tuple[int, ...] = ()  # numbers of the streams it may send
    receives: tuple[int, ...] = ()

    @property
    def repeatable(self) -> bool:
        """Whether running it twice does no harm."""
        return self.name in REPEATABLE

    def parse(self, raw: bytes) -> Arguments:
        """The arguments of a call; raises `Invalid` naming each one that is wrong."""
        try:
            value = loads(raw)
        except ProtocolError as error:
            raise Invalid(f"{self.name}: the arguments are {error}") from error
        if not isinstance(value, dict):
            raise Invalid(f"{self.name}: arguments are a map, got {type(value).__name__}")
        try:
            return self.arguments.model_validate(value)
        except ValidationError as error:
            raise Invalid(f"{self.name}: {_explain(error)}") from None


CATALOGUE: dict[str, Command] = {
    command.name: command
    for command in (
        Command("sidecar.info", Nothing, Effect.READ),
        Command("sidecar.ping", Ping, Effect.READ),
        Command("exec.run", ExecRun, Effect.EXEC, sends=(1, 2), receives=(0,)),
        Command("files.read", FilesRead, Effect.READ, sends=(3,)),
        Command("files.write", FilesWrite, Effect.WRITE, receives=(3,)),
        Command("files.list", FilesList, Effect.READ),
        Command("files.stat", FilesStat, Effect.READ),
        Command("files.mkdir", FilesMkdir, Effect.WRITE),
        Command("files.move", FilesMove, Effect.WRITE),
        Command("files.remove", FilesRemove, Effect.WRITE),
    )
}


def _explain(error: ValidationError) -> str:
    """Each wrong argument with what was wrong; never the value itself, which may be large or
    a secret."""
    parts = []
    for item in error.errors(include_url=False, include_input=False)[:5]:
        where = ".".join(str(step) for step in item["loc"]) or "arguments"
        parts.append(f"{where}: {item['msg']}")
    return "; ".join(parts)
