"""Screenplays of a handover: two connections, frame by frame, with made-up times."""

from __future__ import annotations

import pytest

from sidecar.errors import NetworkFailure, ProtocolError, TokenRefused
from sidecar.protocol.channel import ChannelProtocol
from sidecar.protocol.channel_events import Dial, Down, Opened, Received, Recover, State
from sidecar.protocol.handover import DRAIN, HELD_MESSAGES, is_around_expiry
from sidecar.protocol.publish import Outcome, Publish, Settled
from sidecar.protocol.unacked import Room
from sidecar.protocol.webpubsub import codec_for
from sidecar.protocol.webpubsub.frames import (
    JSON_SUBPROTOCOL,
    Ack,
    Connected,
    Downstream,
    Message,
    Ping,
    Pong,
    SequenceAck,
    Upstream,
)

CODEC = codec_for(JSON_SUBPROTOCOL)


class Script:
    """A channel that is open as c1 since time 0; `old` and `new` are its two websockets."""

    def __init__(self) -> None:
        self.channel = ChannelProtocol(CODEC, random=lambda: 1.0)
        self.channel.start(now=0.0)
        self.channel.connection_opened(now=0.0)
        self.old(Connected("c1", "u", "r1"), now=0.0)
        self.channel.actions()
        self.channel.events()

    def old(self, *frames: Downstream, now: float) -> None:
        for frame in frames:
            self.channel.receive_message(CODEC.encode_downstream(frame), now=now)

    def new(self, *frames: Downstream, now: float) -> None:
        for frame in frames:
            self.channel.receive_from_successor(CODEC.encode_downstream(frame), now=now)

    def control(self) -> list[Upstream]:
        frames = []
        while (message := self.channel.next_control()) is not None:
            frames.append(CODEC.decode_upstream(message))
        return frames

    def publishes(self, data: bytes, *, now: float) -> None:
        self.channel.publish(Publish("out.a", data, None, nobody, urgent=False), now=now)

    def hands_over(self, *, now: float) -> None:
        """As far as `connected` on the successor."""
        self.channel.successor_opened(now=now)
        self.new(Connected("c2", "u", "r2"), now=now)


def nobody(outcome: Outcome) -> None:
    """Nobody is told."""


def message(number: int) -> Message:
    return Message("group", b"m%d" % number, "in.a", sequence_id=number)


def test_until_the_hub_says_connected_the_old_connection_does_all_the_work() -> None:
    script = Script()
    script.channel.successor_opened(now=10.0)
    assert script.channel.room(now=10.0) is Room.ANY
    assert not script.channel.is_handing_over
    assert script.control() == []


def test_then_it_is_asked_for_what_is_under_way_and_takes_nothing_more() -> None:
    script = Script()
    script.hands_over(now=10.0)
    assert script.channel.is_handing_over
    assert script.channel.room(now=10.0) is Room.NONE
    assert script.control() == [Ping()]
    assert script.channel.connection_id == "c1"


def test_it_takes_over_when_all_is_acknowledged_and_the_pong_has_come() -> None:
    script = Script()
    script.publishes(b"x", now=9.0)
    script.hands_over(now=10.0)
    script.old(Pong(), now=10.1)
    assert script.channel.connection_id == "c1"
    serving = script.channel.websocket
    script.old(Ack(1, True), now=10.2)
    assert script.channel.connection_id == "c2"
    assert script.channel.websocket == serving + 1
    assert script.channel.events() == [Settled(nobody, Outcome.ACKED), Opened(fresh=True)]
    assert script.channel.room(now=10.2) is Room.ANY
    assert script.channel.counters.handovers == 1
    assert script.channel.connected_since == 10.0


def test_a_pong_that_was_on_its_way_before_proves_nothing() -> None:
    script = Script()
    script.channel.handle_deadline(now=20.0)  # the idle link is asked
    assert script.control() == [Ping()]
    script.hands_over(now=20.1)
    script.old(Pong(), now=20.2)
    assert script.channel.connection_id == "c1"
    script.old(Pong(), now=20.3)
    assert script.channel.connection_id == "c2"


def test_what_comes_on_the_new_one_waits_for_what_comes_on_the_old() -> None:
    script = Script()
    script.channel.successor_opened(now=10.0)
    script.new(Connected("c2", "u", "r2"), message(1), now=10.0)
    script.old(message(7), now=10.1)
    assert script.channel.events() == [Received(message(7))]
    script.new(message(2), message(2), now=10.2)  # a repeated one is dropped, as ever
    script.old(Pong(), now=10.3)
    assert script.channel.events() == [
        Opened(fresh=True),
        Received(message(1)),
        Received(message(2)),
    ]
    script.channel.handle_deadline(now=10.4)
    assert script.control() == [SequenceAck(2)]


def test_the_old_one_has_two_seconds_and_the_rest_goes_back_to_its_owners() -> None:
    script = Script()
    script.publishes(b"x", now=9.0)
    script.hands_over(now=10.0)
    assert script.channel.next_deadline() == 10.0 + DRAIN
    script.channel.handle_deadline(now=11.9)
    assert script.channel.connection_id == "c1"
    script.channel.handle_deadline(now=12.0)
    assert script.channel.connection_id == "c2"
    assert script.channel.events() == [Settled(nobody, Outcome.LOST), Opened(fresh=True)]


def test_a_flood_on_the_new_one_does_not_wait_for_the_pong() -> None:
    script = Script()
    script.hands_over(now=10.0)
    script.new(*[message(number) for number in range(1, HELD_MESSAGES)], now=10.1)
    assert script.channel.connection_id == "c1"
    script.new(message(HELD_MESSAGES), now=10.2)
    assert script.channel.connection_id == "c2"
    assert len(script.channel.events()) == 1 + HELD_MESSAGES


@pytest.mark.parametrize("close_code", [None, 1000, 1001, 1008])
def test_an_old_connection_that_breaks_while_the_new_one_stands_ready_is_no_drop(
    close_code: int | None,
) -> None:
    script = Script()
    script.publishes(b"x", now=9.0)
    script.hands_over(now=10.0)
    script.channel.connection_lost(now=10.1, close_code=close_code)
    assert script.channel.state is State.OPEN
    assert script.channel.is_linked
    assert script.channel.connection_id == "c2"
    assert script.channel.events() == [Settled(nobody, Outcome.LOST), Opened(fresh=True)]
    assert script.channel.actions() == []


def test_one_that_breaks_before_is_recovered_and_the_new_one_given_up() -> None:
    script = Script()
    script.channel.successor_opened(now=50.0)
    script.channel.connection_lost(now=50.1)
    assert script.channel.actions() == [Recover("c1", "r1", timeout=10.0)]
    script.new(Connected("c2", "u", "r2"), now=50.2)  # too late: it was given up
    assert script.channel.connection_id == "c1"
    [down] = script.channel.events()
    assert isinstance(down, Down)


def test_a_successor_that_is_lost_costs_nothing_and_is_tried_again_ever_later() -> None:
    script = Script()
    delays = []
    for _ in range(3):
        script.hands_over(now=10.0)
        delays.append(script.channel.successor_lost(NetworkFailure("broke"), now=10.1))
    assert delays == [0.25, 0.5, 1.0]
    assert script.channel.room(now=10.1) is Room.ANY
    assert script.channel.events() == []
    assert str(script.channel.failure) == "broke"


def test_a_successor_that_cannot_be_read_is_of_no_use() -> None:
    script = Script()
    script.channel.successor_opened(now=10.0)
    with pytest.raises(ProtocolError):
        script.channel.receive_from_successor("{", now=10.1)


def test_a_dead_link_is_noticed_on_the_old_one_too() -> None:
    script = Script()
    script.hands_over(now=10.0)
    assert script.channel.next_deadline() == 12.0
    script.channel.handle_deadline(now=60.0)
    assert script.channel.connection_id == "c2"


def test_closing_ends_both() -> None:
    script = Script()
    script.hands_over(now=10.0)
    script.channel.close(now=10.1)
    assert script.channel.next_deadline() is None
    script.new(message(1), now=10.2)
    assert script.channel.events() == []


# Another token while the channel is down -------------------------------------------------


def test_another_token_ends_a_recovery_for_a_dial() -> None:
    script = Script()
    script.publishes(b"x", now=99.0)
    script.channel.connection_lost(now=100.0)
    script.channel.actions()
    script.channel.events()
    script.channel.redial(now=101.0)
    assert script.channel.actions() == [Dial(timeout=10.0)]
    assert script.channel.events() == [Settled(nobody, Outcome.LOST)]


def test_another_token_ends_the_back_off_of_what_was_refused_for_good() -> None:
    script = Script()
    script.channel.connection_lost(now=100.0, close_code=1008)
    script.channel.handle_deadline(now=101.0)
    script.channel.actions()
    refused = TokenRefused("no", retry_after=60.0)
    script.channel.connection_refused(refused, now=101.0)
    assert script.channel.next_deadline() == 161.0
    script.channel.redial(now=102.0)
    assert script.channel.actions() == [Dial(timeout=10.0)]


def test_while_open_nothing_is_dropped_for_it() -> None:
    script = Script()
    script.channel.redial(now=10.0)
    assert script.channel.is_linked
    assert script.channel.actions() == []


# Who ends connections with their tokens ---------------------------------------------------


@pytest.mark.parametrize(
    "closed_at, close_code, learnt",
    [(300.5, 1008, True), (299.0, 1000, True), (300.5, None, False), (200.0, 1008, False)],
)
def test_a_hub_that_closes_when_the_token_lapses_is_remembered(
    closed_at: float, close_code: int | None, learnt: bool
) -> None:
    script = Script()
    script.channel.token_lapses_at = 300.0
    script.channel.connection_lost(now=closed_at, close_code=close_code)
    assert script.channel.ends_at_expiry is learnt


@pytest.mark.parametrize(
    "late, expected", [(-3.0, False), (0.0, True), (15.0, True), (16.0, False)]
)
def test_around_the_end_of_a_token(late: float, expected: bool) -> None:
    assert is_around_expiry(late) is expected
