"""The journal in memory, alone and against a model that keeps everything in a list."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sidecar.errors import Invalid, LimitExceeded
from sidecar.journal import Journal, MemoryJournal
from sidecar.protocol.journal import Batch, Gap, GapReason

SERIES = bytes.fromhex("017f22e279b07cc398c4dc0c0c07398f")
OTHER_SERIES = bytes.fromhex("017f22e279b07cc398c4dc0c0c073990")


def record(text: str) -> Callable[[int], bytes]:
    return lambda seq: f"{seq}:{text}".encode()


def journal_of(*texts: str, max_events: int = 100) -> MemoryJournal:
    journal = MemoryJournal(SERIES, max_events=max_events)
    for text in texts:
        journal.append(record(text))
    return journal


def test_a_journal_in_memory_says_what_it_survives() -> None:
    journal: Journal = journal_of("a", "b")
    assert journal.series == SERIES
    assert not journal.durable
    assert (journal.first, journal.last, journal.written, journal.synced) == (1, 2, 2, 0)


async def test_the_number_is_part_of_the_record() -> None:
    journal = journal_of("a", "b", "c")
    batch = await journal.read(1, max_bytes=1000, max_records=10)
    assert batch == Batch([(2, b"2:b"), (3, b"3:c")], None, 3, more=False)
    assert await journal.read(3, max_bytes=1000, max_records=10) == Batch([], None, 3, more=False)


async def test_a_read_stops_at_either_limit_and_says_that_there_is_more() -> None:
    journal = journal_of("a", "b", "c")
    two = Batch([(1, b"1:a"), (2, b"2:b")], None, 2, more=True)
    assert await journal.read(0, max_bytes=1000, max_records=2) == two
    assert await journal.read(0, max_bytes=6, max_records=10) == two
    assert await journal.read(0, max_bytes=8, max_records=10) == two
    assert await journal.read(0, max_bytes=2, max_records=10) == Batch([], None, 0, more=True)


async def test_a_number_is_not_used_up_by_an_event_that_cannot_be_kept() -> None:
    journal = journal_of("a")
    with pytest.raises(LimitExceeded):
        journal.append(lambda seq: bytes(65_537))
    with pytest.raises(ZeroDivisionError):
        journal.append(lambda seq: bytes(seq // 0))
    assert journal.append(record("b")) == 2
    assert (await journal.read(0, max_bytes=99, max_records=9)).records == [
        (1, b"1:a"),
        (2, b"2:b"),
    ]


async def test_what_was_evicted_is_a_gap_before_what_is_left() -> None:
    journal = journal_of("a", "b", "c", "d", max_events=2)
    batch = await journal.read(0, max_bytes=1000, max_records=10)
    gap = Gap(1, 2, 6, GapReason.EVICTED)
    assert batch == Batch([(3, b"3:c"), (4, b"4:d")], gap, 4, more=False)


async def test_a_gap_moves_the_cursor_even_if_no_record_fits() -> None:
    journal = journal_of("a", "b", "c", "d", max_events=2)
    gap = Gap(1, 2, 6, GapReason.EVICTED)
    assert await journal.read(0, max_bytes=0, max_records=10) == Batch([], gap, 2, more=True)


def test_the_bytes_that_a_durable_reader_lost_are_known() -> None:
    journal = journal_of("a", "b", "c", max_events=3)
    journal.open_reader("platform", after=None)
    journal.ack("platform", 1)
    for text in ["d", "e", "f"]:
        journal.append(record(text))
    assert journal.lost == Gap(2, 3, 6, GapReason.EVICTED)
    journal.ack(
        "platform", 2
    )  # it came before the eviction; how much of the loss is left is not known
    assert journal.lost == Gap(3, 3, None, GapReason.EVICTED)


async def test_a_cursor_from_the_future_is_invalid() -> None:
    with pytest.raises(Invalid, match="cursor 2 is outside this journal: 0 to 1"):
        await journal_of("a").read(2, max_bytes=1, max_records=1)


async def test_a_reader_goes_on_and_back() -> None:
    journal = journal_of("a", "b", "c")
    reader = journal.open_reader(None, after=0)
    assert (await reader.read(max_bytes=1000, max_records=2)).cursor == 2
    reader.rewind(1)
    assert (await reader.read(max_bytes=1000, max_records=1)).records == [(2, b"2:b")]
    assert reader.cursor == 2
    with pytest.raises(Invalid):
        reader.rewind(4)


async def test_a_reader_of_another_series_is_told_before_anything_else() -> None:
    journal = journal_of("a")
    reader = journal.open_reader(None, after=7, series=OTHER_SERIES)
    await reader.wait()
    first = await reader.read(max_bytes=1000, max_records=10)
    assert first == Batch([], Gap(8, None, None, GapReason.NEW_SERIES), 0, more=True)
    second = await reader.read(max_bytes=1000, max_records=10)
    assert second == Batch([(1, b"1:a")], None, 1, more=False)


def test_a_closed_reader_makes_place_for_one_other() -> None:
    journal = journal_of()
    readers = [journal.open_reader(None, after=0) for _ in range(16)]
    readers[0].close()
    readers[0].close()
    journal.open_reader(None, after=0)
    with pytest.raises(LimitExceeded, match="open readers"):
        journal.open_reader(None, after=0)


def test_the_ack_of_a_reader_without_a_name_is_checked_and_holds_nothing() -> None:
    journal = journal_of("a", "b")
    reader = journal.open_reader(None, after=1)
    reader.ack(1)
    assert journal.acked is None
    with pytest.raises(Invalid):
        reader.ack(3)


async def test_everybody_who_waits_is_woken_by_the_event_he_waits_for() -> None:
    journal = journal_of()
    woken = []

    async def wait(after: int) -> None:
        await journal.wait(after)
        woken.append((after, journal.last))

    async with anyio.create_task_group() as tasks:
        for after in [0, 0, 1]:
            tasks.start_soon(wait, after)
        await anyio.wait_all_tasks_blocked()
        journal.append(record("a"))
        await anyio.wait_all_tasks_blocked()
        assert woken == [(0, 1), (0, 1)]
        journal.append(record("b"))
    assert woken == [(0, 1), (0, 1), (1, 2)]


async def test_a_wait_that_is_over_returns_and_a_cancelled_one_takes_nobody_along() -> None:
    journal = journal_of("a")
    await journal.wait(0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.wait, 1)
        await anyio.wait_all_tasks_blocked()
        with anyio.move_on_after(0):
            await journal.wait(1)
        journal.append(record("b"))


async def test_draining_waits_for_durable_readers_and_for_nobody_else() -> None:
    journal = journal_of("a", "b")
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


async def test_draining_does_not_wait_for_a_reader_that_is_forgotten() -> None:
    journal = journal_of("a")
    journal.open_reader("platform", after=None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.wait_acked, 1)
        await anyio.wait_all_tasks_blocked()
        journal.forget("platform")


class JournalMachine(RuleBasedStateMachine):
    """Five events or 40 bytes are kept; the model is a list that is never trimmed."""

    def __init__(self) -> None:
        super().__init__()
        self.journal = MemoryJournal(SERIES, max_bytes=40, max_events=5)
        self.model: list[bytes] = []
        self.acked: int | None = None

    def first(self) -> int:
        first = 1
        while (
            len(self.model) - first + 1 > 5 or sum(map(len, self.model[first - 1 :])) > 40
        ) and first < len(self.model):
            first += 1
        return first

    @rule(size=st.integers(0, 50))
    def append(self, size: int) -> None:
        seq = self.journal.append(lambda seq: bytes([seq % 256]) * size)
        self.model.append(bytes([seq % 256]) * size)
        assert seq == len(self.model)

    @rule(data=st.data(), max_bytes=st.integers(0, 60), max_records=st.integers(0, 6))
    def read(self, data: st.DataObject, max_bytes: int, max_records: int) -> None:
        after = data.draw(st.integers(0, len(self.model)))
        batch = anyio.run(
            partial(self.journal.read, after, max_bytes=max_bytes, max_records=max_records)
        )
        begin = max(after, self.first() - 1)
        assert (batch.gap is not None) == (begin > after)
        if batch.gap is not None:
            assert (batch.gap.from_seq, batch.gap.to_seq) == (after + 1, begin)
            assert batch.gap.bytes in (None, sum(map(len, self.model[after:begin])))
        expected: list[tuple[int, bytes]] = []
        for seq in range(begin + 1, len(self.model) + 1):
            size = sum(len(kept) for _, kept in expected) + len(self.model[seq - 1])
            if size > max_bytes or len(expected) == max_records:
                break
            expected.append((seq, self.model[seq - 1]))
        assert batch.records == expected
        assert batch.cursor == begin + len(expected)
        assert batch.more == (batch.cursor < len(self.model))

    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        if self.acked is None:
            self.journal.open_reader("platform", after=None).close()
            self.acked = 0
        seq = data.draw(st.integers(0, len(self.model)))
        self.journal.ack("platform", seq)
        self.acked = max(self.acked, seq)

    @invariant()
    def numbers_agree(self) -> None:
        assert (self.journal.first, self.journal.last) == (self.first(), len(self.model))
        assert self.journal.acked == self.acked

    @invariant()
    def what_is_lost_is_counted(self) -> None:
        lost = self.journal.lost
        if self.acked is None or self.acked >= self.first() - 1:
            assert lost is None
            return
        assert lost is not None
        assert (lost.from_seq, lost.to_seq) == (self.acked + 1, self.first() - 1)


JournalMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_the_journal_agrees_with_a_list = JournalMachine.TestCase
