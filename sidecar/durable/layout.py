"""Where the records of a log will lie: known when they are appended, before they are written."""

from __future__ import annotations

from pathlib import Path

from sidecar.durable.owner import LogOwner
from sidecar.durable.segment import Segment
from sidecar.durable.work import Run, joined
from sidecar.protocol.segments import Header, encode_header


class Layout:
    """The segments of a log, and what is laid out in them and not written yet."""

    def __init__(self, folder: Path, owner: LogOwner, segment_bytes: int) -> None:
        self.series = b""
        self.segments: list[Segment] = []  # the last one is written to
        self.next_ordinal = 1
        self.waiting_bytes = 0
        self.number = 0  # the latest that was laid out
        self._folder = folder
        self._owner = owner
        self._segment_bytes = segment_bytes
        self._queue: list[Run] = []
        self._is_beginning = False  # the next record begins a segment
        self._is_heading = False  # the prologue of a segment is being appended

    @property
    def end(self) -> tuple[int, int]:
        """The last segment and its length."""
        last = self.segments[-1] if self.segments else None
        return (last.ordinal, last.written) if last else (0, 0)

    def segment_for(self, size: int) -> Segment:
        """The segment that the next record goes into."""
        if self.segments and not self._is_beginning:
            last = self.segments[-1]
            if self._is_heading or last.size + size <= self._segment_bytes:
                return last
        return self.begin_segment()

    def begin_segment(self) -> Segment:
        self._is_beginning = False
        header = Header(self.series, self.next_ordinal, self._owner.heading())
        self.next_ordinal += 1
        segment = Segment(self._folder, header)
        self.segments.append(segment)
        self.lay(segment, encode_header(header))
        self._is_heading = True
        self._owner.prologue()
        self._is_heading = False
        return segment

    def lay(self, segment: Segment, data: bytes) -> None:
        segment.size += len(data)
        self.waiting_bytes += len(data)
        self._queue.append((segment, data))

    @property
    def is_waiting(self) -> bool:
        return bool(self._queue)

    def take(self) -> list[Run]:
        """What is to be written now."""
        runs, self._queue = joined(self._queue), []
        return runs

    def refill(self, is_first: bool) -> bool:
        """Have the owner append again, from the first time on in segments of their own. Whether
        more is to come."""
        self._is_beginning = is_first
        more = self._owner.refill()
        if self._is_beginning:
            self.begin_segment()
        return bool(more)

    def written(self, runs: list[Run]) -> None:
        for segment, data in runs:
            segment.written += len(data)
            self.waiting_bytes -= len(data)

    def forget_unwritten(self) -> list[Segment]:
        """Begin again behind what is written; the segments of which nothing was."""
        self._queue = []
        self.waiting_bytes = 0
        never = [segment for segment in self.segments if not segment.written]
        self.segments = [segment for segment in self.segments if segment.written]
        for segment in self.segments:
            segment.size = segment.written
        return never
