"""The catalogue: every command with its arguments, its effect, and what it answers.

With `arguments` and `filecommands` one of the two doors to pydantic. Arguments arrive as CBOR and
are checked here, once; what a handler gets is well-formed. Unknown arguments are refused, because
a misspelt `timeout` that is silently ignored is worse than an error. Durations are seconds, sizes
bytes, times nanoseconds since the epoch.

A path is text, or bytes where the name is not UTF-8. It is relative to the workspace; an
absolute path below the workspace, or below another root, is accepted.

    command         effect  answer
    sidecar.info    read    version, run, form, trust, limits, channel, counts, capabilities
    sidecar.ping    read    {"pong": what came, "time_ms": ...}
    run.end         admin   {"calls", "events", "messages"}: what is waited for
    events.forget   admin   {}
    exec.run        exec    {"status" | "signal", "stdout", "stderr", ...}; streams 0 1 2
    exec.start      exec    {"exec": id, "pid"}
    exec.attach     read    as exec.run, or {"state": "running", ...}; streams 0 1 2
    exec.read       read    {"data", "offset", "size", "dropped", "ended"}
    exec.wait       read    as exec.run, without the output
    exec.list       read    {"processes": [...]}
    exec.input      exec    {"taken": bytes}
    exec.resize     exec    {"offset": of the output at that moment}
    exec.signal     exec    {"signal": number, "state"}
    exec.kill       exec    as exec.wait
    shell.start     exec    {"exec": id, "pid", "shell": "bash" | "sh"}
    shell.run       exec    {"status", "cwd", "shell", "stdout", "duration"}, stream 1
    files.read      read    {"size", "offset", "length", "etag", "content"?}, stream 3
    files.write     write   {"size", "sha256", "etag", "mode"}; stream 3
    files.upload    write   {"size": bytes of its part, 0 if there is none}
    files.append    write   {"offset", "added", "sha256", "size", "etag"}; stream 3
    files.edit      write   {"size", "sha256", "etag", "replaced", "lines"}
    files.list      read    {"entries": [...], "next": name | absent}
    files.glob      read    as files.list
    files.stat      read    one entry, or {"entries": [entry | {"path", "error"}, ...]}
    files.watch     read    {}, stream 16
    files.archive   read    {"entries", "bytes", "skipped": [[path, why], ...],
                            "skipped_count"}, stream 3
    files.extract   write   {"entries", "bytes", "kept", "refused": [[path, why], ...],
                            "refused_count"}; stream 3
    files.copy      write   {"copied": entries, "bytes", "skipped": [[path, code], ...],
                            "skipped_count"}
    files.search    read    {"lines": [[path, line, column, text, cut], ...], "engine",
                            "truncated": why | None, "searched", "matched", "unreadable"}
    files.mkdir     write   {}
    files.move      write   {}
    files.link      write   {}
    files.chmod     write   {}
    files.remove    write   {"removed": entries}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from sidecar.errors import Invalid, ProtocolError
from sidecar.protocol.arguments import Arguments, Path, Seconds, Size, Text, Word
from sidecar.protocol.effects import REPEATABLE, Effect
from sidecar.protocol.envelope import loads
from sidecar.protocol.filecommands import (
    FilesAppend,
    FilesArchive,
    FilesChmod,
    FilesCopy,
    FilesEdit,
    FilesExtract,
    FilesGlob,
    FilesLink,
    FilesList,
    FilesMkdir,
    FilesMove,
    FilesRead,
    FilesRemove,
    FilesSearch,
    FilesStat,
    FilesUpload,
    FilesWatch,
    FilesWrite,
)
from sidecar.protocol.limits import ANSWER_BYTES
from sidecar.protocol.names import ID_PATTERN


class Nothing(Arguments):
    """A command without arguments."""


class RunEnd(Arguments):
    """The run is over: no new calls; what is open may end, and what was not acknowledged is
    waited for, `timeout` seconds at most (absent: as the sidecar is set). Answered at once; the
    sidecar ends when that is done, and is not started again for this run."""

    timeout: Annotated[float, Field(ge=0, le=86400)] | None = None


class EventsForget(Arguments):
    """The durable reader of that name will not come back: it holds no events any more, and an end
    of the run does not wait for it. Harmless if there is none."""

    reader: Annotated[str, Field(pattern=ID_PATTERN)]


class Ping(Arguments):
    payload: Annotated[bytes, Field(max_length=16 * 1024)] = b""


Id = Annotated[bytes, Field(min_length=16, max_length=16)]
Grace = Annotated[float, Field(ge=0, le=60)]
Cells = Annotated[int, Field(ge=1, le=65535)]


class TerminalArguments(Arguments):
    """A terminal in place of pipes: its size, and what TERM says of it."""

    rows: Cells = 24
    cols: Cells = 80
    term: Annotated[str, Field(min_length=1, max_length=64)] = "xterm-256color"


class LimitsArguments(Arguments):
    """Resource limits of each process of the program (setrlimit(2)); absent: ours."""

    memory: Annotated[int, Field(ge=1 << 20, lt=1 << 62)] | None = None
    processes: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    files: Annotated[int, Field(ge=3, lt=1 << 31)] | None = None
    cpu: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None


class ProgramArguments(Arguments):
    """What every program starts with. `argv` or `shell`, not both.

    `timeout` counts from the start, `idle_timeout` from the last byte in or out; what fires
    first ends the program: TERM, and KILL after `grace`, to everything that it started. With
    `daemons` at `end` the same happens to what a program leaves behind when it ends by itself;
    with `leave` that lives on and stays listed.

    `stdin`: none, the bytes themselves, or `stream`: open until it is ended.
    """

    argv: Annotated[list[Word], Field(min_length=1, max_length=65536)] | None = None
    shell: Text | None = None
    cwd: Path | None = None
    env: dict[str, Text] = Field(default_factory=dict)
    unset: list[str] = Field(default_factory=list)
    base: Literal["default", "clean", "empty"] = "default"
    stdin: Literal["none", "stream"] | Annotated[bytes, Field(max_length=ANSWER_BYTES)] = "none"
    terminal: TerminalArguments | None = None
    limits: LimitsArguments | None = None
    timeout: Seconds | None = None
    idle_timeout: Seconds | None = None
    grace: Grace = 5.0
    daemons: Literal["leave", "end"] = "leave"
    on_full: Literal["drop", "hold"] = "drop"

    @model_validator(mode="after")
    def _one_program(self) -> Self:
        if (self.argv is None) == (self.shell is None):
            raise ValueError("exactly one of argv and shell is expected")
        return self


class ExecRun(ProgramArguments):
    """Run a program and answer when it ends; cancelling kills it and all that it started.

    With `live` the output is sent as streams 1 and 2 while the program runs. Without it, up
    to 64 KiB of each stand in the result, and what is larger becomes a stream. Of each output
    the answer tells its `size`, how many bytes were `dropped`, and the `gaps` where a sidecar was
    killed: bytes are missing `at` an offset, and nobody knows how many.
    """

    live: bool = True


class ExecStart(ProgramArguments):
    """Start a program that lives on without its caller. Its exec id is the id of this call."""


class Exec(Arguments):
    """Which program: the exec id that `exec.start` (or the call id that `exec.run`) had."""

    exec: Id


class ExecAttach(Exec):
    """Read a program's output from any offset, and with `input` write to it as stream 0.

    The answer comes when the program has ended and the output was sent; without `follow` the
    streams end with what was printed until now. `stdout` and `stderr` are the offsets to begin
    at; None leaves that output out. Of the controller that started the program, the latest
    reader sets its pace. An end of stream 0 is the end of the program's input; a detached
    reader's is not. Nobody reads the input of a program that has ended.
    """

    stdout: Size | None = 0
    stderr: Size | None = 0
    follow: bool = True
    input: bool = False


class ExecRead(Exec):
    """Some bytes of a program's output, in the answer itself."""

    n: Literal[1, 2] = 1
    offset: Size = 0
    length: Annotated[int, Field(ge=1, le=ANSWER_BYTES // 2)] = ANSWER_BYTES // 2


class ExecInput(Exec):
    """Bytes for a program's input. `end` is its end; a terminal has none: send Ctrl-D."""

    data: Annotated[bytes, Field(max_length=ANSWER_BYTES)] = b""
    end: bool = False


class ExecResize(Exec):
    """A new size for a program's terminal."""

    rows: Cells
    cols: Cells


class ExecSignal(Exec):
    """A signal by name (`TERM`, `SIGTERM`) or number."""

    signal: Annotated[str, Field(min_length=1, max_length=16)] | int
    to: Literal["program", "group", "foreground", "tree"] = "group"


class ExecKill(Exec):
    """TERM, then KILL after `grace`, to the program and everything that it started."""

    grace: Grace = 5.0


class ShellStart(Arguments):
    """A shell whose working directory and variables live from command to command."""

    cwd: Path | None = None
    env: dict[str, Text] = Field(default_factory=dict)
    unset: list[str] = Field(default_factory=list)
    base: Literal["default", "clean", "empty"] = "default"
    terminal: TerminalArguments = Field(default_factory=TerminalArguments)
    limits: LimitsArguments | None = None


class ShellRun(Exec):
    """One command line, in the shell that `shell.start` made; one at a time.

    A command that outlives `timeout` is ended with all that it started, and the shell stays,
    unless it hangs itself. With `live` the output is sent as stream 1 while the command runs.
    Without it, some 50 KiB stand in the result and what is larger becomes a stream.
    """

    command: Text
    live: bool = True
    timeout: Seconds | None = None
    grace: Grace = 5.0


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
        Command("run.end", RunEnd, Effect.ADMIN),
        Command("events.forget", EventsForget, Effect.ADMIN),
        Command("exec.run", ExecRun, Effect.EXEC, sends=(1, 2), receives=(0,)),
        Command("exec.start", ExecStart, Effect.EXEC),
        Command("exec.attach", ExecAttach, Effect.READ, sends=(1, 2), receives=(0,)),
        Command("exec.read", ExecRead, Effect.READ),
        Command("exec.wait", Exec, Effect.READ),
        Command("exec.list", Nothing, Effect.READ),
        Command("exec.input", ExecInput, Effect.EXEC),
        Command("exec.resize", ExecResize, Effect.EXEC),
        Command("exec.signal", ExecSignal, Effect.EXEC),
        Command("exec.kill", ExecKill, Effect.EXEC),
        Command("shell.start", ShellStart, Effect.EXEC),
        Command("shell.run", ShellRun, Effect.EXEC, sends=(1,)),
        Command("files.read", FilesRead, Effect.READ, sends=(3,)),
        Command("files.write", FilesWrite, Effect.WRITE, receives=(3,)),
        Command("files.upload", FilesUpload, Effect.WRITE),
        Command("files.append", FilesAppend, Effect.WRITE, receives=(3,)),
        Command("files.edit", FilesEdit, Effect.WRITE),
        Command("files.list", FilesList, Effect.READ),
        Command("files.glob", FilesGlob, Effect.READ),
        Command("files.stat", FilesStat, Effect.READ),
        Command("files.watch", FilesWatch, Effect.READ, sends=(16,)),
        Command("files.archive", FilesArchive, Effect.READ, sends=(3,)),
        Command("files.extract", FilesExtract, Effect.WRITE, receives=(3,)),
        Command("files.copy", FilesCopy, Effect.WRITE),
        Command("files.search", FilesSearch, Effect.READ),
        Command("files.mkdir", FilesMkdir, Effect.WRITE),
        Command("files.move", FilesMove, Effect.WRITE),
        Command("files.link", FilesLink, Effect.WRITE),
        Command("files.chmod", FilesChmod, Effect.WRITE),
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
