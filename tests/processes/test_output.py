"""One output: who reads it, who sets the pace, where a reader ends."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from stack import until

from sidecar.clock import ManualClock
from sidecar.errors import Invalid
from sidecar.processes.output import Output
from sidecar.processes.source import SpoolSource
from sidecar.protocol.spool import OnFull
from sidecar.protocol.streams import Piece
from sidecar.spool import Spool
from sidecar.spoolbudget import SpoolBudget


class Printer:
    """An output and the program's end of its pipe."""

    def __init__(self, folder: Path, group: TaskGroup, *, tail: int, on_full: OnFull) -> None:
        fd, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.clock = ManualClock()
        self.noted = 0
        self._group = group
        spool = Spool(
            folder / "spool", self.clock, SpoolBudget(), head=10, tail=tail, on_full=on_full
        )
        self.output = Output(1, spool, is_terminal=False, on_data=self._note, spawn=self._spawn)
        self.output.connect(fd)

    def _note(self) -> None:
        self.noted += 1

    def _spawn(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._group.start_soon(function)

    async def print(self, data: bytes) -> None:
        size = self.output.size + len(data)
        os.write(self.writer, data)
        await until(lambda: self.output.size == size)

    def hang_up(self) -> None:
        os.close(self.writer)
        self.writer = -1


@asynccontextmanager
async def printing(
    folder: Path, *, tail: int = 100, on_full: OnFull = OnFull.DROP
) -> AsyncIterator[Printer]:
    async with anyio.create_task_group() as group:
        printer = Printer(folder, group, tail=tail, on_full=on_full)
        yield printer
        group.cancel_scope.cancel()
    printer.output.close()
    if printer.writer >= 0:
        printer.hang_up()


async def read_out(source: SpoolSource, at: int = 0) -> tuple[bytes, list[Piece]]:
    """All that `source` gives, and the pieces that it came in."""
    data, pieces = b"", []
    with anyio.fail_after(5):
        while not pieces or not pieces[-1].ended:
            pieces.append(await source.read(at, 1000))
            at = pieces[-1].offset + len(pieces[-1].data)
            data += pieces[-1].data
    return data, pieces


async def test_a_reader_who_follows_ends_where_the_program_did(tmp_path: Path) -> None:
    async with printing(tmp_path) as printer:
        output = printer.output
        source = output.source(0, paces=False)
        await printer.print(b"its own ")
        assert await source.read(0, 100) == Piece(0, b"its own ")
        waiting = anyio.Event()

        async def wait() -> None:
            assert await source.read(8, 100) == Piece(8, b"", ended=True)
            waiting.set()

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert not output.flush()
            output.settle()
            await waiting.wait()
        await printer.print(b"a child's")
        assert (source.size, output.size) == (8, 17)
        assert await read_out(source) == (b"its own ", [Piece(0, b"its own ", ended=True)])
        # Whoever comes now gets what a child printed, up to now.
        late = output.source(3, paces=False)
        await printer.print(b", later")
        assert (await read_out(late, 3))[0] == b" own a child's"
        assert output.readers == 2
        await source.aclose()
        await late.aclose()
        assert output.readers == 0


async def test_the_end_of_the_pipe_ends_every_reader(tmp_path: Path) -> None:
    async with printing(tmp_path) as printer:
        source = printer.output.source(0, paces=False)
        await printer.print(b"all")
        printer.hang_up()
        assert (await read_out(source))[0] == b"all"
        assert printer.output.flush()


async def test_a_reader_who_does_not_follow_ends_where_it_began_to_read(tmp_path: Path) -> None:
    async with printing(tmp_path) as printer:
        await printer.print(b"now")
        source = printer.output.source(0, paces=False, follow=False)
        await printer.print(b"later")
        assert await read_out(source) == (b"now", [Piece(0, b"now", ended=True)])


async def test_the_end_of_the_program_gives_no_more_to_who_wanted_what_there_was(
    tmp_path: Path,
) -> None:
    async with printing(tmp_path) as printer:
        await printer.print(b"now")
        source = printer.output.source(0, paces=False, follow=False)
        await printer.print(b"later")
        printer.output.settle()
        assert source.size == 3
        assert await read_out(source) == (b"now", [Piece(0, b"now", ended=True)])


async def test_nobody_reads_behind_what_was_printed(tmp_path: Path) -> None:
    async with printing(tmp_path) as printer:
        await printer.print(b"abc")
        with pytest.raises(Invalid, match="offset 4"):
            printer.output.source(4, paces=False)
        assert printer.output.readers == 0


async def test_what_is_gone_is_skipped_and_counted_for_each_reader(tmp_path: Path) -> None:
    async with printing(tmp_path, tail=10) as printer:
        output = printer.output
        early = output.source(0, paces=False)
        await printer.print(b"0123456789abcdefghij")
        assert (await early.read(0, 15)).data == b"0123456789"
        await printer.print(b"KLMNO")
        late = output.source(12, paces=False)
        output.settle()
        assert await early.read(10, 100) == Piece(15, b"fghijKLMNO"[:5])
        assert (await read_out(early, 20))[0] == b"KLMNO"
        assert (early.dropped, early.size) == (5, 25)
        assert (await read_out(late, 12))[0] == b"fghijKLMNO"
        assert output.describe(late) == {"size": 25, "dropped": 3}
        assert output.describe() == {"size": 25, "dropped": 5}


async def test_only_the_latest_pace_maker_is_waited_for(tmp_path: Path) -> None:
    async with printing(tmp_path, tail=10) as printer:
        output = printer.output
        before = output.source(0, paces=True)
        latest = output.source(0, paces=True)
        watcher = output.source(0, paces=False)
        os.write(printer.writer, b"x" * 30)
        await until(lambda: output.size == 20)
        for source in (before, watcher):
            source.release(20)
        await anyio.wait_all_tasks_blocked()
        assert output.size == 20
        latest.release(15)
        await until(lambda: output.size == 25)
        await before.aclose()
        await anyio.wait_all_tasks_blocked()
        assert output.size == 25
        await latest.aclose()
        await until(lambda: output.size == 30)  # nobody is left to wait for


async def test_a_program_that_holds_waits_also_when_its_reader_is_gone(tmp_path: Path) -> None:
    async with printing(tmp_path, tail=10, on_full=OnFull.HOLD) as printer:
        output = printer.output
        source = output.source(0, paces=True)
        os.write(printer.writer, b"x" * 30)
        await until(lambda: output.size == 20)
        await source.aclose()
        await anyio.wait_all_tasks_blocked()
        assert output.size == 20
        again = output.source(0, paces=True)
        again.release(20)
        await until(lambda: output.size == 30)


async def test_somebody_else_may_be_told_of_data(tmp_path: Path) -> None:
    async with printing(tmp_path) as printer:
        sizes: list[int] = []
        printer.output.on_grown = lambda: sizes.append(printer.output.size)
        await printer.print(b"abc")
        await printer.print(b"de")
        assert (sizes, printer.noted) == ([3, 5], 2)


async def test_what_a_dead_program_left_in_the_pipe_is_taken_however_long_it_takes(
    tmp_path: Path,
) -> None:
    async with printing(tmp_path, tail=10, on_full=OnFull.HOLD) as printer:
        output = printer.output
        source = output.source(0, paces=True)
        os.write(printer.writer, b"x" * 40)
        await until(lambda: output.size == 20)
        done = anyio.Event()

        async def finish() -> None:
            await output.finish()
            done.set()

        async with anyio.create_task_group() as group:
            group.start_soon(finish)
            await anyio.sleep(0.15)  # longer than it lingers
            assert not done.is_set()
            source.release(20)
            await until(lambda: output.size == 30)
            source.release(30)
            with anyio.fail_after(5):
                await done.wait()
        assert output.size == 40


async def test_an_abandoned_output_is_read_on_while_somebody_holds_it(tmp_path: Path) -> None:
    async with printing(tmp_path) as printer:
        await printer.print(b"kept")
        reader = printer.output.abandon()
        assert reader is printer.output.reader
        for _ in range(3):
            os.write(printer.writer, b"x" * 60_000)
            await until(lambda: reader.waiting == 0)
        with pytest.raises(anyio.ClosedResourceError):
            await printer.output.spool.read(0, 10)
        printer.hang_up()
        await reader.wait_finished()
        assert printer.output.abandon() is None
