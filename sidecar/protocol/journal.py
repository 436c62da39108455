"""What the journal keeps, who reads it from where, and what a reader has missed.

Numbers start at 1 and have no holes. `first` is the oldest event kept, `last` the newest;
an empty journal has first 1 and last 0. A cursor is the number of the last event that its
reader has: 0 is before everything.

Four rules:

- A cursor from the future is an error; one from before `first` gets a gap, then events.
- Only durable readers (named ones) hold retention. Acked by all of them means *may be
  evicted*; nothing is evicted until a bound is reached.
- At a bound the oldest go, acked or not: the journal never stops the agent. What had not been
  acked is then `lost`, and whoever asks for it gets a gap.
- A cursor of another series gets a gap with the reason `new_series`. The events that a series
  took over from an older one keep their numbers, and a cursor among them stays where it is; any
  other starts behind them, and one of a series that nobody remembers before the first event.

On disk the events are frames of a log (`protocol.segments`), numbered as they are. What else
its segments hold: durable readers and their acks, all of them at the head of each segment, so
that older ones can go; and the numbers that a failing disk never saw.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from sidecar.errors import Invalid, LimitExceeded
from sidecar.protocol.limits import EVENT_BYTES, READERS
from sidecar.protocol.names import check_id
from sidecar.protocol.record import Record, record


class GapReason(StrEnum):
    """Why events that a reader has not seen cannot be had."""

    CORRUPT = "corrupt"  # the disk no longer has what was written
    DISK = "disk"  # it would not take them, and memory had no room for so many
    EVICTED = "evicted"
    NEW_SERIES = "new_series"


class Kind(IntEnum):
    """Of a frame in the journal's log. The number of a GAP is that of the last event it names."""

    EVENT = 1
    READER = 2
    FORGET = 3
    GAP = 4


SERIES_REMEMBERED = 16  # older ones

_GAP = struct.Struct("<QQ")
_READER = struct.Struct("<QQ")
_UNKNOWN = (1 << 64) - 1  # for an offset that is not known


@record
class Gap(Record):
    """Events `from_seq` to `to_seq`, both included, are gone.

    `bytes` is their encoded size, None if it is not known. `to_seq` is None where the numbers
    are those of another series, whose end nobody remembers.
    """

    from_seq: int
    to_seq: int | None
    bytes: int | None
    why: GapReason


@record
class Batch(Record):
    """What a read gave. The gap, if there is one, lies before the records.

    `cursor` is where the next read goes on; `more` says that events follow which the limits
    of this read left out.
    """

    records: list[tuple[int, bytes]]
    gap: Gap | None
    cursor: int
    more: bool


def encode_gap(gap: Gap) -> bytes:
    """The payload of a GAP. Its number has the end, and the reason is always `disk`."""
    return _GAP.pack(gap.from_seq, _UNKNOWN if gap.bytes is None else gap.bytes)


def decode_gap(payload: bytes, number: int) -> Gap:
    from_seq, size = _GAP.unpack(payload)
    return Gap(from_seq, number, None if size == _UNKNOWN else size, GapReason.DISK)


@dataclass(slots=True)
class Durable:
    """A durable reader's ack, and how many bytes were appended up to it (None: unknown)."""

    acked: int
    offset: int | None

    def encode(self, name: str) -> bytes:
        """The payload of a READER."""
        return _READER.pack(self.acked, _UNKNOWN if self.offset is None else self.offset) + (
            name.encode()
        )


def decode_reader(payload: bytes) -> tuple[str, Durable]:
    acked, offset = _READER.unpack_from(payload)
    return payload[_READER.size :].decode(), Durable(acked, None if offset == _UNKNOWN else offset)


class JournalProtocol:
    """The numbers of one series. The doer keeps the records and says what it did."""

    def __init__(
        self, series: bytes, *, max_bytes: int, max_events: int, max_readers: int = READERS
    ) -> None:
        self.series = series
        self.first = 1
        self.last = 0
        self.bytes = 0  # of the events kept
        self._max_bytes = max_bytes
        self._max_events = max_events
        self._max_readers = max_readers
        self._evicted_bytes = 0
        self._open_readers = 0
        self._durable: dict[str, Durable] = {}
        self._why_gone = GapReason.EVICTED
        self._ended: dict[bytes, int] = {}  # older series, and their last event that is here

    def restore(
        self,
        *,
        first: int,
        last: int,
        evicted_bytes: int,
        size: int,
        durable: dict[str, Durable],
        why_gone: GapReason = GapReason.EVICTED,
    ) -> None:
        """Go on with what was found: events `first` to `last` of `size` bytes, and the readers.

        `why_gone` is the reason why there is nothing before `first`.
        """
        self.first, self.last, self.bytes = first, last, size
        self._evicted_bytes = evicted_bytes
        self._durable = durable
        self._why_gone = why_gone

    def begin_series(self, series: bytes, *, upto: int) -> None:
        """What comes now has another name, so that no number is given to two events.

        The events up to `upto` are those of the older series; what it had behind them is gone.
        """
        self.note_end(self.series, upto)
        self.series = series
        for durable in self._durable.values():
            if durable.acked > upto:
                durable.acked, durable.offset = upto, None

    def note_end(self, series: bytes, upto: int) -> None:
        """The events of an older `series` up to `upto` are among those of this one."""
        self._ended[series] = upto
        if len(self._ended) > SERIES_REMEMBERED:
            del self._ended[next(iter(self._ended))]

    def gap_of(self, series: bytes, after: int) -> tuple[Gap, int]:
        """What a cursor of another series has missed, and where it goes on."""
        upto = self._ended.get(series)
        if upto is None:
            return Gap(after + 1, None, None, GapReason.NEW_SERIES), 0
        return Gap(upto + 1, None, None, GapReason.NEW_SERIES), min(after, upto)

    # Writing -----------------------------------------------------------------------------

    def check_size(self, size: int) -> None:
        """Raises `LimitExceeded` for an event that is too large to be kept."""
        if size > EVENT_BYTES:
            raise LimitExceeded("bytes of one event", size=size, limit=EVENT_BYTES)

    def appended(self, seq: int, size: int) -> None:
        """Event `seq` was encoded to `size` bytes. Raises before anything has changed."""
        self.check_size(size)
        if seq != self.last + 1:
            raise AssertionError(f"event {seq} after {self.last}: an encoder must not append")
        self.last = seq
        self.bytes += size

    @property
    def is_over(self) -> bool:
        """Whether the oldest must go; the newest event is always kept."""
        over = self.bytes > self._max_bytes or self.last - self.first + 1 > self._max_events
        return over and self.first < self.last

    def evicted(self, through: int, size: int) -> None:
        """The events up to `through` went, `size` bytes together."""
        self.first = through + 1
        self.bytes -= size
        self._evicted_bytes += size
        self._why_gone = GapReason.EVICTED

    @property
    def total_bytes(self) -> int:
        """Of all events of this series."""
        return self._evicted_bytes + self.bytes

    # Reading -----------------------------------------------------------------------------

    def check_cursor(self, after: int) -> None:
        """Raises `Invalid` for a cursor that no reader of this series can have."""
        if not 0 <= after <= self.last:
            raise Invalid(
                f"cursor {after} is outside this journal: 0 to {self.last}", last=self.last
            )

    def gap_after(self, after: int) -> Gap | None:
        """What a reader at `after` has missed for good."""
        if after >= self.first - 1:
            return None
        return Gap(after + 1, self.first - 1, self._bytes_after(after), self._why_gone)

    def _bytes_after(self, after: int) -> int | None:
        """Bytes evicted after a cursor: known from the beginning and from durable acks."""
        if after == 0:
            return self._evicted_bytes
        for durable in self._durable.values():
            if durable.acked == after and durable.offset is not None:
                return self._evicted_bytes - durable.offset
        return None

    # Readers -----------------------------------------------------------------------------

    def open_reader(
        self, name: str | None, *, after: int | None, series: bytes | None
    ) -> tuple[int, Gap | None]:
        """The cursor that a reader starts from, and the gap it must be told of first.

        Without `after`, a durable reader goes on after its last ack, any other with what comes
        from now on. `after` of a durable name that is new counts as its first ack.
        """
        if self._open_readers >= self._max_readers:
            raise LimitExceeded(
                "open readers", size=self._open_readers + 1, limit=self._max_readers
            )
        gap = None
        if series is not None and series != self.series:
            gap, after = self.gap_of(series, after or 0)
        elif after is not None:
            self.check_cursor(after)
        if name is not None:
            after = self._open_durable(name, after)
        self._open_readers += 1
        return (self.last if after is None else after), gap

    def _open_durable(self, name: str, after: int | None) -> int:
        check_id(name, "reader name")
        known = self._durable.get(name)
        if known is None:
            if len(self._durable) >= self._max_readers:
                raise LimitExceeded(
                    "durable readers", size=len(self._durable) + 1, limit=self._max_readers
                )
            start = after or 0
            self._durable[name] = Durable(start, 0 if start == 0 else None)
            return start
        return known.acked if after is None else after

    def reader_closed(self) -> None:
        """A reader ended. A durable one keeps its ack, and what it holds."""
        self._open_readers -= 1

    def check_ack(self, name: str, seq: int) -> None:
        """Raises `Invalid` for an ack of what was never sent, or by a name that nobody has."""
        if name not in self._durable:
            raise Invalid(f"no durable reader is named {name!r}")
        self.check_cursor(seq)

    def ack(self, name: str, seq: int, *, offset: int | None) -> None:
        """`name` has everything up to `seq`, where `offset` bytes had been appended.

        An ack older than the latest one changes nothing.
        """
        self.check_ack(name, seq)
        durable = self._durable[name]
        if seq > durable.acked:
            durable.acked, durable.offset = seq, offset

    def durable(self) -> Iterator[tuple[str, Durable]]:
        """Names of durable readers, and their acks."""
        yield from self._durable.items()

    def ack_of(self, name: str) -> Durable:
        return self._durable[name]

    def forget(self, name: str) -> None:
        """The durable reader `name` will not come back: it holds nothing any more."""
        self._durable.pop(name, None)

    @property
    def acked(self) -> int | None:
        """What all durable readers have; None: there is none, so nothing is held for anybody."""
        return min((durable.acked for durable in self._durable.values()), default=None)

    @property
    def lost(self) -> Gap | None:
        """What was evicted before all durable readers had acked it."""
        return None if self.acked is None else self.gap_after(self.acked)
