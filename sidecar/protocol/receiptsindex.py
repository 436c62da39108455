"""The receipts that a log tells of, and where their records lie.

A log is read from its beginning at each start, and calls wait for that. Most of what it says is
about calls that have ended, so of a call that is open its records are only put by: if its end
comes, they are not decoded at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from sidecar.errors import Invalid, ProtocolError
from sidecar.protocol.envelope import loads
from sidecar.protocol.ids import check_uuid7
from sidecar.protocol.receiptlog import KEPT, Kind, Life, Place, call_id_in, decode_ended
from sidecar.protocol.receipts import Receipt, ReceiptsProtocol, State, Terms
from sidecar.protocol.segments import FRAME_BYTES, Frame

_STALE = 1024  # places of forgotten receipts that may be left
_PUT_BY = 4096  # records put by; then they are decoded after all, so that they do not pile up

_SEGMENT, _OFFSET, _PART = 64, 32, 0xFFFF_FFFF

_WRONG = (ProtocolError, Invalid, KeyError, TypeError, ValueError)


def _pack(place: Place) -> int:
    """One number, a third of the memory; no size: only the segment means something."""
    return place.segment << _SEGMENT | place.offset << _OFFSET | place.size


class ReceiptsIndex:
    """Made of the records, in their order; `receipts` has all of them after `settle_begun`."""

    def __init__(self, receipts: ReceiptsProtocol) -> None:
        self.receipts = receipts
        self.life: Life | None = None  # the latest
        self.is_whole = True  # nothing was met that cannot be understood
        self._lies: dict[bytes, int] = {}  # see `_pack`
        self._begun: dict[bytes, list[tuple[int, Frame]]] = {}  # accepted, and what followed
        self._put_by = 0  # records in there, also of calls that ended since
        self._accepted: Frame | None = None  # the latest; the low water is the highest in it
        self._read: dict[int, Callable[[Place, list[Any]], None]] = {
            Kind.LIFE: self._read_life,
            Kind.ACCEPTED: self._read_accepted,
            Kind.STARTED: self._read_started,
            Kind.FENCED: self._read_fenced,
            Kind.LOW_WATER: self._read_low_water,
            Kind.WHOLE: self._read_whole,
        }

    def receive_records(self, segment: int, frames: Iterable[Frame]) -> None:
        """The next records of a segment. One that makes no sense leaves the rest as it is, in
        doubt."""
        accepted, started, ended = int(Kind.ACCEPTED), int(Kind.STARTED), int(Kind.ENDED)
        begun = self._begun
        for frame in frames:
            kind, _, payload, _ = frame
            if kind == accepted:
                self._accepted = frame
                begun[call_id_in(payload)] = [(segment, frame)]
                self._put_by += 1
            elif kind == started and (records := begun.get(call_id_in(payload))):
                records.append((segment, frame))
                self._put_by += 1
            elif kind == ended:
                self._end(segment, frame)
            else:
                self._read_now(segment, frame)
        if self._put_by >= _PUT_BY:
            self.settle_begun()

    def settle_begun(self) -> None:
        """Read what was put by."""
        for records in self._begun.values():
            for segment, frame in records:
                self._decode(segment, frame)
        self._begun.clear()
        self._put_by = 0
        if self._accepted is not None:
            self._raise_to(self._accepted)
            self._accepted = None

    def settle(self, call_id: bytes, segment: int, answer: Place | None) -> None:
        """No record of this call before `segment` is needed any more."""
        self._lies[call_id] = _pack(answer or Place(segment, 0, 0))
        if len(self._lies) > len(self.receipts) * 5 // 4 + _STALE:
            self.forget_stale()

    def forget_stale(self) -> None:
        """Of receipts that are forgotten, their places are too."""
        for call_id in [id for id in self._lies if self.receipts.get(id) is None]:
            del self._lies[call_id]

    def home(self, call_id: bytes) -> int:
        """The oldest segment that this receipt needs: that of its answer, if it has one."""
        return self._lies[call_id] >> _SEGMENT

    def homed(self, before: int) -> list[bytes]:
        """The calls whose homes are older than the segment `before`."""
        return [id for id, lies in self._lies.items() if lies >> _SEGMENT < before]

    def homeless(self, alive: set[int]) -> list[bytes]:
        """The calls whose homes are not among these segments."""
        return [id for id, lies in self._lies.items() if lies >> _SEGMENT not in alive]

    def place(self, call_id: bytes) -> Place | None:
        """Where its answer lies."""
        lies = self._lies.get(call_id, 0)
        place = Place(lies >> _SEGMENT, lies >> _OFFSET & _PART, lies & _PART)
        return place if place.size else None

    # records ------------------------------------------------------------------------------

    def _end(self, segment: int, frame: Frame) -> None:
        payload = frame.payload
        try:
            call_id, digest, wall, size = decode_ended(payload)
            check_uuid7(call_id)
        except _WRONG:
            self.is_whole = False
            return
        self._begun.pop(call_id, None)
        place = Place(segment, frame.offset, FRAME_BYTES + len(payload))
        kept = None if size is None else KEPT
        receipt = Receipt(call_id, digest, State.ENDED, kept, None, None, wall)
        self.receipts.restore(receipt, size=size or 0)
        self.settle(call_id, segment, None if size is None else place)

    def _read_now(self, segment: int, frame: Frame) -> None:
        """A record that says something of many calls, or all of one; or follows one that did."""
        if frame.kind in (Kind.FENCED, Kind.WHOLE):
            self._begun.pop(call_id_in(frame.payload), None)
        elif frame.kind == Kind.LIFE:
            self.settle_begun()
        self._decode(segment, frame)

    def _decode(self, segment: int, frame: Frame) -> None:
        place = Place(segment, frame.offset, FRAME_BYTES + len(frame.payload))
        try:
            self._read[frame.kind](place, loads(frame.payload))
        except _WRONG:
            self.is_whole = False

    def _raise_to(self, accepted: Frame) -> None:
        try:
            self._raise(loads(accepted.payload)[2])
        except (*_WRONG, IndexError):
            self.is_whole = False

    def _read_life(self, place: Place, fields: list[Any]) -> None:
        self.life = Life(*fields)
        self.receipts.begin_life(now_wall=self.life.wall, is_whole=self.life.is_whole)

    def _read_accepted(self, place: Place, fields: list[Any]) -> None:
        call_id, digest, low_water, *terms = fields
        self._raise(low_water)
        receipt = Receipt(call_id, digest, State.ACCEPTED, terms=Terms(*terms) if terms else None)
        self._restore(receipt, place)

    def _read_started(self, place: Place, fields: list[Any]) -> None:
        call_id, note = fields
        receipt = self.receipts.get(call_id)
        if receipt is not None and receipt.is_open:
            note = receipt.note if note is None else note
            self.receipts.restore(replace(receipt, state=State.STARTED, note=note))

    def _read_fenced(self, place: Place, fields: list[Any]) -> None:
        call_id, wall, low_water = fields
        self._raise(low_water)
        self._restore(Receipt(call_id, b"", State.FENCED, settled=wall), place)

    def _read_low_water(self, place: Place, fields: list[Any]) -> None:
        self._raise(*fields)

    def _read_whole(self, place: Place, fields: list[Any]) -> None:
        call_id, digest, state, wall, answer, terms, note = fields
        kept = None if answer is None else KEPT
        receipt = Receipt(
            call_id,
            digest,
            State(state),
            kept,
            Terms(*terms) if terms else None,
            note,
            settled=wall,
        )
        lies = Place(*answer) if isinstance(answer, list) else place
        size = lies.size if isinstance(answer, list) else len(answer or b"")
        self._restore(receipt, place, size=size, lies=None if answer is None else lies)

    def _restore(
        self, receipt: Receipt, place: Place, *, size: int = 0, lies: Place | None = None
    ) -> None:
        check_uuid7(receipt.call_id)
        self.receipts.restore(receipt, size=size)
        self.settle(receipt.call_id, place.segment, lies)

    def _raise(self, low_water: int) -> None:
        self.receipts.low_water = max(self.receipts.low_water, low_water)
