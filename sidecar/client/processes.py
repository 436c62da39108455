"""Programs that outlive their caller: listed, found again, watched, fed, steered and ended.

A program is known by its exec id, which is the id of the call that started it, whether that
was `exec.start` or `exec.run`. Everything here works from any controller of the run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sidecar.client.exec import Completed, Process, completed_of
from sidecar.client.program import Terminal
from sidecar.errors import CallError, Code
from sidecar.protocol.ids import ID_BYTES, show
from sidecar.protocol.limits import KIB, MIB
from sidecar.protocol.streams import STDERR, STDIN, STDOUT
from sidecar.streaming.pushing import PushSource

if TYPE_CHECKING:
    from sidecar.client.run import Run

CREDIT = 4 * MIB  # of each output that may be under way
PIECE = 32 * KIB  # of input in one call

NAMES = {STDOUT: "stdout", STDERR: "stderr"}

Target = Literal["program", "group", "foreground", "tree"]


@dataclass(frozen=True, slots=True)
class Survivor:
    """A living process that a program started, seen after the program's end."""

    pid: int
    name: str


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A program as the sidecar lists it. Of `status` and `signal` one is set once it ended, and
    neither if nobody saw how (`state` is `unknown`)."""

    id: bytes
    pid: int
    state: Literal["running", "ended", "unknown"]
    owner: str | None  # the controller that started it
    argv: Sequence[str | bytes]  # empty if `shell` is set, or nobody knows it any more
    shell: str | None
    cut: int  # bytes of its command that are not told
    age: float  # seconds since its start
    terminal: Terminal | None  # and its size now
    has_input: bool  # and it is open
    status: int | None
    signal: int | None
    timed_out: Literal["total", "idle"] | None
    sizes: Mapping[int, int]  # bytes printed, by output
    survivors: Sequence[Survivor]  # what it left behind, 32 at most
    more_survivors: int

    @property
    def is_alive(self) -> bool:
        """It runs, or something that it started does, or nobody knows."""
        return self.state != "ended" or bool(self.survivors)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A part of a program's output. It begins at `offset`, which is higher than the one asked
    for where `dropped` bytes were not kept; `ended` if nothing will follow it."""

    data: bytes
    offset: int
    size: int  # of the whole output until now
    dropped: int
    ended: bool


class RemoteProcess:
    """A handle on a program, by its exec id. It holds nothing there: dropping it ends nothing."""

    def __init__(self, run: Run, id: bytes, pid: int | None = None) -> None:
        self.run = run
        self.id = id
        self.pid = pid  # None until the sidecar has told

    def __repr__(self) -> str:
        return f"RemoteProcess({show(self.id)}, pid={self.pid})"

    @asynccontextmanager
    async def attach(
        self,
        *,
        stdout: int | None = 0,
        stderr: int | None = 0,
        follow: bool = True,
        input: bool = False,
        credit: int = CREDIT,
    ) -> AsyncIterator[Process]:
        """Its output from these offsets on (None: not that one), and its input if wanted.

        Leaving the block leaves the program as it is. Without `follow` the output ends with what
        was printed until now. `credit` bounds what is on its way: with little of it, little comes
        after a program was told to be quiet.
        """
        arguments = {"stdout": stdout, "stderr": stderr, "follow": follow, "input": input}
        call_arguments = {"exec": self.id, **arguments}
        async with self.run.open("exec.attach", call_arguments, credit=credit) as call:
            for n, offset in ((STDOUT, stdout), (STDERR, stderr)):
                call.receiver(n, start=offset or 0)
            source = PushSource() if input else None
            if source is not None:
                self.run.send(call, STDIN, source)
            yield Process(self, call, source)

    async def read(self, n: int = STDOUT, offset: int = 0, length: int | None = None) -> Excerpt:
        """Some of what is kept of an output, at once; 32 KiB if `length` is None, which is also
        the most."""
        size = {} if length is None else {"length": length}
        value = await self._call("exec.read", n=n, offset=offset, **size)
        return Excerpt(
            value["data"], value["offset"], value["size"], value["dropped"], value["ended"]
        )

    async def input(self, data: bytes, *, end: bool = False) -> int:
        """Bytes for its input, and with `end` the end of it; how many were taken. A terminal has
        no end of input: send what its user would type, b"\\x04"."""
        taken = 0
        for at in range(0, max(len(data), 1), PIECE):
            piece = data[at : at + PIECE]
            is_last = at + PIECE >= len(data)
            value = await self._call("exec.input", data=piece, end=end and is_last)
            taken += value["taken"]
        return taken

    async def resize(self, rows: int, cols: int) -> int:
        """A new size for its terminal; the offset of its output at that moment."""
        offset: int = (await self._call("exec.resize", rows=rows, cols=cols))["offset"]
        return offset

    async def signal(self, signal: str | int, *, to: Target = "group") -> None:
        """A signal, by name or number. Nothing happens to a program that has ended."""
        await self._call("exec.signal", signal=signal, to=to)

    async def kill(self, *, grace: float = 5.0) -> Completed:
        """End it and everything that it started: TERM, then KILL after `grace` seconds. Also
        after its end, for what it left behind."""
        return completed_of(await self._call("exec.kill", grace=float(grace)), b"", b"")

    async def wait(self) -> Completed:
        """How it ended, without its output. Cancelling this leaves it as it is. Raises `CallError`:
        `timeout` if one of its own ended it, `outcome_unknown` if nobody saw how it ended."""
        return completed_of(await self._call("exec.wait"), b"", b"")

    async def _call(self, command: str, **arguments: Any) -> Any:
        return await self.run.call(command, {"exec": self.id, **arguments})


async def processes_of(run: Run) -> list[ProcessInfo]:
    """See `Run.processes`."""
    answer = await run.call("exec.list")
    return [_info_of(entry) for entry in answer["processes"]]


async def find_process(run: Run, id: bytes | str) -> RemoteProcess:
    """See `Run.find`."""
    info = match_process(await processes_of(run), id)
    return RemoteProcess(run, info.id, info.pid)


def match_process(processes: Sequence[ProcessInfo], id: bytes | str) -> ProcessInfo:
    """The one whose id is `id`, or begins with it. Raises `CallError`: `not_found`, or `invalid`
    if it could be several."""
    wanted = id.hex() if isinstance(id, bytes) else id.replace("-", "").lower()
    found = [info for info in processes if wanted and info.id.hex().startswith(wanted)]
    text = show(id) if isinstance(id, bytes) and len(id) == ID_BYTES else repr(id)
    if not found:
        raise CallError(Code.NOT_FOUND, f"no program {text} is known here", exec=text)
    if len(found) > 1:
        names = ", ".join(show(info.id) for info in found[:4])
        more = ", ..." if len(found) > 4 else ""
        raise CallError(Code.INVALID, f"{text} could be any of {len(found)}: {names}{more}")
    return found[0]


def _info_of(entry: Mapping[str, Any]) -> ProcessInfo:
    terminal = entry["terminal"]
    return ProcessInfo(
        id=entry["exec"],
        pid=entry["pid"],
        state=entry["state"],
        owner=entry["owner"],
        argv=entry.get("argv", ()),
        shell=entry.get("shell"),
        cut=entry["cut"],
        age=entry["age"],
        terminal=None if terminal is None else Terminal(terminal["rows"], terminal["cols"]),
        has_input=entry["input"],
        status=entry.get("status"),
        signal=entry.get("signal"),
        timed_out=entry.get("which"),
        sizes={n: entry[name]["size"] for n, name in NAMES.items() if name in entry},
        survivors=[Survivor(one["pid"], one["name"]) for one in entry["survivors"]],
        more_survivors=entry["more_survivors"],
    )
