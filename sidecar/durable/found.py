"""What the last segment of a journal tells when it is opened."""

from __future__ import annotations

from itertools import pairwise

from sidecar.durable.recovery import Recovered
from sidecar.durable.segment import Segment
from sidecar.protocol.journal import (
    Durable,
    GapReason,
    JournalProtocol,
    Kind,
    decode_gap,
    decode_reader,
)
from sidecar.protocol.segments import Frame, segment_ordinal


class Found:
    """Gathered while the segment is read, in a thread."""

    def __init__(self) -> None:
        self._last = 0
        self._bytes = 0  # of the events of the segment
        self._durable: dict[str, Durable] = {}

    def on_frames(self, _: Segment, frames: list[Frame]) -> None:
        for kind, number, payload, _at in frames:
            if kind == Kind.EVENT:
                self._last = number
                self._bytes += len(payload)
            elif kind == Kind.GAP:
                self._last = number
                self._bytes += decode_gap(payload, number).bytes or 0
            elif kind == Kind.READER:
                name, durable = decode_reader(payload)
                self._durable[name] = durable
            elif kind == Kind.FORGET:
                self._durable.pop(payload.decode(), None)

    def restore(self, protocol: JournalProtocol, recovered: Recovered) -> None:
        """Go on where the log ends."""
        segments = recovered.segments
        if not segments:
            nothing = {name: Durable(0, 0) for name in self._durable}
            protocol.restore(first=1, last=0, evicted_bytes=0, size=0, durable=nothing)
            return
        oldest, latest = segments[0], segments[-1]
        last = max(self._last, latest.heading.first - 1)
        evicted = oldest.heading.bytes
        damaged = [segment_ordinal(name) or 0 for name in recovered.damaged]
        is_hurt = any(ordinal < oldest.ordinal for ordinal in damaged)
        protocol.restore(
            first=oldest.heading.first,
            last=last,
            evicted_bytes=evicted,
            size=latest.heading.bytes + self._bytes - evicted,
            durable=self._durable,
            why_gone=GapReason.CORRUPT if is_hurt else GapReason.EVICTED,
        )
        for segment, following in pairwise(segments):
            if segment.series != following.series:
                protocol.note_end(segment.series, following.heading.first - 1)
        for series in (latest.series, recovered.series):
            if series is not None and series != protocol.series:
                protocol.note_end(series, last)
