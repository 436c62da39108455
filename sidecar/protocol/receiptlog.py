"""How receipts lie in a log: what each record says, and what all of them say together.

The payload of a record is a CBOR array. `id` is the call's, `wall` the calendar, `now` the clock
of the sidecar, which means something until the machine is started again (`boot`):

    kind 1  a life begins     [boot, now, wall, whole]
         2  accepted          [id, digest, low water, the fields of `Terms`]
         3  started           [id, note]
         4  ended             [id, digest, wall, answer]
         5  fenced            [id, wall, low water]
         6  low water         [low water]
         7  a whole receipt   [id, digest, state, wall, answer or place, terms, note]

Read in their order they give the receipts as they were. A later record of a call replaces what
older ones said, so a log is kept short by appending what is still true of its oldest segment,
and letting that go: kind 7 is for this. Its answer may lie where it was: [segment, offset, size].

A life that is not `whole` does not know everything that was written before: see `receipts`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from typing import Any, NamedTuple

from sidecar.errors import Invalid, ProtocolError
from sidecar.protocol.envelope import dumps, loads
from sidecar.protocol.ids import check_uuid7
from sidecar.protocol.receipts import Receipt, ReceiptsProtocol, State, Terms

KEPT = b""  # an answer that is kept elsewhere, as receipts name it

_ENDED_FIELDS = 4
_STALE = 1024  # places of forgotten receipts that may be left


class Kind(IntEnum):
    LIFE = 1
    ACCEPTED = 2
    STARTED = 3
    ENDED = 4
    FENCED = 5
    LOW_WATER = 6
    WHOLE = 7


class Place(NamedTuple):
    """Where a record lies in a log: its segment, and from where on in that."""

    segment: int
    offset: int
    size: int


class Life(NamedTuple):
    """A process that had these receipts open."""

    boot: bytes
    now: float
    wall: float
    is_whole: bool


def encode_life(life: Life) -> bytes:
    return dumps(list(life))


def encode_accepted(receipt: Receipt, low_water: int) -> bytes:
    return dumps([receipt.call_id, receipt.digest, low_water, *_terms(receipt)])


def encode_started(call_id: bytes, note: bytes | None) -> bytes:
    return dumps([call_id, note])


def encode_ended(receipt: Receipt, answer: bytes | None) -> bytes:
    return dumps([receipt.call_id, receipt.digest, receipt.settled, answer])


def encode_fenced(receipt: Receipt, low_water: int) -> bytes:
    return dumps([receipt.call_id, receipt.settled, low_water])


def encode_low_water(low_water: int) -> bytes:
    return dumps([low_water])


def encode_whole(receipt: Receipt, answer: bytes | Place | None) -> bytes:
    kept = list(answer) if isinstance(answer, Place) else answer
    state = str(receipt.state)
    return dumps(
        [
            receipt.call_id,
            receipt.digest,
            state,
            receipt.settled,
            kept,
            _terms(receipt),
            receipt.note,
        ]
    )


def answer_in(payload: bytes) -> bytes | None:
    """The answer that stands in a record of kind 4 or 7."""
    fields = loads(payload)
    answer = fields[3 if len(fields) == _ENDED_FIELDS else 4]
    return answer if isinstance(answer, bytes) else None


def _terms(receipt: Receipt) -> list[Any]:
    t = receipt.terms
    if t is None:
        return []
    return [t.command, t.begun, t.deadline, t.deadline_wall, t.credit, t.traceparent]


class ReceiptsIndex:
    """Receipts, and where their records lie. Made of the records, in their order."""

    def __init__(self, receipts: ReceiptsProtocol) -> None:
        self.receipts = receipts
        self.life: Life | None = None  # the latest
        self.is_whole = True  # nothing was met that cannot be understood
        self.homes: dict[bytes, int] = {}  # the oldest segment that a receipt needs
        self.places: dict[bytes, Place] = {}  # of the answers
        self._read: dict[int, Callable[[Place, list[Any]], None]] = {
            Kind.LIFE: self._life,
            Kind.ACCEPTED: self._accepted,
            Kind.STARTED: self._started,
            Kind.ENDED: self._ended,
            Kind.FENCED: self._fenced,
            Kind.LOW_WATER: self._low_water,
            Kind.WHOLE: self._whole,
        }

    def receive_record(self, kind: int, payload: bytes, place: Place) -> None:
        """The next record. One that makes no sense leaves the rest as it is, in doubt."""
        try:
            self._read[kind](place, loads(payload))
        except (ProtocolError, Invalid, KeyError, TypeError, ValueError):
            self.is_whole = False

    def settle(self, call_id: bytes, segment: int, answer: Place | None) -> None:
        """No record of this call before `segment` is needed any more."""
        self.homes[call_id] = segment
        self.places.pop(call_id, None)
        if answer is not None:
            self.places[call_id] = answer
            self.homes[call_id] = min(segment, answer.segment)
        if len(self.homes) > 2 * len(self.receipts) + _STALE:
            self.forget_stale()

    def forget_stale(self) -> None:
        """Of receipts that are forgotten, their places are too."""
        for call_id in [id for id in self.homes if self.receipts.get(id) is None]:
            del self.homes[call_id]
            self.places.pop(call_id, None)

    def _life(self, place: Place, fields: list[Any]) -> None:
        self.life = Life(*fields)
        self.receipts.begin_life(now_wall=self.life.wall, is_whole=self.life.is_whole)

    def _accepted(self, place: Place, fields: list[Any]) -> None:
        call_id, digest, low_water, *terms = fields
        self._raise(low_water)
        receipt = Receipt(call_id, digest, State.ACCEPTED, terms=Terms(*terms) if terms else None)
        self._restore(receipt, place)

    def _started(self, place: Place, fields: list[Any]) -> None:
        call_id, note = fields
        receipt = self.receipts.get(call_id)
        if receipt is not None and receipt.is_open:
            note = receipt.note if note is None else note
            self.receipts.restore(replace(receipt, state=State.STARTED, note=note))

    def _ended(self, place: Place, fields: list[Any]) -> None:
        call_id, digest, wall, answer = fields
        kept = None if answer is None else KEPT
        receipt = Receipt(call_id, digest, State.ENDED, kept, settled=wall)
        self._restore(
            receipt, place, size=len(answer or b""), lies=None if answer is None else place
        )

    def _fenced(self, place: Place, fields: list[Any]) -> None:
        call_id, wall, low_water = fields
        self._raise(low_water)
        self._restore(Receipt(call_id, b"", State.FENCED, settled=wall), place)

    def _low_water(self, place: Place, fields: list[Any]) -> None:
        self._raise(*fields)

    def _whole(self, place: Place, fields: list[Any]) -> None:
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
