"""Who runs the same programs, one beside the other, from the bare floor to the whole stack.

Each one tells how long it took from asking to the end of the program with all of its output
read, and sees that nothing of it was missing.
"""

from __future__ import annotations

import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio
import anyio.to_thread
from anyio import CapacityLimiter

from sidecar.clock import SystemClock
from sidecar.hands.apart.remote import SocketHands
from sidecar.hands.interface import Hands, Program, Running, Terminal
from sidecar.hands.local.hands import LocalHands
from sidecar.identity import new_id
from sidecar.pipes import PipeReader
from sidecar.spool import Spool
from sidecar.spoolbudget import SpoolBudget
from tests.bench.measure import seconds
from tests.bench.stage import PATIENCE, Stage, hands_process

ECHO = ["/bin/echo", "x"]
READ = 256 * 1024  # bytes, as the sidecar reads pipes


class Takes(Protocol):
    """Seconds that `times` programs at once took, each of which printed that many bytes."""

    async def __call__(self, argv: list[str], *, printed: int, times: int = 1) -> float: ...


class Contestant(ABC):
    """Runs programs of ours in our process, so that we have the clock in our hand."""

    @abstractmethod
    async def once(self, argv: list[str], printed: int) -> None:
        """Run a program to its end, and see that it printed that many bytes."""

    async def seconds(self, argv: list[str], *, printed: int, times: int = 1) -> float:
        """How long `times` programs at once took, each of which prints that many bytes."""

        async def one() -> None:
            await self.once(argv, printed)

        async def together() -> None:
            async with anyio.create_task_group() as group:
                for _ in range(times):
                    group.start_soon(one)

        return await seconds(one if times == 1 else together)


class Floor(Contestant):
    """What this Python needs at least: spawn with three pipes and a session of its own, wait.

    On the event loop, as short as it gets: nothing else wants it meanwhile.
    """

    async def once(self, argv: list[str], printed: int) -> None:
        _drain(_bare(argv), printed)

    async def seconds(self, argv: list[str], *, printed: int, times: int = 1) -> float:
        async def together() -> None:
            for child in [_bare(argv) for _ in range(times)]:
                _drain(child, printed)

        return await seconds(together)

    async def first_byte(self) -> float:
        """Seconds from spawn until the first byte was read; the program's end comes later."""
        began = time.perf_counter()
        with _bare(ECHO) as child:
            assert child.stdout is not None
            assert os.read(child.stdout.fileno(), 1) == b"x"
            return time.perf_counter() - began


def _bare(argv: list[str]) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)


def _drain(child: subprocess.Popen[bytes], printed: int) -> None:
    assert child.stdout is not None
    got = 0
    with child:
        while size := len(os.read(child.stdout.fileno(), READ)):
            got += size
    assert (child.returncode, got) == (0, printed)


class Library(Contestant):
    """`subprocess.run`, in a thread where several are to run at once."""

    async def once(self, argv: list[str], printed: int) -> None:
        self._run(argv, printed)

    async def seconds(self, argv: list[str], *, printed: int, times: int = 1) -> float:
        async def together() -> None:
            limiter = CapacityLimiter(times)  # the default one allows 40 threads
            async with anyio.create_task_group() as group:
                for _ in range(times):
                    work = partial(anyio.to_thread.run_sync, self._run, argv, printed)
                    group.start_soon(partial(work, limiter=limiter))

        if times == 1:
            return await super().seconds(argv, printed=printed)
        return await seconds(together)

    def _run(self, argv: list[str], printed: int) -> None:
        done = subprocess.run(argv, capture_output=True, check=True)
        assert len(done.stdout) == printed


class Within(Contestant):
    """Hands, with what core does to a program's output: it reads it into a spool."""

    def __init__(self, hands: Hands, folder: Path) -> None:
        self._hands = hands
        self._folder = folder

    async def once(self, argv: list[str], printed: int) -> None:
        async with self._running(Program(argv=argv)) as (key, running):
            spool = Spool(self._folder / "spool", SystemClock(), SpoolBudget())
            io = self._hands.pipe_io
            reader = PipeReader(spool, on_data=_nothing, on_full=_nothing, io=io)
            reader.connect(running.stdout)
            ended = await self._hands.wait(key)
            reader.flush()
            await reader.wait_finished()
            spool.close()
            assert (ended.status, spool.size) == (0, printed)

    async def first_byte(self, terminal: Terminal | None = None) -> float:
        """Seconds from spawn until the first byte was read; the program's end comes later."""
        began = time.perf_counter()
        async with self._running(Program(argv=ECHO, terminal=terminal)) as (key, running):
            await anyio.wait_readable(running.stdout)
            assert self._hands.pipe_io.read(running.stdout, 1) == b"x"
            taken = time.perf_counter() - began
            await self._hands.wait(key)
            os.close(running.stdout)
        return taken

    @asynccontextmanager
    async def _running(self, program: Program) -> AsyncIterator[tuple[bytes, Running]]:
        """The caller closes standard output."""
        key = new_id(SystemClock())
        running = await self._hands.spawn(program, key=key)
        yield key, running
        await self._hands.forget(key)
        for descriptor in (running.stdin, running.stderr):
            if descriptor is not None:
                os.close(descriptor)


def _nothing() -> None:
    """A spool that drops never fills."""


class Through(Contestant):
    """The whole stack: call, hub, sidecar, program, and its output and result back to us."""

    def __init__(self, here: Stage) -> None:
        self._run = here.run

    async def once(self, argv: list[str], printed: int) -> None:
        completed = (await self._run.exec(argv)).check()
        assert len(completed.stdout) == printed

    async def follow(self, argv: list[str], printed: int) -> float:
        """Seconds of a program whose output is worked off as it comes."""
        began, got = time.perf_counter(), 0
        async with self._run.process(argv, on_full="hold") as program:
            async for chunk in program.stdout:
                got += len(chunk)
            (await program.wait()).check()
        assert got == printed, f"{got} bytes came, {printed} were printed"
        return time.perf_counter() - began

    async def first_byte(self) -> float:
        began = time.perf_counter()
        async with self._run.process(ECHO) as program:
            assert (await program.stdout.receive())[:1] == b"x"
            taken = time.perf_counter() - began
            (await program.wait()).check()
        return taken


@asynccontextmanager
async def within(folder: Path) -> AsyncIterator[Within]:
    """Hands in this process."""
    async with LocalHands.open_root(str(folder)) as hands:
        yield Within(hands, folder)


@asynccontextmanager
async def apart(folder: Path) -> AsyncIterator[Within]:
    """Hands in a process of its own, behind a socket."""
    with hands_process(folder, folder / "apart.sock"):
        async with SocketHands.open_socket(str(folder / "apart.sock")) as hands:
            with anyio.fail_after(PATIENCE):
                await hands.stat(".")  # connected
            yield Within(hands, folder)
