"""The event log of a run: appended to once, read by cursor by any number of readers.

`protocol.journal` has the rules. A record is the encoded event, opaque here. What `append`
returned a number for is in `read` once it is *written*; what is *synced* survives a power cut.

`durable.journal` is what lies on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from sidecar.errors import Invalid
from sidecar.protocol.journal import Batch, Gap, GapReason


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
