"""Every program of this process: start, signal, kill, reap, remember.

A program is reaped by pid as soon as its pidfd says that it ended (a thread waits for it where
the kernel has no pidfds), never with waitpid(-1), which would steal the children of others. An
exit is reported only if wait4(2) returned it.

Until it was reaped nobody else can have its pid, so `signal` cannot hit a stranger. `kill`
reaches the whole session: the leader's group, the groups of a shell's jobs, and what is left
of the group once the leader ended (of a job in a group of its own then, only if `kill` had
begun before). What called setsid(2) itself has left and lives on.

Everything here runs on the event loop, but for what reads /proc or files.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import anyio

from sidecar.errors import CallError, Code, Invalid, LimitExceeded, Started, from_os_error
from sidecar.hands import sessions, terminal
from sidecar.hands.command import Command, command_of
from sidecar.hands.interface import Base, Exit, Known, Path, Program, Running, Survivor, Target
from sidecar.hands.paths import Paths
from sidecar.hands.refusal import explain
from sidecar.hands.restraint import restrain
from sidecar.hands.spawn import Child, start
from sidecar.hands.threads import Threads

MAX_RUNNING = 1024  # programs at once; one more answers `limit`
MAX_ENDED = 1024  # ended programs that are remembered; the oldest is forgotten for one more
LINGER = 2.0  # seconds that `kill` waits after the KILL
CLOSE_TIME = 5.0  # seconds that `aclose` may take
CLOSE_GRACE = 2.0  # seconds of them between TERM and KILL
_PAUSE = 0.005  # seconds between looks at a session, doubled up to:
_MAX_PAUSE = 0.1


@dataclass(slots=True, eq=False)
class _Record:
    """One program. `exit` stays None if somebody else reaped it."""

    key: bytes
    pid: int
    start_time: int
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    exit: Exit | None = None
    pidfd: int | None = None
    has_terminal: bool = False
    master: int | None = None  # of its terminal, until it was reaped
    has_survivors: bool = False  # others in its group when it was reaped

    @property
    def was_reaped(self) -> bool:
        return self.ended.is_set()


class Programs:
    """The programs that were started and not forgotten."""

    def __init__(
        self,
        paths: Paths,
        threads: Threads,
        root: int,
        environments: Mapping[Base, dict[bytes, bytes]],
    ) -> None:
        self._paths = paths
        self._threads = threads
        self._root = root
        self._environments = environments
        self._starting: set[bytes] = set()
        self._running: dict[bytes, _Record] = {}
        self._ended: dict[bytes, _Record] = {}  # oldest first
        self._loop = asyncio.get_running_loop()
        self._is_closed = False

    async def spawn(self, program: Program, *, key: bytes) -> Running:
        command = command_of(program, self._environments, key)
        self._check_room(key)
        self._starting.add(key)
        try:
            child = await self._start_in(program.cwd, command)
        finally:
            self._starting.remove(key)
        record = self._running[key] = _Record(key, child.pid, child.start_time)
        try:
            self._restrain(child, command)
        finally:
            self._watch(record)
        ends = child.ends
        record.master, record.has_terminal = ends.master, ends.master is not None
        return Running(
            child.pid, child.start_time, ends.stdin, ends.stdout, ends.stderr, ends.control
        )

    def resize(self, key: bytes, rows: int, cols: int) -> None:
        """Nothing happens to the terminal of a program that was reaped."""
        record = self._find(key)
        if not record.has_terminal:
            raise Invalid("the program has no terminal")
        terminal.check_size(rows, cols)
        if record.master is not None:
            terminal.resize(record.master, rows, cols)

    def signal(self, key: bytes, number: int, to: Target) -> None:
        if number not in signal.valid_signals():
            raise Invalid(f"{number} is no signal")
        record = self._find(key)
        if to is Target.FOREGROUND and not record.has_terminal:
            raise Invalid("the program has no terminal")
        if record.was_reaped:
            return
        if to is Target.FOREGROUND and record.master is not None:
            terminal.signal_foreground(record.master, number)
        else:
            _signal_group(record, number)

    async def kill(self, key: bytes, *, grace: float) -> None:
        record = self._find(key)
        await self._kill(record, grace)

    async def wait(self, key: bytes) -> Exit:
        record = self._find(key)
        await record.ended.wait()
        if record.exit is None:
            raise CallError(
                Code.OUTCOME_UNKNOWN,
                "the program ended, and its exit status was taken by somebody else",
                started=Started.YES,
            )
        return record.exit

    def known(self) -> list[Known]:
        """Each program, ended ones first."""
        records = (*self._ended.values(), *self._running.values())
        return [Known(r.key, r.pid, r.start_time, r.was_reaped, r.has_terminal) for r in records]

    async def survivors(self) -> dict[bytes, list[Survivor]]:
        return {}

    def forget(self, key: bytes) -> None:
        if key in self._running or key in self._starting:
            raise Invalid("the program still runs and cannot be forgotten")
        self._ended.pop(key, None)

    async def aclose(self) -> None:
        """Kill what still runs. Afterwards nothing starts any more."""
        self._is_closed = True
        records = [*self._ended.values(), *self._running.values()]
        with anyio.move_on_after(CLOSE_TIME, shield=True):
            async with anyio.create_task_group() as kills:
                for record in records:
                    kills.start_soon(self._kill, record, CLOSE_GRACE)
        for record in records:
            self._release(record)

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

    # Ending ------------------------------------------------------------------------------

    def _watch(self, record: _Record) -> None:
        try:
            record.pidfd = os.pidfd_open(record.pid)
        except OSError:  # no such call here, or no descriptor left
            threading.Thread(target=self._wait_in_thread, args=[record], daemon=True).start()
        else:
            self._loop.add_reader(record.pidfd, self._reap, record)

    def _release(self, record: _Record) -> None:
        if record.pidfd is not None:
            self._loop.remove_reader(record.pidfd)
            os.close(record.pidfd)
            record.pidfd = None
        if record.master is not None:
            os.close(record.master)
            record.master = None

    def _wait_in_thread(self, record: _Record) -> None:
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, record.pid, os.WEXITED | os.WNOWAIT)
        with suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._reap, record)

    def _reap(self, record: _Record) -> None:
        if record.was_reaped:
            return
        try:
            pid, status, usage = os.wait4(record.pid, os.WNOHANG)
        except ChildProcessError:
            pass  # reaped by somebody else: `exit` stays None
        else:
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            record.exit = Exit(
                status=code if code >= 0 else None,
                signal=-code if code < 0 else None,
                user_cpu=usage.ru_utime,
                system_cpu=usage.ru_stime,
                max_rss=usage.ru_maxrss * 1024,
            )
        # The id may be given out again from here on, unless somebody is left to use it.
        record.has_survivors = sessions.group_exists(record.pid)
        self._release(record)
        self._remember(record)
        record.ended.set()

    def _remember(self, record: _Record) -> None:
        self._ended[record.key] = self._running.pop(record.key)
        if len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]

    async def _kill(self, record: _Record, grace: float) -> None:
        if record.was_reaped and not record.has_survivors:
            return
        # A stopped program acts on TERM only once it goes on.
        if not await self._end(record, (signal.SIGTERM, signal.SIGCONT), grace):
            await self._end(record, (signal.SIGKILL,), LINGER, insist=True)

    async def _end(
        self, record: _Record, numbers: tuple[int, ...], seconds: float, *, insist: bool = False
    ) -> bool:
        """Signal the session and wait until it is empty; with `insist`, signal again meanwhile."""
        if not record.was_reaped:
            for number in numbers:
                with suppress(CallError):  # not ours to signal: see whether it ends by itself
                    _signal_group(record, number)
        await self._signal_rest(record, numbers)
        with anyio.move_on_after(seconds):
            await record.ended.wait()
            pause = _PAUSE
            while await self._is_inhabited(record):
                await anyio.sleep(pause)
                pause = min(2 * pause, _MAX_PAUSE)
                if insist:
                    await self._signal_rest(record, numbers)
            return True
        return False

    async def _signal_rest(self, record: _Record, numbers: tuple[int, ...]) -> None:
        reaped = record.was_reaped
        send = partial(sessions.signal_members, record.pid, numbers, leader_reaped=reaped)
        await self._threads.run(send)

    async def _is_inhabited(self, record: _Record) -> bool:
        look = partial(sessions.members, record.pid, leader_reaped=record.was_reaped)
        return bool(await self._threads.run(look))

    def _find(self, key: bytes) -> _Record:
        record = self._running.get(key) or self._ended.get(key)
        if record is None:
            raise CallError(Code.NOT_FOUND, "no program of this key is known")
        return record


def _signal_group(record: _Record, number: int) -> None:
    try:
        os.killpg(record.pid, number)
    except OSError as error:
        raise from_os_error(error, f"process group {record.pid}") from None
