"""Records of receipts: an answer and an end are found in them."""

from __future__ import annotations

import pytest

from sidecar.errors import ProtocolError
from sidecar.protocol import receiptlog
from sidecar.protocol.envelope import dumps
from sidecar.protocol.ids import uuid7
from sidecar.protocol.receiptlog import KEPT, Ended, Place
from sidecar.protocol.receipts import Receipt, State, Terms

NOW = 1_800_000_000.0
ID = uuid7(millis=1_800_000_000_000, random=bytes(10))
DIGEST = b"d" * 32
ENDED = Receipt(ID, DIGEST, State.ENDED, KEPT, settled=NOW)


def test_an_answer_is_found_in_either_record() -> None:
    assert receiptlog.answer_in(receiptlog.encode_ended(ENDED, b"answer")) == b"answer"
    assert receiptlog.answer_in(receiptlog.encode_whole(ENDED, b"answer")) == b"answer"
    assert receiptlog.answer_in(receiptlog.encode_ended(ENDED, None)) is None
    assert receiptlog.answer_in(receiptlog.encode_whole(ENDED, Place(1, 2, 3))) is None


@pytest.mark.parametrize("size", [0, 23, 24, 255, 256, 65_535, 65_536])
def test_an_end_tells_the_size_of_its_answer(size: int) -> None:
    record = receiptlog.encode_ended(ENDED, bytes(size))
    assert receiptlog.decode_ended(record) == Ended(ID, DIGEST, NOW, size)


def test_an_end_without_an_answer_says_so() -> None:
    record = receiptlog.encode_ended(ENDED, None)
    assert receiptlog.decode_ended(record) == Ended(ID, DIGEST, NOW, None)


def test_an_end_in_another_form_says_the_same() -> None:
    """As the digest of a test has it, or an encoder that writes short floats."""
    short = Receipt(ID, b"short", State.ENDED, KEPT, settled=NOW)
    record = receiptlog.encode_ended(short, b"answer")
    assert receiptlog.decode_ended(record) == Ended(ID, b"short", NOW, 6)
    whole = dumps([ID, DIGEST, 1_800_000_000, b"answer"])
    assert receiptlog.decode_ended(whole) == Ended(ID, DIGEST, NOW, 6)


@pytest.mark.parametrize("at, byte", [(0, 0x83), (1, 0x51), (18, 0x41), (61, 0x45), (61, 0x58)])
def test_an_end_whose_heads_do_not_fit_is_none(at: int, byte: int) -> None:
    record = bytearray(receiptlog.encode_ended(ENDED, b"answer"))
    record[at] = byte
    with pytest.raises((ProtocolError, ValueError)):
        receiptlog.decode_ended(bytes(record))


def test_every_record_of_a_call_has_its_id_in_one_place() -> None:
    receipt = Receipt(ID, DIGEST, State.ACCEPTED, terms=Terms("exec.run", NOW))
    for record in (
        receiptlog.encode_accepted(receipt, -1),
        receiptlog.encode_started(ID, b"note"),
        receiptlog.encode_ended(ENDED, b"answer"),
        receiptlog.encode_fenced(receipt, 1 << 40),
        receiptlog.encode_whole(receipt, Place(1, 2, 3)),
    ):
        assert receiptlog.call_id_in(record) == ID
