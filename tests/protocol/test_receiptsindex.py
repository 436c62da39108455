"""What records of receipts say together, and what of it does not make sense."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.protocol import receiptlog
from sidecar.protocol.envelope import dumps
from sidecar.protocol.ids import uuid7
from sidecar.protocol.receiptlog import KEPT, Kind, Life, Place
from sidecar.protocol.receipts import Receipt, ReceiptsProtocol, State, Terms
from sidecar.protocol.receiptsindex import ReceiptsIndex
from sidecar.protocol.segments import Frame

NOW = 1_800_000_000.0
ID = uuid7(millis=1_800_000_000_000, random=bytes(10))
DIGEST = b"d" * 32
TERMS = Terms("exec.run", NOW, 1060.0, NOW + 60, 1 << 20, "00-trace")
ACCEPTED = Receipt(ID, DIGEST, State.ACCEPTED, terms=TERMS)
ENDED = Receipt(ID, DIGEST, State.ENDED, KEPT, settled=NOW)


class Reading:
    """Records read one after the other, each in a segment of its own."""

    def __init__(self) -> None:
        self.receipts = ReceiptsProtocol()
        self.index = ReceiptsIndex(self.receipts)
        self.segment = 0

    def read(self, kind: int, payload: bytes) -> None:
        self.segment += 1
        self.index.receive_records(self.segment, [Frame(kind, 0, payload, 68)])

    def receipt(self) -> Receipt | None:
        self.index.settle_begun()
        return self.receipts.get(ID)


@pytest.fixture
def reading() -> Reading:
    return Reading()


def test_a_call_is_read_as_it_went_on(reading: Reading) -> None:
    reading.read(Kind.ACCEPTED, receiptlog.encode_accepted(ACCEPTED, 7))
    assert reading.receipt() == ACCEPTED
    assert reading.receipts.low_water == 7
    reading.read(Kind.STARTED, receiptlog.encode_started(ID, b"note"))
    reading.read(Kind.STARTED, receiptlog.encode_started(ID, None))
    assert reading.receipt() == Receipt(ID, DIGEST, State.STARTED, None, TERMS, b"note")
    assert reading.index.home(ID) == 1
    reading.read(Kind.ENDED, receiptlog.encode_ended(ENDED, b"answer"))
    assert reading.receipts.get(ID) == ENDED
    assert reading.receipts.answers_bytes == 6
    assert reading.index.home(ID) == 4
    assert reading.index.place(ID) == Place(4, 68, 85)


def test_a_start_without_its_begin_says_nothing(reading: Reading) -> None:
    """The begin was in a segment that is gone, as a whole receipt stands in a later one."""
    reading.read(Kind.STARTED, receiptlog.encode_started(ID, b"note"))
    assert reading.receipts.get(ID) is None
    assert reading.index.is_whole


@pytest.mark.parametrize("state", [State.RESEND, State.STARTED, State.FENCED])
def test_a_whole_receipt_is_read_as_it_is(state: State, reading: Reading) -> None:
    whole = Receipt(ID, DIGEST, state, None, TERMS, b"note")
    reading.read(Kind.WHOLE, receiptlog.encode_whole(whole, None))
    assert reading.receipts.get(ID) == whole


def test_the_answer_of_a_whole_receipt_may_lie_elsewhere(reading: Reading) -> None:
    reading.segment = 8
    reading.read(Kind.WHOLE, receiptlog.encode_whole(ENDED, Place(3, 4, 50)))
    assert reading.index.place(ID) == Place(3, 4, 50)
    assert reading.index.home(ID) == 3
    reading.read(Kind.WHOLE, receiptlog.encode_whole(ENDED, b"answer"))
    assert reading.index.place(ID) == Place(10, 68, 93)
    reading.read(Kind.WHOLE, receiptlog.encode_whole(ENDED, None))
    assert reading.index.place(ID) is None
    assert reading.index.home(ID) == 11


def test_of_a_call_that_ended_nothing_else_is_decoded(reading: Reading) -> None:
    """But for what stands in its beginning and holds for others: the low water."""
    reading.read(Kind.ACCEPTED, receiptlog.encode_accepted(ACCEPTED, 7))
    reading.read(Kind.STARTED, dumps([ID, "no note"])[:-3])
    reading.read(Kind.ENDED, receiptlog.encode_ended(ENDED, None))
    assert reading.receipt() == replace(ENDED, answer=None)
    assert reading.receipts.low_water == 7
    assert reading.index.is_whole
    assert reading.index.home(ID) == 3


def test_a_fence_or_a_whole_receipt_replaces_what_was_begun(reading: Reading) -> None:
    fenced = Receipt(ID, b"", State.FENCED, settled=NOW)
    reading.read(Kind.ACCEPTED, receiptlog.encode_accepted(ACCEPTED, 7))
    reading.read(Kind.FENCED, receiptlog.encode_fenced(fenced, 5))
    assert reading.receipt() == fenced
    reading.read(Kind.ACCEPTED, receiptlog.encode_accepted(ACCEPTED, 7))
    reading.read(Kind.WHOLE, receiptlog.encode_whole(ENDED, b"answer"))
    assert reading.receipt() == ENDED


def test_a_start_is_read_where_its_begin_was_read_before(reading: Reading) -> None:
    reading.read(Kind.ACCEPTED, receiptlog.encode_accepted(ACCEPTED, 7))
    assert reading.receipt() == ACCEPTED
    reading.read(Kind.STARTED, receiptlog.encode_started(ID, b"note"))
    assert reading.receipt() == Receipt(ID, DIGEST, State.STARTED, None, TERMS, b"note")
    assert reading.index.home(ID) == 1


def test_what_is_put_by_does_not_pile_up(reading: Reading) -> None:
    reading.read(Kind.ACCEPTED, receiptlog.encode_accepted(ACCEPTED, 7))
    for _ in range(4095):
        reading.read(Kind.STARTED, receiptlog.encode_started(ID, b"note"))
    assert reading.receipts.get(ID) == Receipt(ID, DIGEST, State.STARTED, None, TERMS, b"note")


def test_fences_and_the_mark_are_read(reading: Reading) -> None:
    fenced = Receipt(ID, b"", State.FENCED, settled=NOW)
    reading.read(Kind.FENCED, receiptlog.encode_fenced(fenced, 5))
    assert reading.receipts.get(ID) == fenced
    reading.read(Kind.LOW_WATER, receiptlog.encode_low_water(9))
    reading.read(Kind.LOW_WATER, receiptlog.encode_low_water(3))
    assert reading.receipts.low_water == 9


def test_a_life_ends_what_the_one_before_had_accepted(reading: Reading) -> None:
    reading.read(Kind.ACCEPTED, receiptlog.encode_accepted(ACCEPTED, -1))
    life = Life(b"b" * 16, 5.0, NOW, True)
    reading.read(Kind.LIFE, receiptlog.encode_life(life))
    assert reading.index.life == life
    found = reading.receipts.get(ID)
    assert found is not None
    assert found.state is State.RESEND


@pytest.mark.parametrize(
    "kind, payload",
    [
        (99, dumps([1])),
        (Kind.ENDED, b"\xff"),
        (Kind.ENDED, dumps([ID])),
        (Kind.ENDED, dumps(5)),
        (Kind.ACCEPTED, dumps([b"short", DIGEST, -1])),
        (Kind.WHOLE, dumps([ID, DIGEST, "sleeping", NOW, None, [], None])),
    ],
)
def test_a_record_that_makes_no_sense_leaves_the_rest_in_doubt(
    kind: int, payload: bytes, reading: Reading
) -> None:
    reading.read(kind, payload)
    reading.index.settle_begun()
    assert not reading.index.is_whole
    assert len(reading.receipts) == 0


def test_places_of_forgotten_receipts_do_not_pile_up() -> None:
    reading = Reading()
    reading.receipts = ReceiptsProtocol(max_receipts=2)
    reading.index = ReceiptsIndex(reading.receipts)
    for number in range(3000):
        id = uuid7(millis=number, random=bytes(10))
        ended = Receipt(id, DIGEST, State.ENDED, KEPT, settled=NOW)
        reading.read(Kind.ENDED, receiptlog.encode_ended(ended, b"answer"))
    assert len(reading.index.homed(3001)) < 1100


IDS = [uuid7(millis=1_800_000_000_000 + number, random=bytes(10)) for number in range(3)]


def record_of(kind: Kind, number: int, detail: int) -> bytes:
    """Each `detail` says something else where the kind has room for it."""
    receipt = Receipt(IDS[number], DIGEST, State.ACCEPTED, terms=Terms("exec.run", NOW + detail))
    ended = Receipt(IDS[number], DIGEST, State.ENDED, KEPT, settled=NOW + detail)
    match kind:
        case Kind.ACCEPTED:
            return receiptlog.encode_accepted(receipt, detail)
        case Kind.STARTED:
            return receiptlog.encode_started(IDS[number], bytes(detail) or None)
        case Kind.ENDED:
            return receiptlog.encode_ended(ended, bytes(detail) or None)
        case Kind.FENCED:
            return receiptlog.encode_fenced(ended, detail)
        case Kind.LOW_WATER:
            return receiptlog.encode_low_water(detail)
        case Kind.LIFE:
            return receiptlog.encode_life(Life(b"b" * 16, 5.0, NOW, detail > 0))
        case Kind.WHOLE:
            return receiptlog.encode_whole(receipt if detail else ended, None)


@given(st.lists(st.tuples(st.sampled_from(list(Kind)), st.integers(0, 2), st.integers(0, 3))))
def test_what_is_put_by_says_in_the_end_what_it_said_at_once(
    records: list[tuple[Kind, int, int]],
) -> None:
    later, at_once = Reading(), Reading()
    for place, (kind, number, detail) in enumerate(records):
        if kind in (Kind.ACCEPTED, Kind.FENCED, Kind.LOW_WATER):
            detail = place  # as in a log: the low water never sinks
        for reading in (later, at_once):
            reading.read(kind, record_of(kind, number, detail))
        at_once.index.settle_begun()
    later.index.settle_begun()
    assert later.receipts.low_water == at_once.receipts.low_water
    assert later.index.is_whole and at_once.index.is_whole
    assert later.receipts.answers_bytes == at_once.receipts.answers_bytes
    assert later.receipts.open_count == at_once.receipts.open_count
    for id in IDS:
        assert later.receipts.get(id) == at_once.receipts.get(id)
        assert later.index.place(id) == at_once.index.place(id)
        if later.receipts.get(id) is not None:
            assert later.index.home(id) == at_once.index.home(id)
