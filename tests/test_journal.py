"""Readers of a journal, and what else everybody who has one relies on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from journals import opened

from sidecar.durable.journal import DiskJournal
from sidecar.errors import Invalid, LimitExceeded
from sidecar.protocol.journal import Batch, Gap, GapReason

SERIES = bytes.fromhex("017f22e279b07cc398c4dc0c0c07398f")
OTHER_SERIES = bytes.fromhex("017f22e279b07cc398c4dc0c0c073990")


def record(text: str) -> Callable[[int], bytes]:
    return lambda seq: f"{seq}:{text}".encode()


@asynccontextmanager
async def journal_of(folder: Path, *texts: str, **options: int) -> AsyncIterator[DiskJournal]:
    """A journal that has written an event for each of `texts`."""
    async with opened(folder, new_series=lambda: SERIES, **options) as journal:
        for text in texts:
            journal.append(record(text))
        await journal.wait(len(texts) - 1)
        yield journal


async def test_the_number_is_part_of_the_record(tmp_path: Path) -> None:
    async with journal_of(tmp_path, "a", "b", "c") as journal:
        batch = await journal.read(1, max_bytes=1000, max_records=10)
        assert batch == Batch([(2, b"2:b"), (3, b"3:c")], None, 3, more=False)
        assert await journal.read(3, max_bytes=1000, max_records=10) == Batch(
            [], None, 3, more=False
        )


async def test_a_read_stops_at_either_limit_and_says_that_there_is_more(tmp_path: Path) -> None:
    async with journal_of(tmp_path, "a", "b", "c") as journal:
        two = Batch([(1, b"1:a"), (2, b"2:b")], None, 2, more=True)
        assert await journal.read(0, max_bytes=1000, max_records=2) == two
        assert await journal.read(0, max_bytes=6, max_records=10) == two
        assert await journal.read(0, max_bytes=8, max_records=10) == two
        assert await journal.read(0, max_bytes=2, max_records=10) == Batch([], None, 0, more=True)


async def test_a_number_is_not_used_up_by_an_event_that_cannot_be_kept(tmp_path: Path) -> None:
    async with journal_of(tmp_path, "a") as journal:
        with pytest.raises(LimitExceeded):
            journal.append(lambda seq: bytes(65_537))
        with pytest.raises(ZeroDivisionError):
            journal.append(lambda seq: bytes(seq // 0))
        assert journal.append(record("b")) == 2
        await journal.wait(1)
        assert (await journal.read(0, max_bytes=99, max_records=9)).records == [
            (1, b"1:a"),
            (2, b"2:b"),
        ]


async def test_a_cursor_from_the_future_is_invalid(tmp_path: Path) -> None:
    async with journal_of(tmp_path, "a") as journal:
        with pytest.raises(Invalid, match="cursor 2 is outside this journal: 0 to 1"):
            await journal.read(2, max_bytes=1, max_records=1)


async def test_a_reader_goes_on_and_back(tmp_path: Path) -> None:
    async with journal_of(tmp_path, "a", "b", "c") as journal:
        reader = journal.open_reader(None, after=0)
        assert (await reader.read(max_bytes=1000, max_records=2)).cursor == 2
        reader.rewind(1)
        assert (await reader.read(max_bytes=1000, max_records=1)).records == [(2, b"2:b")]
        assert reader.cursor == 2
        with pytest.raises(Invalid):
            reader.rewind(4)


async def test_a_reader_of_another_series_is_told_before_anything_else(tmp_path: Path) -> None:
    async with journal_of(tmp_path, "a") as journal:
        reader = journal.open_reader(None, after=7, series=OTHER_SERIES)
        await reader.wait()
        first = await reader.read(max_bytes=1000, max_records=10)
        assert first == Batch([], Gap(8, None, None, GapReason.NEW_SERIES), 0, more=True)
        second = await reader.read(max_bytes=1000, max_records=10)
        assert second == Batch([(1, b"1:a")], None, 1, more=False)


async def test_a_closed_reader_makes_place_for_one_other(tmp_path: Path) -> None:
    async with journal_of(tmp_path) as journal:
        readers = [journal.open_reader(None, after=0) for _ in range(16)]
        readers[0].close()
        readers[0].close()
        journal.open_reader(None, after=0)
        with pytest.raises(LimitExceeded, match="open readers"):
            journal.open_reader(None, after=0)


async def test_the_ack_of_a_reader_without_a_name_is_checked_and_holds_nothing(
    tmp_path: Path,
) -> None:
    async with journal_of(tmp_path, "a", "b") as journal:
        reader = journal.open_reader(None, after=1)
        reader.ack(1)
        assert journal.acked is None
        with pytest.raises(Invalid):
            reader.ack(3)


async def test_everybody_who_waits_is_woken_by_the_event_he_waits_for(tmp_path: Path) -> None:
    async with journal_of(tmp_path) as journal:
        woken = []

        async def wait(after: int) -> None:
            await journal.wait(after)
            woken.append((after, journal.last))

        async with anyio.create_task_group() as tasks:
            for after in [0, 0, 1]:
                tasks.start_soon(wait, after)
            await anyio.wait_all_tasks_blocked()
            journal.append(record("a"))
            await journal.wait(0)
            await anyio.wait_all_tasks_blocked()
            assert woken == [(0, 1), (0, 1)]
            journal.append(record("b"))
        assert woken == [(0, 1), (0, 1), (1, 2)]


async def test_a_wait_that_is_over_returns_and_a_cancelled_one_takes_nobody_along(
    tmp_path: Path,
) -> None:
    async with journal_of(tmp_path, "a") as journal:
        await journal.wait(0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(journal.wait, 1)
            await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(0):
                await journal.wait(1)
            journal.append(record("b"))


async def test_draining_waits_for_durable_readers_and_for_nobody_else(tmp_path: Path) -> None:
    async with journal_of(tmp_path, "a", "b") as journal:
        journal.open_reader(None, after=0)
        await journal.wait_acked(2)
        journal.open_reader("platform", after=None)
        journal.open_reader("archive", after=None)
        drained = []

        async def drain() -> None:
            await journal.wait_acked(2)
            drained.append(journal.acked)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drain)
            await anyio.wait_all_tasks_blocked()
            journal.ack("platform", 2)
            await anyio.wait_all_tasks_blocked()
            assert drained == []
            journal.ack("archive", 2)
        assert drained == [2]


async def test_draining_does_not_wait_for_a_reader_that_is_forgotten(tmp_path: Path) -> None:
    async with journal_of(tmp_path, "a") as journal:
        journal.open_reader("platform", after=None)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(journal.wait_acked, 1)
            await anyio.wait_all_tasks_blocked()
            journal.forget("platform")


async def test_an_ack_of_what_a_reader_was_never_given_is_invalid(tmp_path: Path) -> None:
    async with journal_of(tmp_path, "a", "b") as journal:
        reader = journal.open_reader("platform", after=0)
        await reader.read(max_bytes=1000, max_records=1)
        with pytest.raises(Invalid, match="event 2 was not sent: 1 was the last"):
            reader.ack(2)
        reader.rewind(0)
        reader.ack(1)  # it arrived after all
        assert journal.acked == 1


async def test_one_who_reads_while_another_rewinds_gets_what_was_rewound_to(
    tmp_path: Path,
) -> None:
    async with journal_of(tmp_path, *"abcdefgh", tail_bytes=1) as journal:
        reader = journal.open_reader(None, after=4)
        batches: list[Batch] = []

        async def read() -> None:
            batches.append(await reader.read(max_bytes=1000, max_records=2))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.lowlevel.checkpoint()  # the first read opens the file, in a thread
            assert not batches
            reader.rewind(1)
        assert batches[0].records == [(2, b"2:b"), (3, b"3:c")]
        assert (reader.start, reader.cursor) == (1, 3)
