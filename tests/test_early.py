"""What is kept until there is a dispatcher, and how much of it."""

from __future__ import annotations

from sidecar.early import EarlyMessages
from sidecar.protocol.webpubsub.frames import Message


def message(data: bytes) -> Message:
    return Message("group", data, group="g")


def test_messages_are_taken_in_order_and_once() -> None:
    early = EarlyMessages()
    assert early.keep(message(b"a")) and early.keep(message(b"b"))
    assert [kept.data for kept in early.take()] == [b"a", b"b"]
    assert early.take() == []


def test_256_messages_are_kept_and_the_next_is_not() -> None:
    early = EarlyMessages()
    kept = [early.keep(message(b"%d" % number)) for number in range(257)]
    assert kept == [True] * 256 + [False]
    assert [early.data for early in early.take()][-1] == b"255"


def test_4_mib_are_kept_and_what_is_larger_than_the_rest_is_not() -> None:
    early = EarlyMessages()
    kept = [early.keep(message(bytes(size))) for size in (4 << 20, 1, 0)]
    assert kept == [True, False, True]
    early.take()
    assert early.keep(message(bytes(4 << 20))), "there is room again"
