"""Event readers over a journal in memory, with an outbox that is read by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from sidecar.journal import MemoryJournal
from sidecar.protocol import envelope as wire
from sidecar.protocol.outbox import Outbox, Outgoing
from sidecar.protocol.window import SendWindow
from sidecar.readers import EventReader

SERIES, OTHER_SERIES = b"s" * 16, b"o" * 16


class Bench:
    def __init__(self, *, max_events: int = 1000) -> None:
        self.journal = MemoryJournal(SERIES, max_bytes=1 << 24, max_events=max_events)
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


async def test_live_is_a_replay_that_has_caught_up() -> None:
    bench = Bench()
    bench.append(3)
    async with running(bench.reader(after=1)):
        assert told(await bench.next()) == [2, 3]
        await anyio.wait_all_tasks_blocked()
        bench.append(2)
        assert told(await bench.next()) == [4, 5]


async def test_what_was_lost_is_read_again_with_all_that_followed() -> None:
    bench = Bench()
    async with running(bench.reader()):
        messages = []
        for _ in range(3):
            bench.append()
            messages.append(await bench.next())
        bench.append()
        await anyio.wait_all_tasks_blocked()  # the fourth waits in the lane
        messages[1].lost()
        messages[2].lost()
        again: list[Any] = []
        while again[-1:] != [4]:
            again += told(await bench.next())
        assert again == [2, 3, 4]


async def test_what_was_lost_is_not_waited_for() -> None:
    bench = Bench()
    bench.append()
    async with running(bench.reader()):
        message = await bench.next()
        await anyio.wait_all_tasks_blocked()  # it waits for the journal, which stays as it is
        message.lost()
        assert told(await bench.next()) == [1]


async def test_evicted_events_are_named_by_a_gap_even_if_that_is_lost() -> None:
    bench = Bench(max_events=2)
    bench.append(5)
    async with running(bench.reader()):
        message = await bench.next()
        size = len(wire.encode(wire.Event(1, 0, "x", None, bytes(10))))
        gap = wire.Gap(SERIES, 1, "evicted", 3, 3 * size)
        assert told(message) == [gap, 4, 5]
        message.lost()
        assert told(await bench.next()) == [gap, 4, 5]


async def test_a_cursor_of_another_series_gets_its_gap_first_even_if_that_is_lost() -> None:
    bench = Bench()
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


async def test_large_events_are_spread_over_messages() -> None:
    bench = Bench()
    bench.append(10, size=30_000)
    async with running(bench.reader()):
        numbers: list[Any] = []
        while len(numbers) < 10:
            message = await bench.next()
            assert len(message.data) < 100_000
            numbers += told(message)
        assert numbers == list(range(1, 11))


async def test_a_closed_outbox_ends_the_reader_and_frees_its_place() -> None:
    bench = Bench()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(bench.reader().run)
            await anyio.wait_all_tasks_blocked()
            bench.outbox.close()
    places = [bench.journal.open_reader(None, after=0) for _ in range(16)]
    assert len(places) == 16
