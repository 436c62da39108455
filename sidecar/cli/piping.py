"""Our standard streams and those of a program in the sandbox, tied together.

Bytes pass untouched. A slow reader of ours holds the program up (`on_full: hold`), as a pipe
would. Writing may block, so it is done in a thread; reading waits until there is something, so
that a program which ends before our input does is not waited for.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import anyio
import anyio.to_thread

from sidecar.cli.ending import Outcome
from sidecar.cli.loop import SIGNALS, beside
from sidecar.cli.order import Order
from sidecar.cli.output import complain, show_json, text_or_bytes
from sidecar.cli.target import Target, attached
from sidecar.client import CallError, Options, Process, Run

CHUNK = 64 * 1024
JSON_BYTES = 16 * 1024 * 1024  # of each output, kept for --json
LAST_WAIT = 12.0  # seconds for the end of a program that was told to end: TERM, 5 s, KILL
LAST_OUTPUT = 0.5  # seconds for what it printed at its end


class Sink(Protocol):
    """Where the program's output goes."""

    async def write(self, n: int, data: bytes) -> None: ...


class OwnOutput:
    """Our own stdout and stderr."""

    async def write(self, n: int, data: bytes) -> None:
        await write_all(n, data)


class Collected:
    """Kept for --json, within bounds."""

    def __init__(self) -> None:
        self.kept = {1: bytearray(), 2: bytearray()}
        self.dropped = {1: 0, 2: 0}

    async def write(self, n: int, data: bytes) -> None:
        room = JSON_BYTES - len(self.kept[n])
        self.kept[n] += data[:room]
        self.dropped[n] += max(0, len(data) - room)


async def carry_out(target: Target, order: Order, stdin: bool, as_json: bool) -> Outcome:
    """Attach, run the program to its end, and give way to signals at any moment. With `stdin`
    it gets our standard input."""
    outcome = Outcome()
    sink = Collected() if as_json else OwnOutput()
    async with _signals(outcome) as interrupt, attached(target) as run:
        await _run(run, order, stdin, sink, outcome, interrupt)
    if isinstance(sink, Collected) and outcome.signal is None:
        _show(outcome, sink)
    return outcome


class _Interrupt:
    """What the first signal does: before there is a program, it cuts everything short."""

    gently: Callable[[], None] | None = None


@asynccontextmanager
async def _signals(outcome: Outcome) -> AsyncIterator[_Interrupt]:
    """The first signal is passed on gently, the second cuts everything short."""
    interrupt = _Interrupt()

    async def watch(block: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(*SIGNALS) as signals:
            async for number in signals:
                is_first = outcome.signal is None
                outcome.signal = outcome.signal or number
                end = interrupt.gently if is_first else None
                (end or block.cancel)()

    async with beside(watch):
        yield interrupt


async def _run(
    run: Run, order: Order, stdin: bool, sink: Sink, outcome: Outcome, interrupt: _Interrupt
) -> None:
    options: Options = {**order.options, "on_full": "hold"}
    async with run.process(order.program, stdin=stdin, **options) as process:
        interrupted = anyio.Event()
        interrupt.gently = interrupted.set

        async def attend(block: anyio.CancelScope) -> None:
            async with anyio.create_task_group() as group:
                if stdin:
                    group.start_soon(feed, process)
                await interrupted.wait()
                await _end(process, block)

        async with beside(attend):
            await pass_on(process, sink, outcome)


async def pass_on(process: Process, sink: Sink, outcome: Outcome) -> None:
    """The program's output to `sink` until it ends, and how that was to `outcome`."""
    try:
        async for n, data in process.output():
            await sink.write(n, data)
        outcome.completed = await process.wait()
    except CallError as error:
        outcome.error = error
    except OSError as error:
        outcome.failure = error


async def _end(process: Process, block: anyio.CancelScope) -> None:
    """End the program, then the block: our own reader may sleep, and output wait for it."""
    process.cancel()
    with anyio.move_on_after(LAST_WAIT), suppress(CallError):
        await process.wait()
    block.deadline = anyio.current_time() + LAST_OUTPUT


def _show(outcome: Outcome, sink: Collected) -> None:
    """The result of --json."""
    answer: dict[str, object] = {}
    if outcome.error is not None:
        answer["error"] = {"code": str(outcome.error.code), "message": outcome.error.message}
    if outcome.completed is not None:
        done = outcome.completed
        answer |= {"status": done.status, "signal": done.signal, "duration": done.duration}
    for n, name in ((1, "stdout"), (2, "stderr")):
        answer[name] = text_or_bytes(bytes(sink.kept[n]))
    dropped = {name: sink.dropped[n] for n, name in ((1, "stdout"), (2, "stderr"))}
    show_json(answer | {"dropped": dropped})


# Standard input ------------------------------------------------------------------------------


def stdin_is_for_us() -> bool:
    """Whether there is input to pass on: not from a terminal, where programs would wait for it."""
    return sys.stdin is not None and not os.isatty(0)


async def feed(process: Process) -> None:
    """Our standard input to the program, with its end, until either side has enough."""
    try:
        async for data in read_chunks(0):
            await process.write(data)
    except anyio.BrokenResourceError:
        return  # it reads no more
    except OSError as error:
        complain(f"standard input ends here: {error.strerror}")
    process.close_stdin()


async def read_chunks(fd: int) -> AsyncIterator[bytes]:
    """Bytes from a descriptor as they come, until its end. Cancelling never waits for them."""
    never_waits = _never_waits(os.fstat(fd))
    while True:
        if not never_waits:
            await anyio.wait_readable(fd)
        data = await anyio.to_thread.run_sync(os.read, fd, CHUNK)
        if not data:
            return
        yield data


def _never_waits(status: os.stat_result) -> bool:
    """A file, or /dev/null: epoll(7) takes neither. By the device's number, for `podman exec`
    passes on the /dev/null of the machine, which is not the file of that name in the container."""
    null = os.stat(os.devnull)
    is_null = stat.S_ISCHR(status.st_mode) and status.st_rdev == null.st_rdev
    return stat.S_ISREG(status.st_mode) or is_null


async def write_all(fd: int, data: bytes) -> None:
    """All of `data`. When cancelled, the thread is left to itself, for it may wait for ever."""

    def work() -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
