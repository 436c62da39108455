"""How a program is started: what `Run.exec`, `Run.process` and `Run.start` have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypedDict

Words = Sequence[str | bytes] | str  # a list is an argv; a string goes to the shell
Path = str | bytes


@dataclass(frozen=True, slots=True)
class Terminal:
    """A terminal in place of pipes: one output, which is stdout, and an input without an end."""

    rows: int = 24
    cols: int = 80
    term: str = "xterm-256color"  # what TERM says, unless `env` does


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits of each process of a program (setrlimit(2)); None: the sidecar's own."""

    memory: int | None = None  # bytes of address space
    processes: int | None = None  # of its user, wherever started
    files: int | None = None  # open descriptors
    cpu: int | None = None  # seconds of processor time


class Options(TypedDict, total=False):
    """Each is optional; times are seconds.

    What ends a program by a timeout ends everything that it started: TERM, then KILL after
    `grace`. `daemons` says whether what it leaves behind when it ends by itself lives on (and
    stays listed) or is ended, too.
    """

    cwd: Path | None  # default: the workspace
    env: Mapping[str, str] | None  # set on top of the base
    unset: Sequence[str]  # names taken out of the base
    base: Literal["default", "clean", "empty"]
    terminal: Terminal | None
    limits: Limits | None
    timeout: float | None  # from the start
    idle_timeout: float | None  # from the last byte in or out
    grace: float  # default: 5
    daemons: Literal["leave", "end"]  # default: leave
    on_full: Literal["drop", "hold"]  # when nobody takes the output; default: drop its middle


def program_arguments(program: Words, options: Options) -> dict[str, Any]:
    """The arguments of `exec.run` and `exec.start`; what is not said is left to the sidecar."""
    arguments = plain_options(options)
    if isinstance(program, str):
        arguments["shell"] = program
    else:
        arguments["argv"] = list(program)
    return arguments


def plain_options(options: Mapping[str, object]) -> dict[str, Any]:
    """Those that are said, as arguments."""
    return {name: _plain(value) for name, value in options.items() if value is not None}


def _plain(value: object) -> object:
    """As CBOR has it, with the type that the catalogue insists on."""
    match value:
        case Terminal() | Limits():
            return {name: item for name, item in asdict(value).items() if item is not None}
        case int():
            return float(value)  # all numbers among the options are seconds
        case Mapping():
            return dict(value)
        case str() | bytes():
            return value
        case Sequence():
            return list(value)
    return value
