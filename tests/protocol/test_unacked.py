from __future__ import annotations

import pytest

from sidecar.errors import LimitExceeded
from sidecar.protocol.publish import Outcome, Publish, Settled
from sidecar.protocol.unacked import Room, Unacked
from sidecar.protocol.webpubsub import codec_for
from sidecar.protocol.webpubsub.frames import PROTOBUF_SUBPROTOCOL, Ack, SendToGroup

CODEC = codec_for(PROTOBUF_SUBPROTOCOL)


def nobody(outcome: Outcome) -> None:
    """Nobody is told."""


def publish(data: bytes, ttl: int | None = None) -> Publish:
    return Publish("out.a", data, ttl, nobody, urgent=False)


def failed(ack_id: int, name: str) -> Ack:
    return Ack(ack_id, False, name, "")


def test_every_publish_has_an_id_of_its_own() -> None:
    unacked = Unacked(CODEC)
    first = unacked.add(publish(b"x"), now=0.0)
    second = unacked.add(publish(b"y", ttl=60), now=0.0)
    assert CODEC.decode_upstream(first) == SendToGroup("out.a", b"x", 1)
    assert CODEC.decode_upstream(second) == SendToGroup("out.a", b"y", 2, ttl=60)
    assert len(unacked) == 2


@pytest.mark.parametrize(
    "ack, outcome",
    [
        pytest.param(Ack(1, True), Outcome.ACKED, id="success"),
        pytest.param(failed(1, "Duplicate"), Outcome.ACKED, id="the first one had arrived"),
        pytest.param(failed(1, "Forbidden"), Outcome.REFUSED, id="no right"),
        pytest.param(failed(1, "BadRequest"), Outcome.REFUSED, id="no sense"),
    ],
)
def test_an_ack_settles(ack: Ack, outcome: Outcome) -> None:
    unacked = Unacked(CODEC)
    unacked.add(publish(b"x"), now=0.0)
    assert unacked.receive_ack(ack, now=0.1) == Settled(nobody, outcome)
    assert len(unacked) == 0
    assert unacked.receive_ack(ack, now=0.2) is None


def test_a_failure_of_the_service_is_tried_again_under_the_same_id_and_then_lost() -> None:
    unacked = Unacked(CODEC)
    message = unacked.add(publish(b"x"), now=0.0)
    failure = failed(1, "InternalServerError")

    assert unacked.receive_ack(failure, now=0.0) is None
    assert unacked.next_resend(now=0.0) is None
    assert unacked.next_deadline() == 0.5
    unacked.handle_deadline(now=0.5)
    assert unacked.next_resend(now=0.5) == message
    assert unacked.next_resend(now=0.5) is None

    assert unacked.receive_ack(failure, now=1.0) is None
    unacked.handle_deadline(now=2.0)
    assert unacked.next_resend(now=2.0) == message

    assert unacked.receive_ack(failure, now=3.0) is None
    unacked.handle_deadline(now=5.0)
    assert unacked.next_resend(now=5.0) == message

    assert unacked.receive_ack(failure, now=6.0) == Settled(nobody, Outcome.LOST)
    assert unacked.next_deadline() is None


def test_after_a_recovery_all_is_sent_again_in_order() -> None:
    unacked = Unacked(CODEC)
    messages = [unacked.add(publish(data), now=0.0) for data in (b"a", b"b", b"c")]
    unacked.link_recovered()
    unacked.receive_ack(Ack(2, True), now=1.0)  # it had crossed the drop
    assert unacked.next_resend(now=1.0) == messages[0]
    assert unacked.next_resend(now=1.0) == messages[2]
    assert unacked.next_resend(now=1.0) is None


def test_what_is_abandoned_is_lost() -> None:
    unacked = Unacked(CODEC)
    unacked.add(publish(b"x"), now=0.0)
    unacked.add(publish(b"y"), now=0.0)
    assert unacked.abandon() == [Settled(nobody, Outcome.LOST)] * 2
    assert len(unacked) == 0


def test_a_message_that_the_service_would_die_of_is_not_sent() -> None:
    unacked = Unacked(CODEC)
    with pytest.raises(LimitExceeded, match="at most 1000000"):
        unacked.add(publish(bytes(1_000_000)), now=0.0)
    assert len(unacked) == 0
    assert CODEC.decode_upstream(unacked.add(publish(b"x"), now=0.0)) == SendToGroup(
        "out.a", b"x", 1
    )


def test_the_largest_message_fits() -> None:
    unacked = Unacked(CODEC)
    assert len(unacked.add(publish(bytes(999_950)), now=0.0)) <= 1_000_000


def test_bulk_stops_at_256_messages_and_what_is_urgent_has_a_reserve() -> None:
    unacked = Unacked(CODEC)
    for _ in range(255):
        unacked.add(publish(b"x"), now=0.0)
    assert unacked.room is Room.ANY
    unacked.add(publish(b"x"), now=0.0)
    assert unacked.room is Room.URGENT
    for _ in range(64):
        unacked.add(publish(b"x"), now=0.0)
    assert unacked.room is Room.NONE


def test_bulk_stops_at_4_mib_whatever_the_path_carries() -> None:
    unacked = Unacked(CODEC)
    unacked.flow.window = 16 * 1024 * 1024
    for _ in range(3):
        unacked.add(publish(bytes(990_000)), now=0.0)
    assert unacked.room is Room.ANY
    unacked.add(publish(bytes(990_000)), now=0.0)
    assert unacked.room is Room.URGENT
    unacked.add(publish(bytes(990_000)), now=0.0)
    assert unacked.room is Room.NONE


def test_bulk_stops_at_what_the_path_carries() -> None:
    unacked = Unacked(CODEC)
    size = unacked.flow.window
    unacked.add(publish(bytes(size)), now=0.0)
    assert unacked.room is Room.URGENT
    unacked.receive_ack(Ack(1, True), now=0.1)
    assert unacked.room is Room.ANY


def test_resending_comes_before_bulk() -> None:
    unacked = Unacked(CODEC)
    unacked.add(publish(b"x"), now=0.0)
    unacked.link_recovered()
    assert unacked.room is Room.URGENT
    unacked.next_resend(now=0.0)
    assert unacked.room is Room.ANY


def test_the_ack_of_what_was_sent_twice_measures_nothing() -> None:
    unacked = Unacked(CODEC)
    unacked.add(publish(b"x"), now=0.0)
    assert unacked.round_trip(Ack(1, True), now=0.25) == 0.25
    unacked.link_recovered()
    unacked.next_resend(now=5.0)
    assert unacked.round_trip(Ack(1, True), now=5.25) is None
    assert unacked.round_trip(Ack(9, True), now=5.25) is None
