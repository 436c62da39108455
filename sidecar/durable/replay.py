"""Events that are on disk and no longer in memory, read by number.

A segment's head says with which number it begins. Inside it, a sparse index, made as it is read,
and the places where the latest reads ended find the rest. Damage that a read comes upon is taken
out (`scanning`), and what it took along is named by a gap.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections import OrderedDict

import anyio

from sidecar.durable.log import Log
from sidecar.durable.scanning import without_damage
from sidecar.durable.segment import Segment
from sidecar.protocol.journal import Batch, Gap, GapReason, Kind, decode_gap
from sidecar.protocol.segments import HEADER_BYTES, Frame, scan
from sidecar.threads import in_thread

log = logging.getLogger(__name__)

PIECE = 96 * 1024  # bytes of one read: more than the largest event
PLACES = 64  # remembered, where the latest reads ended


class Replay:
    """Reads of a journal's log."""

    def __init__(self, source: Log) -> None:
        self._log = source
        self._places: OrderedDict[int, tuple[Segment, int]] = OrderedDict()
        self._repairing = anyio.Lock()

    async def read(self, after: int, *, upto: int, max_bytes: int, max_records: int) -> Batch:
        """Events after `after`, which is before `upto`: some, or a gap, or none if the first one
        is over `max_bytes`. Raises `LookupError` if they were evicted meanwhile."""
        found = Gathering(after, upto, max_bytes, max_records)
        segment, offset = self._seek(found.next)
        while True:
            data = await self._read(segment, offset)
            scanned = scan(data, base=offset)
            for frame in scanned.frames:
                if frame.kind == Kind.EVENT:
                    segment.note(frame.number, frame.offset)
                if not found.take(frame):
                    return self._end(found, segment, frame.offset)
            offset += scanned.used
            if found.has_any:
                return self._end(found, segment, offset)
            if scanned.is_damaged:
                await self._mend(segment, offset)
                segment, offset = self._seek(found.next)
            elif not scanned.used:
                following = self._following(segment)
                if following is None or found.is_hole_before(following.heading.first):
                    found.hole(following.heading.first if following else upto + 1)
                    return found.batch()
                segment, offset = following, HEADER_BYTES

    async def _read(self, segment: Segment, offset: int) -> bytes:
        if segment.is_lost:
            return b""
        try:
            return await self._log.read_segment(segment, offset, PIECE)
        except OSError as error:
            if segment not in self._log.segments:
                raise LookupError(segment.path.name) from error
            log.error("%s cannot be read: %s", segment.path, error)
            segment.is_lost = True
            return b""

    def _end(self, found: Gathering, segment: Segment, offset: int) -> Batch:
        self._places[found.next] = segment, offset
        self._places.move_to_end(found.next)
        if len(self._places) > PLACES:
            self._places.popitem(last=False)
        return found.batch()

    def _seek(self, seq: int) -> tuple[Segment, int]:
        """The segment that would have `seq`, and the offset of a frame not behind it."""
        segment, offset = self._places.get(seq, (None, 0))
        segments = self._log.segments
        if segment is not None and segment in segments:
            return segment, offset
        if not segments:
            raise LookupError(seq)
        place = bisect_right(segments, seq, key=lambda segment: segment.heading.first) - 1
        segment = segments[max(0, place)]
        return segment, segment.offset_before(seq)

    def _following(self, segment: Segment) -> Segment | None:
        for other in self._log.segments:
            if other.ordinal > segment.ordinal:
                return other
        return None

    async def _mend(self, segment: Segment, offset: int) -> None:
        """Take out the damage at `offset`. Others who came upon it wait here."""
        async with self._repairing:
            if segment.is_lost or segment not in self._log.segments:
                return
            if segment is self._log.segments[-1] and self._log.fault is None:
                self._log.begin_segment()  # so that nobody writes to this one any more
                await self._log.wait_synced(self._log.appended)
            log.error("%s is damaged at %d", segment.path, offset)
            with segment.in_use():
                copy = await in_thread(without_damage, self._log.disk, segment)
            self._places.clear()
            if copy is None:
                segment.is_lost = True
            else:
                self._log.replace(segment, copy)


class Gathering:
    """A batch in the making. `next` is the number that comes next."""

    def __init__(self, after: int, upto: int, max_bytes: int, max_records: int) -> None:
        self.next = after + 1
        self._upto = upto
        self._room = max_bytes
        self._max_records = max_records
        self._records: list[tuple[int, bytes]] = []
        self._gap: Gap | None = None

    @property
    def has_any(self) -> bool:
        return bool(self._records) or self._gap is not None

    def batch(self) -> Batch:
        cursor = self.next - 1
        return Batch(self._records, self._gap, cursor, more=cursor < self._upto)

    def take(self, frame: Frame) -> bool:
        """Whether the next frame may follow; False: this one begins the next batch."""
        if frame.number < self.next or frame.kind not in (Kind.EVENT, Kind.GAP):
            return True
        first = frame.number
        if frame.kind == Kind.GAP:
            gap = decode_gap(frame.payload, frame.number)
            first = max(self.next, gap.from_seq)
        if self.is_hole_before(first):
            if not self.has_any:
                self.hole(first)
            return False
        if frame.kind == Kind.GAP:
            return self._take_gap(gap)
        if frame.number > self._upto or len(self._records) == self._max_records:
            return False
        if len(frame.payload) > self._room:
            return False
        self._room -= len(frame.payload)
        self._records.append((frame.number, frame.payload))
        self.next += 1
        return True

    def _take_gap(self, gap: Gap) -> bool:
        if self.has_any:
            return False
        size = gap.bytes if self.next == gap.from_seq else None
        self._gap = Gap(self.next, gap.to_seq, size, gap.why)
        self.next = (gap.to_seq or self.next) + 1
        return True

    def is_hole_before(self, first: int) -> bool:
        return first > self.next

    def hole(self, first: int) -> None:
        """What is expected before `first` is not there any more."""
        self._gap = Gap(self.next, first - 1, None, GapReason.CORRUPT)
        self.next = first
