"""Every program of this process: start, signal, kill, remember.

Until a program was reaped nobody else can have its pid, so `signal` cannot hit a stranger.
`kill` reaches everything that a program started: `tree` says how that is found, `ending` how it
is ended, `orphans` what becomes of what it left behind, `reaping` how its own end is noticed.

Everything here runs on the event loop, but for what reads /proc or files.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.lowlevel

from sidecar.errors import CallError, Code, Invalid, LimitExceeded, Started, from_os_error
from sidecar.hands.interface import (
    COMMAND_BYTES,
    Base,
    Exit,
    Known,
    Path,
    Program,
    Running,
    Survivor,
    Target,
)
from sidecar.hands.local import terminal
from sidecar.hands.local.cgroup import Cgroup, Cgroups
from sidecar.hands.local.command import Command, command_of
from sidecar.hands.local.ending import Ending
from sidecar.hands.local.orphans import Orphans
from sidecar.hands.local.paths import Paths
from sidecar.hands.local.proc import read_process
from sidecar.hands.local.reaping import Reaper
from sidecar.hands.local.record import Record
from sidecar.hands.local.refusal import explain
from sidecar.hands.local.restraint import restrain
from sidecar.hands.local.spawn import Child, start
from sidecar.hands.local.threads import Threads

MAX_RUNNING = 1024  # programs at once; one more answers `limit`
MAX_ENDED = 1024  # ended programs that are remembered; the oldest is forgotten for one more
CLOSE_TIME = 5.0  # seconds that `aclose` may take
CLOSE_GRACE = 2.0  # seconds of them between TERM and KILL


class Programs:
    """The programs that were started and not forgotten."""

    def __init__(
        self,
        paths: Paths,
        threads: Threads,
        root: int,
        environments: Mapping[Base, dict[bytes, bytes]],
        *,
        cgroups: Cgroups | None = None,
        adopt: bool = False,
    ) -> None:
        self._paths = paths
        self._threads = threads
        self._root = root
        self._environments = environments
        self._cgroups = cgroups
        self._starting: dict[bytes, anyio.Event] = {}
        self._running: dict[bytes, Record] = {}
        self._ended: dict[bytes, Record] = {}  # oldest first
        self._pids: set[int] = set()  # of those that were not reaped
        self._reaper = Reaper(self._on_end)
        self._orphans = Orphans(self._pids, adopt=adopt)
        self._ending = Ending(threads, self._orphans, self._pids)
        self._is_closed = False

    @property
    def adopts(self) -> bool:
        """Whether what programs leave behind becomes a child of ours (prctl(2), subreaper)."""
        return self._orphans.adopts

    async def spawn(self, program: Program, *, key: bytes) -> Running:
        command = command_of(program, self._environments, key)
        self._check_room(key)
        started = self._starting[key] = anyio.Event()
        try:
            async with self._cgroup(key) as cgroup:
                child = await self._start_in(program.cwd, command)
                if cgroup is not None:
                    cgroup.adopt(child.pid)
            record = Record(
                key, child.pid, child.start_time, command=_brief(command), cgroup=cgroup
            )
            self._remember(record)
        finally:
            del self._starting[key]
            started.set()
        try:
            self._restrain(child, command)
        finally:
            self._reaper.watch(record)
        ends = child.ends
        record.master, record.has_terminal = ends.master, ends.master is not None
        return Running(
            child.pid, child.start_time, ends.stdin, ends.stdout, ends.stderr, ends.control
        )

    def adopt(self, key: bytes, pid: int, start_time: int) -> bool:
        """Know a program that a hands before us started; False if it is there no more.

        How it ends is for its parent to see: `wait` raises `outcome_unknown`.
        """
        if key in self._running or key in self._ended:
            return True
        self._check_room(key)
        process = read_process(pid)
        if process is None or process.start_time != start_time or not process.is_alive:
            return False
        if pid in self._pids:  # two would wait for one
            return False
        record = Record(key, pid, start_time, is_child=process.parent == os.getpid())
        self._remember(record)
        self._reaper.watch(record)
        return True

    def resize(self, key: bytes, rows: int, cols: int) -> None:
        """Nothing happens to the terminal of a program that was reaped."""
        record = self._find(key)
        if not record.has_terminal:
            raise Invalid("the program has no terminal")
        terminal.check_size(rows, cols)
        if record.master is not None:
            terminal.resize(record.master, rows, cols)

    async def signal(self, key: bytes, number: int, to: Target) -> None:
        if number not in signal.valid_signals():
            raise Invalid(f"{number} is no signal")
        record = self._find(key)
        if to is Target.TREE:
            return await self._ending.signal([record], number)
        if to is not Target.FOREGROUND:
            return record.signal(number, group=to is Target.GROUP)
        if not record.has_terminal:
            raise Invalid("the program has no terminal")
        if record.master is not None:
            terminal.signal_foreground(record.master, number)

    async def kill(self, key: bytes, *, grace: float, since: int | None = None) -> None:
        """See `Hands.kill`. Of a program that is being started, once it was."""
        while (starting := self._starting.get(key)) is not None:
            await starting.wait()
        if since is not None:
            return await self._ending.kill_since(self._find(key), since, grace)
        await self._ending.kill([self._find(key)], grace)

    async def wait(self, key: bytes) -> Exit:
        record = self._find(key)
        await record.ended.wait()
        if record.exit is None:
            why = (
                "somebody else took its exit status"
                if record.is_child
                else "a hands that is gone had started it, so nobody saw how"
            )
            raise CallError(Code.OUTCOME_UNKNOWN, f"the program ended: {why}", started=Started.YES)
        return record.exit

    def known(self) -> list[Known]:
        """Each program, ended ones first."""
        records = (*self._ended.values(), *self._running.values())
        return [
            Known(r.key, r.pid, r.start_time, r.was_reaped, r.has_terminal, r.command)
            for r in records
        ]

    async def survivors(self) -> dict[bytes, list[Survivor]]:
        found = await self._ending.survivors(list(self._ended.values()))
        return {
            record.key: [Survivor(p.pid, p.start_time, p.name) for p in processes]
            for record, processes in found.items()
        }

    def forget(self, key: bytes) -> None:
        if key in self._running or key in self._starting:
            raise Invalid("the program still runs and cannot be forgotten")
        self._ended.pop(key, None)

    async def end_all(self) -> None:
        """Kill what still lives, also of programs that have ended. Nothing starts any more; how
        they ended is told on."""
        self._is_closed = True
        with anyio.move_on_after(CLOSE_TIME, shield=True):
            await self._ending.kill(self._records(), CLOSE_GRACE)
            if self._cgroups is not None:
                await self._threads.run(self._cgroups.sweep)

    async def aclose(self) -> None:
        await self.end_all()
        for record in self._records():
            self._reaper.release(record)
        self._orphans.close()

    def _records(self) -> list[Record]:
        return [*self._ended.values(), *self._running.values()]

    # Starting ----------------------------------------------------------------------------

    def _check_room(self, key: bytes) -> None:
        if self._is_closed:
            raise CallError(Code.HANDS_AWAY, "hands is closing")
        if key in self._starting or key in self._running or key in self._ended:
            raise CallError(Code.CONFLICT, "a program of this key was started before")
        size = len(self._starting) + len(self._running) + 1
        if size > MAX_RUNNING:
            raise LimitExceeded("running programs", size=size, limit=MAX_RUNNING)

    async def _start_in(self, cwd: Path | None, command: Command) -> Child:
        if cwd is None:
            return await self._start(command, self._root)
        directory = await self._threads.make(os.close, self._paths.open_directory, cwd)
        try:
            # A cancelled call waits for its thread (`threads`), and starts nothing after that.
            await anyio.lowlevel.checkpoint_if_cancelled()
            if self._is_closed:
                raise CallError(Code.HANDS_AWAY, "hands is closing")
            return await self._start(command, directory)
        finally:
            os.close(directory)

    async def _start(self, command: Command, directory: int) -> Child:
        try:
            return start(command, directory)
        except OSError as error:
            raise await self._threads.run(explain, error, command, directory) from None

    def _restrain(self, child: Child, command: Command) -> None:
        try:
            restrain(child.pid, command.restraints)
        except OSError as error:
            with suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)
            child.ends.close()
            raise from_os_error(error, "limits", started=Started.YES) from None

    @asynccontextmanager
    async def _cgroup(self, key: bytes) -> AsyncIterator[Cgroup | None]:
        """One for a program that is being started, if programs get any."""
        if self._cgroups is None:
            yield None
            return
        cgroup = await self._threads.run(self._cgroups.make, key)
        try:
            yield cgroup
        except BaseException:
            if cgroup is not None:
                self._cgroups.leave(cgroup)
            raise

    # Ending ------------------------------------------------------------------------------

    def _remember(self, record: Record) -> None:
        for earlier in self._ended.values():
            if earlier.pid == record.pid:  # given out again, so nothing of its session was left
                earlier.owns_session = False
        self._running[record.key] = record
        self._pids.add(record.pid)

    def _on_end(self, record: Record) -> None:
        """It was reaped just now."""
        self._pids.remove(record.pid)
        self._ended[record.key] = self._running.pop(record.key)
        if len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]
        if self._cgroups is not None and record.cgroup is not None:
            self._cgroups.leave(record.cgroup)
        self._orphans.reap()

    def _find(self, key: bytes) -> Record:
        record = self._running.get(key) or self._ended.get(key)
        if record is None:
            raise CallError(Code.NOT_FOUND, "no program of this key is known")
        return record


def _brief(command: Command) -> bytes:
    """For `Known`; a core that was restarted has nothing else to show."""
    return b"\0".join(command.argv[:COMMAND_BYTES])[:COMMAND_BYTES]
