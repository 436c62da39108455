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

The ids of kinds 2 to 5 and 7 lie in one place, and kind 4, the most of what a start has to read,
is taken apart without a decoder.

A life that is not `whole` does not know everything that was written before: see `receipts`.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, NamedTuple

from sidecar.protocol.envelope import dumps, loads
from sidecar.protocol.ids import ID_BYTES
from sidecar.protocol.receipts import Receipt

KEPT = b""  # an answer that is kept elsewhere, as receipts name it

_ENDED_FIELDS = 4

# RFC 8949: what stands before the first byte of an id in every array of fewer than 24 items, and
# kind 4 up to its answer: array of 4, 16 bytes, 32 bytes, float64; then the head of its answer.
_ID = slice(2, 2 + ID_BYTES)
_ENDED = struct.Struct(">H16sH32sBdB")
_ARRAY_AND_ID = 0x8450
_DIGEST = 0x5820
_FLOAT = 0xFB
_NULL = 0xF6
_SHORT, _SHORT_END = 0x40, 0x58  # bytes whose count is in the head; behind it, in 1, 2, 4 bytes
_COUNTS = {0x58: 1, 0x59: 2, 0x5A: 4}


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


class Ended(NamedTuple):
    """What a record of kind 4 says; of the answer only its size, None if there is none."""

    call_id: bytes
    digest: bytes
    wall: float
    size: int | None


def call_id_in(payload: bytes) -> bytes:
    """Of the kinds that begin with one, if the record is as it is written here."""
    return payload[_ID]


def decode_ended(payload: bytes) -> Ended:
    """Raises `ProtocolError`, `ValueError` or `TypeError` for what is none."""
    if len(payload) >= _ENDED.size:
        start, call_id, middle, digest, end, wall, head = _ENDED.unpack_from(payload)
        if start == _ARRAY_AND_ID and middle == _DIGEST and end == _FLOAT:
            size = len(payload) - _ENDED.size
            if _SHORT <= head < _SHORT_END and head - _SHORT == size:
                return Ended(call_id, digest, wall, size)
            if head == _NULL and not size:
                return Ended(call_id, digest, wall, None)
            count = _COUNTS.get(head, 0)
            size -= count
            if count and payload[_ENDED.size : _ENDED.size + count] == size.to_bytes(count, "big"):
                return Ended(call_id, digest, wall, size)
    call_id, digest, wall, answer = loads(payload)
    return Ended(call_id, digest, wall, None if answer is None else len(answer))
