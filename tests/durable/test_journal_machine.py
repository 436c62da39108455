"""The journal and its readers against a list, over many lives and a disk that fills.

The journals live as long as they like: closed in order, killed, or cut off from power. A reader
keeps a cursor, as a client does, and comes back with it. What it is given and the gaps that it is
told of are, without a hole and without a repetition, the events that were appended.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from disks import MortalDisk
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.clock import SystemClock
from sidecar.durable import writing
from sidecar.durable.journal import DiskJournal, open_journal
from sidecar.durable.writer import LogWriter
from sidecar.identity import new_id
from sidecar.journal import Reader
from sidecar.protocol.journal import GapReason

T = TypeVar("T")

EVENTS_KEPT = 30
BEHIND = 6  # events that may wait for the writer before more are appended
NAMES = ["platform", "archive"]


@dataclass
class Follower:
    """A client: where it is, and what it was told."""

    name: str | None
    series: bytes
    cursor: int = 0
    acked: int = 0
    reader: Reader | None = None


class JournalMachine(RuleBasedStateMachine):
    """Segments of a few events, two events in memory, thirty kept."""

    def __init__(self) -> None:
        super().__init__()
        writing.RETRY_FIRST = writing.RETRY_MOST = 0.001
        self.exits = ExitStack()
        self.portal = self.exits.enter_context(start_blocking_portal())
        self.folder = Path(self.exits.enter_context(tempfile.TemporaryDirectory())) / "journal"
        self.boot = 1
        self.count = 0
        self.appended: dict[int, set[bytes]] = {}  # whatever was appended under a number
        self.published: dict[tuple[bytes, int], bytes] = {}
        self.has_failed = False  # the disk was full, or the power went
        self.do(self.open)
        self.followers = [Follower(name, self.journal.series) for name in (*NAMES, None)]
        self.do(self.attach)

    def do(self, function: Callable[[], Awaitable[T]]) -> T:
        return self.portal.call(function)

    async def open(self) -> None:
        clock = SystemClock()
        self.disk = MortalDisk(self.folder)
        self.writer = LogWriter(sync_delay=0.0)
        self.journal: DiskJournal = await open_journal(
            self.folder,
            self.writer,
            clock,
            new_series=lambda: new_id(clock),
            segment_bytes=400,
            tail_bytes=60,
            memory_bytes=2000,
            max_events=EVENTS_KEPT,
            disk=self.disk,
            boot=bytes([self.boot]) * 16,
        )

    async def attach(self) -> None:
        for follower in self.followers:
            follower.reader = self.journal.open_reader(
                follower.name, after=follower.cursor, series=follower.series
            )

    # what happens to it -------------------------------------------------------------------

    @rule(sizes=st.lists(st.integers(1, 90), min_size=1, max_size=6))
    def append(self, sizes: list[int]) -> None:
        async def append() -> None:
            for size in sizes:
                self.count += 1
                record = f"{self.count:06}".encode() + bytes(size)
                seq = self.journal.append(lambda _, record=record: record)
                self.appended.setdefault(seq, set()).add(record)
            with anyio.fail_after(5):  # a busy machine is no failing disk: see `memory_bytes`
                await self.journal.wait(max(0, self.journal.last - BEHIND - 1))

        self.do(append)

    @rule()
    def settle(self) -> None:
        async def settle() -> None:
            with anyio.fail_after(5):
                await self.journal.wait(self.journal.last - 1)

        self.do(settle)

    @rule()
    def end_in_order(self) -> None:
        acked = self.journal.acked

        async def close() -> None:
            self.disk.is_full = False
            await self.journal.aclose()
            await self.writer.aclose()

        self.do(close)
        self.disk.bury()
        last, series = self.journal.last, self.journal.series
        self.do(self.open)
        assert (self.journal.series, self.journal.last) == (series, last)
        assert self.journal.acked == acked
        self.do(self.attach)

    @rule()
    def kill(self) -> None:
        series, written, was_durable = self.die()
        self.do(self.open)
        if was_durable and not self.has_failed:
            assert self.journal.series == series
        if was_durable:
            assert self.journal.last >= written
        self.do(self.attach)

    @rule(luck=st.sampled_from([0.0, 0.5, 1.0]))
    def cut_power(self, luck: float) -> None:
        self.has_failed = True
        synced = self.journal.synced
        self.die()
        self.disk.cut_power(luck=luck)
        self.boot += 1
        self.do(self.open)
        assert self.journal.last >= synced
        self.do(self.attach)

    def die(self) -> tuple[bytes, int, bool]:
        async def die() -> tuple[bytes, int, bool]:
            state = self.journal.series, self.journal.written, self.journal.durable
            self.disk.bury()
            await self.writer.aclose()
            return state

        return self.do(die)

    @rule()
    def fill_the_disk(self) -> None:
        self.has_failed = True
        self.disk.is_full = True

    @precondition(lambda self: self.disk.is_full)
    @rule()
    def make_room(self) -> None:
        async def heal() -> None:
            self.disk.is_full = False
            seq = self.journal.append(lambda _: b"room")
            self.appended.setdefault(seq, set()).add(b"room")
            with anyio.fail_after(5):
                await self.journal.wait_synced(seq)

        self.do(heal)
        assert self.journal.durable

    # readers ------------------------------------------------------------------------------

    @rule(who=st.integers(0, 2), records=st.integers(1, 8))
    def read(self, who: int, records: int) -> None:
        async def read() -> None:
            await self.follow(self.followers[who], records)

        self.do(read)

    async def follow(self, follower: Follower, records: int) -> bool:
        assert follower.reader is not None
        batch = await follower.reader.read(max_bytes=1000, max_records=records)
        gap = batch.gap
        if gap is not None and gap.why is GapReason.NEW_SERIES:
            follower.series, follower.cursor = follower.reader.series, batch.cursor
            follower.acked = min(follower.acked, follower.cursor)
        elif gap is not None:
            assert gap.from_seq == follower.cursor + 1 and gap.to_seq is not None
            assert gap.why is GapReason.EVICTED or self.has_failed, gap
            follower.cursor = gap.to_seq
        for seq, record in batch.records:
            assert seq == follower.cursor + 1, "doubled, or left out"
            assert record in self.appended[seq], "invented"
            key = follower.series, seq
            assert self.published.setdefault(key, record) == record, "a number given twice"
            follower.cursor = seq
        return batch.more

    @rule(who=st.integers(0, 1))
    def ack(self, who: int) -> None:
        follower = self.followers[who]

        async def ack() -> None:
            assert follower.reader is not None
            if follower.reader.series == follower.series == self.journal.series:
                follower.reader.ack(follower.cursor)
                follower.acked = follower.cursor

        self.do(ack)

    @rule(who=st.integers(0, 2), back=st.integers(1, 5))
    def rewind(self, who: int, back: int) -> None:
        """What was sent last was lost on the way."""
        follower = self.followers[who]

        async def rewind() -> None:
            assert follower.reader is not None
            if follower.reader.series == follower.series == self.journal.series:
                follower.cursor = max(follower.acked, follower.cursor - back, 0)
                follower.reader.rewind(follower.cursor)

        self.do(rewind)

    @invariant()
    def the_bounds_hold(self) -> None:
        kept = self.journal.last - self.journal.first + 1
        assert kept <= EVENTS_KEPT + 12 + BEHIND or self.has_failed, "a segment too many"

    def teardown(self) -> None:
        async def read_all() -> None:
            for follower in self.followers:
                while await self.follow(follower, 100):
                    pass

        try:
            self.do(read_all)
        finally:
            self.die()
            self.exits.close()


JournalMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
test_a_journal_agrees_with_what_was_appended = pytest.mark.slow(JournalMachine.TestCase)
