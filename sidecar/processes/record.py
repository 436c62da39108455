"""What is known of a program: how it was to be started, how it stands, how it ended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from sidecar.hands.interface import Exit, Path, Program
from sidecar.processes.timeouts import Which
from sidecar.protocol.spool import OnFull

COMMAND_BYTES = 1024  # of a command that are kept, and told
CWD_BYTES = 1024


class State(StrEnum):
    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"  # hands is away, or came back without knowing how it ended


@dataclass(frozen=True, slots=True)
class Spec:
    """What to start, and what becomes of it. See `protocol.commands.ProgramArguments`."""

    program: Program
    input: bytes | None = None  # all of it; None: it has none, or it stays open
    timeout: float | None = None  # seconds, like the following
    idle_timeout: float | None = None
    grace: float = 5.0
    ends_daemons: bool = False
    on_full: OnFull = OnFull.DROP
    is_brief: bool = False  # its call brings everything: of ended programs the first to forget

    def once_started(self) -> Spec:
        """Without what is of use only until then: 60,000 arguments are megabytes."""
        return replace(self, program=Program(terminal=self.program.terminal), input=None)


@dataclass(frozen=True, slots=True)
class Told:
    """What is kept of the program that a spec started, so that people know it again."""

    command: dict[str, Any]  # see `command_of`
    cwd: Path | None

    @classmethod
    def of(cls, program: Program) -> Told:
        return cls(command_of(program), _cut(program.cwd, CWD_BYTES))


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended: `exit` as observed by wait, or None and `why` nobody knows."""

    exit: Exit | None
    duration: float
    which: Which | None = None  # the timeout that ended it
    why: str = ""


@dataclass(frozen=True, slots=True)
class Resize:
    """From `offset` of the output on, the terminal had this size."""

    offset: int
    rows: int
    cols: int


def describe(ended: Ended) -> dict[str, Any]:
    """How a program ended, in an answer or event; status and signal are None if unknown."""
    exit = ended.exit
    if exit is None:
        return {"status": None, "signal": None, "outcome": "unknown"}
    return {
        "status": exit.status,
        "signal": exit.signal,
        "user_cpu": exit.user_cpu,
        "system_cpu": exit.system_cpu,
        "max_rss": exit.max_rss,
    }


def command_of(program: Program) -> dict[str, Any]:
    """`argv` or `shell`, and how many bytes of it are left out. Of an adopted one hands has only
    the first bytes, and nobody knows how many more there were."""
    if program.shell is not None:
        shown = _cut(program.shell, COMMAND_BYTES)
        return {"shell": shown, "cut": _size(program.shell) - _size(shown)}
    words: list[str | bytes] = []
    left = COMMAND_BYTES
    for word in program.argv or ():
        shown = _cut(word, left)
        words.append(shown)
        left -= _size(shown) + 1
        if left <= 0 or shown != word:
            break
    whole = sum(map(_size, program.argv or ()))
    return {"argv": words, "cut": whole - sum(map(_size, words))}


def _size(text: str | bytes) -> int:
    if isinstance(text, bytes) or text.isascii():
        return len(text)
    return len(text.encode(errors="replace"))


def _cut(text: Any, size: int) -> Any:
    """The first `size` bytes of `text`, which stays text if it was; no character is split."""
    if isinstance(text, str):
        return text.encode(errors="replace")[:size].decode(errors="ignore")
    return None if text is None else text[:size]
