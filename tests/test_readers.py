"""Event readers over a journal on disk, with an outbox that is read by hand."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from disks import FullDisk
from journals import opened

from sidecar.durable.journal import DiskJournal
from sidecar.protocol import envelope as wire
from sidecar.protocol.outbox import Outbox, Outgoing
from sidecar.protocol.window import SendWindow
from sidecar.readers import EventReader

SERIES, OTHER_SERIES = b"s" * 16, b"o" * 16


class Bench:
    def __init__(self, journal: DiskJournal) -> None:
        self.journal = journal
        self.outbox = Outbox("out.demo.me", SendWindow(bytes(16), 1 << 40, 1 << 40))

    def append(self, count: int = 1, *, size: int = 10) -> None:
        for _ in range(count):
            self.journal.append(lambda seq: wire.encode(wire.Event(seq, 0, "x", None, bytes(size))))

    def reader(self, *, after: int = 0, series: bytes | None = None) -> EventReader:
        reader = self.journal.open_reader(None, after=after, series=series)
        return EventReader(reader, self.outbox, wake=lambda: None)

    async def next(self) -> Outgoing:
        with anyio.fail_after(5):
            while True:
                message = self.outbox.next_message(now=0.0, urgent_only=False)
                if message is not None:
                    self.outbox.window.seen_bytes = self.outbox.window.bytes
                    return message
                await anyio.sleep(0.001)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(tmp_path, new_series=lambda: SERIES) as journal:
        yield Bench(journal)


def told(message: Outgoing) -> list[Any]:
    """Numbers of events, and gaps as they are."""
    _, *envelopes = wire.decode(message.data)
    return [x.seq if isinstance(x, wire.Event) else x for x in envelopes]


@asynccontextmanager
async def running(reader: EventReader) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        group.start_soon(reader.run)
        yield
        group.cancel_scope.cancel()


async def test_live_is_a_replay_that_has_caught_up(bench: Bench) -> None:
    bench.append(3)
    async with running(bench.reader(after=1)):
        assert told(await bench.next()) == [2, 3]
        await anyio.wait_all_tasks_blocked()
        bench.append(2)
        assert told(await bench.next()) == [4, 5]


async def test_what_was_lost_is_read_again_with_all_that_followed(bench: Bench) -> None:
    async with running(bench.reader()):
        messages = []
        for _ in range(3):
            bench.append()
            messages.append(await bench.next())
        bench.append()
        await bench.journal.wait(3)
        await anyio.wait_all_tasks_blocked()  # the fourth waits in the lane
        messages[1].lost()
        messages[2].lost()
        again: list[Any] = []
        while again[-1:] != [4]:
            again += told(await bench.next())
        assert again == [2, 3, 4]


async def test_what_was_lost_is_not_waited_for(bench: Bench) -> None:
    bench.append()
    async with running(bench.reader()):
        message = await bench.next()
        await anyio.wait_all_tasks_blocked()  # it waits for the journal, which stays as it is
        message.lost()
        assert told(await bench.next()) == [1]


async def test_evicted_events_are_named_by_a_gap_even_if_that_is_lost(tmp_path: Path) -> None:
    async with opened(
        tmp_path, new_series=lambda: SERIES, max_events=2, segment_bytes=1
    ) as journal:
        bench = Bench(journal)
        bench.append(5)
        await journal.wait(4)
        async with running(bench.reader()):
            message = await bench.next()
            size = len(wire.encode(wire.Event(1, 0, "x", None, bytes(10))))
            gap = wire.Gap(SERIES, 1, "evicted", 3, 3 * size)
            assert told(message) == [gap, 4, 5]
            message.lost()
            assert told(await bench.next()) == [gap, 4, 5]


async def test_a_cursor_of_another_series_gets_its_gap_first_even_if_that_is_lost(
    bench: Bench,
) -> None:
    bench.append(2)
    async with running(bench.reader(after=40, series=OTHER_SERIES)):
        gap = wire.Gap(SERIES, 41, "new_series")
        message = await bench.next()
        assert told(message)[0] == gap
        message.lost()
        again = told(await bench.next())
        while again[-1] != 2:
            again += told(await bench.next())
        assert [x for x in again if x != gap] == [1, 2]
        assert again[0] == gap


async def test_large_events_are_spread_over_messages(bench: Bench) -> None:
    bench.append(10, size=30_000)
    async with running(bench.reader()):
        numbers: list[Any] = []
        while len(numbers) < 10:
            message = await bench.next()
            assert len(message.data) < 100_000
            numbers += told(message)
        assert numbers == list(range(1, 11))


async def test_a_closed_outbox_ends_the_reader_and_frees_its_place(bench: Bench) -> None:
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(bench.reader().run)
            await anyio.wait_all_tasks_blocked()
            bench.outbox.close()
    places = [bench.journal.open_reader(None, after=0) for _ in range(16)]
    assert len(places) == 16


async def test_a_series_that_changes_is_told_and_what_follows_goes_on(tmp_path: Path) -> None:
    names = iter([SERIES, OTHER_SERIES])
    disk = FullDisk()
    async with opened(tmp_path, new_series=lambda: next(names), disk=disk) as journal:
        bench = Bench(journal)
        async with running(bench.reader()):
            bench.append(2)
            messages = [await bench.next()]
            while told(messages[-1])[-1] != 2:
                messages.append(await bench.next())
            disk.error = errno.EROFS
            bench.append(1)
            change = await bench.next()
            gap = wire.Gap(OTHER_SERIES, 3, "new_series", after=2)
            assert told(change) == [gap]
            assert told(await bench.next()) == [3]
            messages[-1].lost()  # one of the series before; so is the word of the change
            again = told(await bench.next())
            while again[-1] != 3:
                again += told(await bench.next())
            start = told(messages[-1])[0] - 1
            first = wire.Gap(OTHER_SERIES, 3, "new_series", after=start or None)
            assert again == [first, *range(start + 1, 4)]
        disk.error = None
