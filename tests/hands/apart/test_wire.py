"""Frames and messages, byte by byte."""

from __future__ import annotations

import pytest

from sidecar.errors import ProtocolError
from sidecar.hands.apart.wire import (
    MAX_DESCRIPTORS,
    MAX_WAITING,
    Cancel,
    Failure,
    Hello,
    Inbox,
    Message,
    Reply,
    Request,
    encode,
)


@pytest.mark.parametrize(
    "message, descriptors, wire",
    [
        pytest.param(Hello(1, {}), 0, "00000005 84 00 00 01 a0", id="hello"),
        pytest.param(
            Request(7, "stat", {"path": b"x"}),
            0,
            "00000011 85 01 00 07 64 73746174 a1 64 70617468 41 78",
            id="request",
        ),
        pytest.param(Reply(7, None), 2, "00000005 84 02 02 07 f6", id="reply"),
        pytest.param(Failure(7, {}), 0, "00000005 84 03 00 07 a0", id="failure"),
        pytest.param(Cancel(7), 0, "00000004 83 04 00 07", id="cancel"),
    ],
)
def test_a_message_and_its_bytes(message: Message, descriptors: int, wire: str) -> None:
    assert encode(message, descriptors) == bytes.fromhex(wire)
    inbox = Inbox(limit=100)
    inbox.receive(bytes.fromhex(wire), [11, 12][:descriptors])
    assert list(inbox.messages()) == [(message, [11, 12][:descriptors])]


def test_a_message_comes_when_its_last_byte_does() -> None:
    inbox = Inbox(limit=100)
    *first, last = encode(Reply(1, b"abc"), 1) + encode(Cancel(2))
    inbox.receive(bytes(first[:1]), [11])
    assert list(inbox.messages()) == []
    inbox.receive(bytes(first[1:]))
    assert list(inbox.messages()) == [(Reply(1, b"abc"), [11])]
    inbox.receive(bytes([last]))
    assert list(inbox.messages()) == [(Cancel(2), [])]


def test_each_message_takes_its_own_descriptors() -> None:
    inbox = Inbox(limit=100)
    inbox.receive(encode(Reply(1, None), 2) + encode(Reply(2, None)), [11, 12])
    inbox.receive(encode(Reply(3, None), 1), [13])
    assert [descriptors for _, descriptors in inbox.messages()] == [[11, 12], [], [13]]
    assert inbox.leftovers() == []


@pytest.mark.parametrize(
    "wire, words",
    [
        pytest.param("00000000", "a frame of 0 bytes", id="empty"),
        pytest.param("00000065", "a frame of 101 bytes, 1 to 100 expected", id="too long"),
        pytest.param("ffffffff", "a frame of 4294967295 bytes", id="absurd"),
        pytest.param("00000001 ff", "broken CBOR", id="no CBOR"),
        pytest.param("00000003 82 04 00", "fields that it does not have", id="too short"),
        pytest.param("00000002 80 80", "1 bytes after the end", id="trailing"),
        pytest.param("00000001 a0", "begins with its kind", id="a map"),
        pytest.param("00000001 80", "begins with its kind", id="an empty list"),
        pytest.param("00000003 82 20 00", "begins with its kind", id="a negative kind"),
        pytest.param("00000003 82 05 00", "kind 5, which is unknown", id="unknown"),
        pytest.param("00000004 83 04 00 20", "fields that it does not have", id="a negative id"),
        pytest.param("00000005 84 00 00 01 80", "fields that it does", id="facts are a list"),
        pytest.param("00000004 83 04 11 07", "17 descriptors, at most 16", id="17 descriptors"),
        pytest.param("00000004 83 04 02 07", "1 descriptors came of 2", id="one is missing"),
        pytest.param("00000005 c0 83 04 00 07", "a CBOR tag", id="a tag"),
    ],
)
def test_what_breaks_the_protocol_is_named(wire: str, words: str) -> None:
    inbox = Inbox(limit=100)
    inbox.receive(bytes.fromhex(wire), [11])
    with pytest.raises(ProtocolError, match=words):
        list(inbox.messages())
    assert inbox.leftovers() == [11]


def test_descriptors_without_a_message_are_not_kept() -> None:
    inbox = Inbox(limit=100)
    inbox.receive(encode(Cancel(1)), [11])
    with pytest.raises(ProtocolError, match="1 descriptors that belong to no message"):
        list(inbox.messages())
    assert inbox.leftovers() == [11]


def test_a_message_that_does_not_end_cannot_hoard_descriptors() -> None:
    inbox = Inbox(limit=100)
    for number in range(MAX_WAITING // MAX_DESCRIPTORS):
        inbox.receive(b"\0\0\0\x64"[number : number + 1], range(MAX_DESCRIPTORS))
        assert list(inbox.messages()) == []
    inbox.receive(b"x", [11])
    with pytest.raises(ProtocolError, match="65 descriptors"):
        list(inbox.messages())
