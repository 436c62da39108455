"""The event log of a run: appended to once, read by cursor by any number of readers.

`protocol.journal` has the rules. A record is the encoded event, opaque here. What `append`
returned a number for is in `read` once it is *written*; what is *synced* survives a power cut.

`durable.journal` is what lies on disk. `MemoryJournal` survives nothing and says so: `durable`
is False and `synced` stays 0.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Protocol

from sidecar.bell import Bell
from sidecar.errors import Invalid
from sidecar.protocol.journal import Batch, Gap, GapReason, JournalProtocol
from sidecar.protocol.limits import MEMORY_JOURNAL_BYTES, MEMORY_JOURNAL_EVENTS


class Emit(Protocol):
    """Appends an event to the journal; its sequence number."""

    def __call__(self, name: str, data: Any, *, call: bytes | None = None) -> int: ...


class Journal(Protocol):
    """One series of events, in one event loop; another one if a disk fails badly."""

    @property
    def series(self) -> bytes:
        """Identity of the numbers: a UUIDv7."""
        ...

    @property
    def durable(self) -> bool:
        """Whether events outlive this process, now."""
        ...

    @property
    def degraded(self) -> str | None:
        """Why they do not although they should, as in "No space left on device"."""
        ...

    @property
    def first(self) -> int:
        """The oldest event kept; 1 if there was none yet."""
        ...

    @property
    def last(self) -> int:
        """The newest event appended; 0 if there was none yet."""
        ...

    @property
    def written(self) -> int:
        """Up to here events may be published: they are as safe as this journal makes them
        against the death of the process."""
        ...

    @property
    def synced(self) -> int:
        """Up to here events survive a power cut."""
        ...

    @property
    def acked(self) -> int | None:
        """What all durable readers have acked; None if none ever attached."""
        ...

    def append(self, encode: Callable[[int], bytes]) -> int:
        """Give the next number to `encode`, keep the record it returns, return the number.

        A record over 64 KiB raises `LimitExceeded`; then, or when `encode` raises, the number
        is given to the next event. Never waits.
        """
        ...

    async def read(self, after: int, *, max_bytes: int, max_records: int) -> Batch:
        """Written events after the cursor `after`, oldest first, within both limits.

        A record that alone is over `max_bytes` is not given: `records` is then empty and
        `more` is True. Raises `Invalid` for a cursor after `last`. Recent events are given
        without suspending. Cancelling loses nothing.
        """
        ...

    def open_reader(
        self, name: str | None, *, after: int | None, series: bytes | None = None
    ) -> Reader:
        """A reader; with a `name` a durable one, whose acks hold retention.

        `series` is where `after` comes from, None: from here. See `JournalProtocol.open_reader`.
        Raises `LimitExceeded` over 16 readers and `Invalid` for a cursor after `last`.
        """
        ...

    def ack(self, name: str, seq: int) -> None:
        """The durable reader `name` needs nothing up to `seq` any more.

        Raises `Invalid` for a number that was never sent.
        """
        ...

    def forget(self, name: str) -> None:
        """Let go what the durable reader `name` holds. Harmless if there is none."""
        ...

    async def wait(self, after: int) -> None:
        """Return once an event after `after` can be read, or the series is another one.
        Cancelling loses nothing."""
        ...

    async def wait_acked(self, seq: int) -> None:
        """Return once every durable reader has acked `seq`: at once if there is none."""
        ...


class ReaderHost(Protocol):
    """What a reader needs of its journal."""

    @property
    def series(self) -> bytes: ...
    async def read(self, after: int, *, max_bytes: int, max_records: int) -> Batch: ...
    def check_cursor(self, after: int) -> None: ...
    def gap_of(self, series: bytes, after: int) -> tuple[Gap, int]: ...
    def ack(self, name: str, seq: int) -> None: ...
    def reader_closed(self) -> None: ...
    async def wait(self, after: int) -> None: ...


class Reader:
    """A cursor that moves. Close it: 16 may be open."""

    def __init__(
        self, journal: ReaderHost, name: str | None, *, cursor: int, gap: Gap | None
    ) -> None:
        self.name = name
        self.series = journal.series
        self.cursor = cursor
        self.start = cursor  # the latest batch was read from here
        self._journal = journal
        self._gap = gap
        self._sent = cursor  # what was given out, rewound or not
        self._is_open = True

    async def read(self, *, max_bytes: int, max_records: int) -> Batch:
        """The next events; the cursor moves behind them. A gap between series comes alone.

        One who reads while another rewinds gets what the rewound cursor asks for.
        """
        while True:
            self._notice_series()
            if self._gap is not None:
                gap, self._gap = self._gap, None
                self.start = self.cursor
                return Batch([], gap, self.cursor, more=True)
            start = self.cursor
            batch = await self._journal.read(start, max_bytes=max_bytes, max_records=max_records)
            is_same = self.cursor == start and self.series == self._journal.series
            if is_same and self._gap is None:
                self.start, self.cursor = start, batch.cursor
                self._sent = max(self._sent, batch.cursor)
                return batch

    def _notice_series(self) -> None:
        if self.series != self._journal.series:
            self._gap, self.cursor = self._journal.gap_of(self.series, self.cursor)
            self._sent = min(self._sent, self._gap.from_seq - 1)
            self.series = self._journal.series

    def rewind(self, after: int, *, series: bytes | None = None, gap: Gap | None = None) -> None:
        """Go on from `after` (of `series`, None: of this one) again, because what followed did
        not arrive; nor did `gap`, which is told again if it was between series."""
        self._notice_series()
        if series is not None and series != self.series:
            gap, after = self._journal.gap_of(series, after)
        self._journal.check_cursor(after)
        self.cursor = after
        if gap is not None and gap.why is GapReason.NEW_SERIES:
            self._gap = gap

    def ack(self, seq: int) -> None:
        """Everything up to `seq` may be evicted. Of a reader without a name it is only checked.

        Raises `Invalid` for what this reader was never given: numbers of an older series.
        """
        if seq > self._sent:
            raise Invalid(f"event {seq} was not sent: {self._sent} was the last", last=self._sent)
        if self.name is not None:
            self._journal.ack(self.name, seq)

    async def wait(self) -> None:
        """Return once there is something to read."""
        if self._gap is None and self.series == self._journal.series:
            await self._journal.wait(self.cursor)

    def close(self) -> None:
        """End this reader; a durable name keeps its ack. A second call is harmless."""
        if self._is_open:
            self._is_open = False
            self._journal.reader_closed()


class MemoryJournal:
    """A journal that ends with the process."""

    durable = False
    degraded = None
    synced = 0

    def __init__(
        self,
        series: bytes,
        *,
        max_bytes: int = MEMORY_JOURNAL_BYTES,
        max_events: int = MEMORY_JOURNAL_EVENTS,
    ) -> None:
        self._protocol = JournalProtocol(series, max_bytes=max_bytes, max_events=max_events)
        # Parallel lists, whose places before `_start` are evicted and cleared in strides: a
        # deque would make a read from the middle walk there. `_ends` holds, for each record,
        # the bytes appended up to its end, so that a batch is found by bisection.
        self._records: list[bytes] = []
        self._ends = array("Q")
        self._start = 0
        self._appended_bytes = 0
        self._grown = Bell()
        self._acked = Bell()

    @property
    def series(self) -> bytes:
        return self._protocol.series

    @property
    def first(self) -> int:
        return self._protocol.first

    @property
    def last(self) -> int:
        return self._protocol.last

    @property
    def written(self) -> int:
        return self._protocol.last

    @property
    def acked(self) -> int | None:
        return self._protocol.acked

    @property
    def lost(self) -> Gap | None:
        """What was evicted although a durable reader had not acked it."""
        return self._protocol.lost

    def append(self, encode: Callable[[int], bytes]) -> int:
        seq = self._protocol.last + 1
        record = encode(seq)
        self._protocol.appended(seq, len(record))
        self._appended_bytes += len(record)
        self._records.append(record)
        self._ends.append(self._appended_bytes)
        while self._protocol.is_over:
            self._evict_oldest()
        self._grown.ring()
        return seq

    def _evict_oldest(self) -> None:
        size = len(self._records[self._start])
        self._records[self._start] = b""
        self._start += 1
        self._protocol.evicted(self._protocol.first, size)
        if self._start * 2 > len(self._records):
            del self._records[: self._start]
            del self._ends[: self._start]
            self._start = 0

    def _place(self, seq: int) -> int:
        return self._start + seq - self._protocol.first

    async def read(self, after: int, *, max_bytes: int, max_records: int) -> Batch:
        self._protocol.check_cursor(after)
        gap = self._protocol.gap_after(after)
        seq = max(after + 1, self._protocol.first)
        start = self._place(seq)
        if start == len(self._records):
            return Batch([], gap, seq - 1, more=False)
        begin = self._ends[start] - len(self._records[start])
        stop = bisect_right(self._ends, begin + max_bytes, lo=start)
        stop = min(stop, start + max_records)
        records = list(enumerate(self._records[start:stop], seq))
        return Batch(records, gap, seq - 1 + len(records), more=stop < len(self._records))

    def open_reader(
        self, name: str | None, *, after: int | None, series: bytes | None = None
    ) -> Reader:
        cursor, gap = self._protocol.open_reader(name, after=after, series=series)
        return Reader(self, name, cursor=cursor, gap=gap)

    def check_cursor(self, after: int) -> None:
        """Raises `Invalid` for a cursor that no reader of this series can have."""
        self._protocol.check_cursor(after)

    def gap_of(self, series: bytes, after: int) -> tuple[Gap, int]:
        """What a cursor of another series has missed, and where it goes on."""
        return self._protocol.gap_of(series, after)

    def reader_closed(self) -> None:
        """Called by a reader, once."""
        self._protocol.reader_closed()

    def ack(self, name: str, seq: int) -> None:
        self._protocol.check_ack(name, seq)
        self._protocol.ack(name, seq, offset=self._offset_at(seq))
        self._acked.ring()

    def _offset_at(self, seq: int) -> int | None:
        """The bytes appended up to the end of `seq`; None if that went with the record."""
        if seq < self._protocol.first:
            return None
        return self._ends[self._place(seq)]

    def forget(self, name: str) -> None:
        self._protocol.forget(name)
        self._acked.ring()

    async def wait(self, after: int) -> None:
        while self._protocol.last <= after:
            await self._grown.wait()

    async def wait_acked(self, seq: int) -> None:
        while (acked := self._protocol.acked) is not None and acked < seq:
            await self._acked.wait()
