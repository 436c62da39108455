"""The `hands` interface: whatever must happen as the agent and where the agent is.

Hands opens paths, spawns and reaps programs, and gives core *descriptors*; core does the
reading and writing. Core holds the token, the journal and the receipts and never touches a
workspace path by itself: its uid may not even be allowed to. `hands.local` is the in-process
form; `hands.apart` speaks this same interface over a Unix socket to a `sidecar hands`. Nothing
here passes an object that could not cross one: paths, numbers, descriptors.

Paths are `str | bytes`, relative to the workspace root (an absolute path under the root is
accepted too); bytes for names that are not UTF-8. Every path operation is confined: nothing
outside the root is opened, made, renamed or removed, through symbolic links, `..` or races.

Errors: `CallError` with a code from `sidecar.errors` (`outside`, `not_found`, ...).
Cancelling any method is safe: descriptors made by a cancelled call are closed.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sidecar.hands.fileinterface import (
    ALL as ALL,
)
from sidecar.hands.fileinterface import (
    Entry as Entry,
)
from sidecar.hands.fileinterface import (
    FileHands as FileHands,
)
from sidecar.hands.fileinterface import (
    FileStat as FileStat,
)
from sidecar.hands.fileinterface import (
    FileType as FileType,
)
from sidecar.hands.fileinterface import (
    Listing as Listing,
)
from sidecar.hands.fileinterface import (
    OpenMode as OpenMode,
)
from sidecar.hands.fileinterface import (
    Path as Path,
)
from sidecar.hands.fileinterface import (
    Selection as Selection,
)
from sidecar.hands.fileinterface import (
    Tool as Tool,
)
from sidecar.hands.fileinterface import (
    ToolName as ToolName,
)
from sidecar.hands.fileinterface import (
    Upload as Upload,
)
from sidecar.hands.fileinterface import (
    stat_of as stat_of,
)
from sidecar.hands.fileinterface import (
    type_of as type_of,
)
from sidecar.hands.pipeio import PipeIO

COMMAND_BYTES = 256  # of a program's argv that `Known` has


@dataclass(frozen=True, slots=True)
class Terminal:
    """A terminal for a program (pty(7)); rows and columns are 1 to 65,535."""

    rows: int = 24
    cols: int = 80
    term: str = "xterm-256color"  # becomes TERM, unless `env` sets it
    plain: bool = False  # for a machine: no echo, output as it is printed, no stop by Ctrl-S


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits of a program and what it starts (setrlimit(2)); None leaves ours.

    They are set just after the start: what a program does in its first 0.1 ms may escape them
    (`hands.local.restraint`). Only root can raise them. One above ours answers `limit`.
    """

    memory: int | None = None  # bytes of address space, of each process: RLIMIT_AS
    processes: int | None = None  # of this user, wherever started; not for root: RLIMIT_NPROC
    files: int | None = None  # descriptors of each process: RLIMIT_NOFILE
    cpu: int | None = None  # seconds of processor time of each process, then SIGXCPU: RLIMIT_CPU


class Base(enum.StrEnum):
    """What a program's environment is built on."""

    DEFAULT = "default"  # as hands was set up: clean, or our own less SIDECAR_*
    CLEAN = "clean"  # what a login would set
    EMPTY = "empty"  # nothing


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. Exactly one of `argv` and `shell`; `shell` runs as `$SHELL or /bin/sh -c`.

    Every program finds its key, in hex, in SIDECAR_EXEC_ID: by this mark what it started is
    known as its own, however far it went.
    """

    argv: Sequence[str | bytes] | None = None
    shell: str | None = None
    cwd: Path | None = None  # None: the workspace root
    env: Mapping[str, str] | None = None  # set on top of the base environment
    unset: Sequence[str] = ()
    base: Base = Base.DEFAULT
    stdin: bool = False  # True: a pipe; False: /dev/null; without meaning for a terminal
    terminal: Terminal | None = None  # in place of pipes, as the controlling terminal
    control: bool = False  # with a terminal: descriptor 3 is a stream socket to `Running.control`
    limits: Limits | None = None


class Target(enum.StrEnum):
    """Whom a signal goes to."""

    PROGRAM = "program"  # the process that was started, alone
    GROUP = "group"  # its process group
    FOREGROUND = "foreground"  # the foreground group of its terminal, as for Ctrl-C
    TREE = "tree"  # everything it started that still lives, and itself


@dataclass(frozen=True, slots=True)
class Exit:
    """How a program ended, as observed by wait. Exactly one of `status` and `signal` is set.

    `max_rss` is never less than what hands itself had in use at the start: until exec a child
    has our memory, and the kernel counts that (getrusage(2)).
    """

    status: int | None
    signal: int | None
    user_cpu: float = 0.0  # seconds
    system_cpu: float = 0.0  # seconds
    max_rss: int = 0  # bytes


@dataclass(frozen=True, slots=True)
class Running:
    """A program that was started; core owns the descriptors (non-blocking, close-on-exec).

    Of a program with a terminal `stdout` and `stdin` are two descriptors of its master side,
    and there is no `stderr`.
    """

    pid: int
    start_time: int  # clock ticks since boot (proc(5) field 22): pid + start time is unique
    stdin: int | None
    stdout: int
    stderr: int | None
    control: int | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """A program that was started and not forgotten."""

    key: bytes
    pid: int
    start_time: int
    has_ended: bool
    has_terminal: bool
    command: bytes = b""  # its argv, NUL between words; the first `COMMAND_BYTES` of it


@dataclass(frozen=True, slots=True)
class Survivor:
    """A living process that a program started. `name` is the kernel's, 15 bytes at most."""

    pid: int
    start_time: int
    name: bytes


class Hands(FileHands, Protocol):
    """The half that acts."""

    form: str  # "in-process" or "socket"
    keeps_programs: bool  # they go on, with their pipes, when core ends

    @property
    def pipe_io(self) -> PipeIO:
        """How the pipes of its programs are read and written."""
        ...

    @property
    def trust(self) -> str:
        """`isolated` if hands has another identity than core (and is not root), `shared` if the
        agent can read what core can, `unknown` until a hands was reached for the first time."""
        ...

    def status(self) -> Mapping[str, str | float]:
        """`state` (`connected` or `away`), `since` how many seconds, and `why` it is away."""
        ...

    async def capabilities(self) -> Mapping[str, str | bool]:
        """What this kernel and identity allow: openat2, pidfd, uid, root (the path), ... Never
        waits for a hands that is away."""
        ...

    async def spawn(self, program: Program, *, key: bytes) -> Running:
        """Start a program in a session of its own. `key` (the call id) names it from here on."""
        ...

    def adopt(self, key: bytes, pid: int, start_time: int) -> bool:
        """Know a program that was started before, perhaps by a hands that is gone, so that it can
        be signalled, ended, and seen to end. False if it is certain that it is there no more."""
        ...

    async def take(self, key: bytes) -> Running:
        """Descriptors of a program once more, as far as they are open: for a core that was
        restarted.

        Raises `unsupported` in the form that ends with core, and for a program that another
        hands had started; `not_found` for a stranger.
        """
        ...

    async def end_input(self, key: bytes) -> None:
        """The copy of a program's standard input that hands keeps is closed. With core's own it
        was the last one: the program reads the end. Harmless when repeated."""
        ...

    async def resize(self, key: bytes, *, rows: int, cols: int) -> None:
        """Change the size of a program's terminal; it gets SIGWINCH. `invalid` without one."""
        ...

    async def signal(self, key: bytes, number: int, to: Target = Target.GROUP) -> None:
        """Send a signal. Nothing happens to a program that was reaped; its tree may live on."""
        ...

    async def kill(self, key: bytes, *, grace: float, since: int | None = None) -> None:
        """TERM to everything a program started and to itself, KILL after `grace` seconds.

        Also after its end, for what it left behind. Returns when the program was reaped and
        nothing of its tree is left, or 2 s after the KILL. With `since` (clock ticks since boot)
        only what was started then or later is killed, and never the program itself.
        """
        ...

    async def wait(self, key: bytes) -> Exit:
        """How the program ended. Any number of waiters, also after the end, until `forget`.

        Raises `outcome_unknown` if it ended and nobody observed how.
        """
        ...

    async def known(self) -> Sequence[Known]:
        """Each program that was started and not forgotten."""
        ...

    async def survivors(self) -> Mapping[bytes, Sequence[Survivor]]:
        """By key, what lives of the trees of programs that have ended. One look at all of /proc."""
        ...

    async def forget(self, key: bytes) -> None:
        """Drop what is kept of an ended program. What it left behind lives on, unlisted."""
        ...

    async def aclose(self) -> None:
        """Kill what still runs, reap it, release the root. Bounded: 5 s. A hands in another
        process is only left: its programs go on."""
        ...
