"""Screenplays of the channel: what is reported, what it says, what it wants done."""

from __future__ import annotations

import pytest

from sidecar.errors import (
    ChannelError,
    NetworkFailure,
    NoToken,
    RunEnded,
    Superseded,
    TokenRefused,
    TooManyRequests,
)
from sidecar.protocol.channel import ChannelProtocol
from sidecar.protocol.channel_events import Dial, Down, Opened, Received, Recover, State
from sidecar.protocol.publish import Outcome, Publish, Settled
from sidecar.protocol.ratelimit import RateLimit
from sidecar.protocol.unacked import Room
from sidecar.protocol.webpubsub import codec_for
from sidecar.protocol.webpubsub.frames import (
    JSON_SUBPROTOCOL,
    Ack,
    Connected,
    Disconnected,
    Downstream,
    Message,
    Ping,
    Pong,
    SendToGroup,
    SequenceAck,
    Upstream,
)

CODEC = codec_for(JSON_SUBPROTOCOL)
DIAL = Dial(timeout=10.0)


class Script:
    """A channel that speaks frames, so that a test reads as a dialogue."""

    def __init__(self, rate: RateLimit | None = None) -> None:
        self.channel = ChannelProtocol(CODEC, random=lambda: 1.0, rate=rate)

    def hears(self, *frames: Downstream, now: float) -> None:
        for frame in frames:
            self.channel.receive_message(CODEC.encode_downstream(frame), now=now)

    def control(self) -> list[Upstream]:
        frames = []
        while (message := self.channel.next_control()) is not None:
            frames.append(CODEC.decode_upstream(message))
        return frames

    def sends(self, data: bytes, *, now: float) -> Upstream:
        publish = Publish("out.a", data, None, nobody, urgent=False)
        return CODEC.decode_upstream(self.channel.publish(publish, now=now))

    def resends(self, *, now: float) -> list[Upstream]:
        frames = []
        while (message := self.channel.next_resend(now=now)) is not None:
            frames.append(CODEC.decode_upstream(message))
        return frames

    def reasons(self) -> list[str]:
        """Of the `Down` events; there must be no others."""
        return [error.reason for error in self._downs()]

    def told(self) -> list[str]:
        """What the `Down` events say; there must be no others."""
        return [str(error) for error in self._downs()]

    def _downs(self) -> list[ChannelError]:
        events = self.channel.events()
        assert all(isinstance(event, Down) for event in events), events
        return [event.error for event in events if isinstance(event, Down)]


def nobody(outcome: Outcome) -> None:
    """Nobody is told."""


def message(number: int, data: bytes = b"m") -> Message:
    return Message("group", data, "in.a", sequence_id=number)


def opened() -> Script:
    """A channel that is open as connection c1 since time 0."""
    script = Script()
    script.channel.start(now=0.0)
    script.channel.connection_opened(now=0.0)
    script.hears(Connected("c1", "u", "r1"), now=0.0)
    assert script.channel.actions() == [DIAL]
    assert script.channel.events() == [Opened(fresh=True)]
    return script


def recovering() -> Script:
    """A channel whose good connection c1 was lost at time 100."""
    script = opened()
    script.channel.connection_lost(now=100.0)
    assert script.channel.actions() == [Recover("c1", "r1", timeout=10.0)]
    assert script.reasons() == ["network"]
    return script


# Opening ---------------------------------------------------------------------------------


def test_it_is_open_once_the_service_says_connected() -> None:
    script = Script()
    channel = script.channel
    assert channel.state is State.STOPPED
    channel.start(now=0.0)
    assert channel.state is State.CONNECTING
    channel.connection_opened(now=0.1)
    assert channel.events() == []
    assert channel.room(now=0.1) is Room.NONE
    script.hears(Connected("c1", None, "r1"), now=0.2)
    assert channel.state is State.OPEN
    assert channel.events() == [Opened(fresh=True)]
    assert (channel.connection_id, channel.connected_since) == ("c1", 0.2)
    assert channel.room(now=0.2) is Room.ANY


def test_a_hub_that_never_says_connected_is_given_up() -> None:
    script = Script()
    script.channel.start(now=0.0)
    script.channel.connection_opened(now=1.0)
    assert script.channel.next_deadline() == 11.0
    script.channel.handle_deadline(now=11.0)
    assert not script.channel.is_linked
    assert script.channel.state is State.WAITING
    assert script.reasons() == ["network"]


def test_connected_may_come_again_and_the_newest_token_counts() -> None:
    script = opened()
    script.hears(Connected("c1", "u", "r2"), now=50.0)
    assert script.channel.events() == []
    script.channel.connection_lost(now=100.0)
    assert script.channel.actions() == [Recover("c1", "r2", timeout=10.0)]


def test_unknown_frames_are_ignored() -> None:
    script = opened()
    script.channel.receive_message('{"type":"streamAck","streamId":"s"}', now=1.0)
    script.hears(Pong(), Ack(99, True), now=1.0)
    assert script.channel.events() == []
    assert script.channel.is_linked


def test_a_recovery_token_does_not_show() -> None:
    assert "secret" not in repr(Recover("c1", "secret", timeout=10.0))


# Messages --------------------------------------------------------------------------------


def test_a_message_is_passed_on_once_and_acknowledged_without_waiting_for_anybody() -> None:
    script = opened()
    script.hears(message(1), message(2), message(2), message(1), now=1.0)
    assert script.channel.events() == [Received(message(1)), Received(message(2))]
    assert script.control() == []
    assert script.channel.next_deadline() == 1.1
    script.channel.handle_deadline(now=1.1)
    assert script.channel.has_control
    assert script.control() == [SequenceAck(2)]
    assert script.control() == []


def test_a_burst_is_acknowledged_after_64_messages() -> None:
    script = opened()
    script.hears(*[message(number) for number in range(1, 65)], now=1.0)
    assert script.control() == [SequenceAck(64)]


def test_messages_without_a_number_are_all_passed_on() -> None:
    script = opened()
    plain = Message("server", b"m")
    script.hears(plain, plain, now=1.0)
    assert script.channel.events() == [Received(plain), Received(plain)]
    script.channel.handle_deadline(now=1.2)
    assert script.control() == []


def test_a_malformed_frame_costs_the_connection_and_is_not_fetched_again() -> None:
    script = opened()
    script.channel.receive_message("{", now=50.0)
    assert not script.channel.is_linked
    assert script.channel.state is State.WAITING
    [down] = script.channel.events()
    assert isinstance(down, Down)
    assert "cannot read" in str(down.error)
    assert script.channel.next_deadline() == 50.25


def test_what_arrives_on_a_link_already_given_up_is_ignored() -> None:
    script = opened()
    script.channel.connection_unreadable("frame of 2 MiB", now=50.0)
    script.channel.events()
    script.hears(message(1), now=50.1)
    script.channel.connection_lost(now=50.2)
    assert script.channel.events() == []
    assert script.channel.next_deadline() == 50.25


# Silence ---------------------------------------------------------------------------------


def test_an_idle_link_is_asked_every_20_s_and_lives_while_it_answers() -> None:
    script = opened()
    assert script.channel.next_deadline() == 20.0
    script.channel.handle_deadline(now=20.0)
    assert script.control() == [Ping()]
    script.hears(Pong(), now=20.5)
    assert script.channel.counters.round_trip == 0.5
    assert script.channel.next_deadline() == 40.5


def test_a_link_that_does_not_answer_is_dead_and_recovered() -> None:
    script = opened()
    script.channel.handle_deadline(now=20.0)
    script.control()
    assert script.channel.next_deadline() == 30.0
    script.channel.handle_deadline(now=30.0)
    assert not script.channel.is_linked
    assert script.reasons() == ["network"]
    assert script.channel.actions() == [Recover("c1", "r1", timeout=10.0)]


# Recovery --------------------------------------------------------------------------------


def test_a_recovery_counts_once_anything_is_heard() -> None:
    script = recovering()
    script.channel.connection_opened(now=100.1)
    assert script.channel.state is State.RECOVERING
    assert script.control() == [Ping()]
    script.hears(Pong(), now=100.2)
    assert script.channel.state is State.OPEN
    assert script.channel.events() == [Opened(fresh=False)]


def test_connected_on_a_recovery_is_no_new_connection() -> None:
    script = recovering()
    script.channel.connection_opened(now=100.1)
    script.hears(Connected("c1", "u", "r2"), now=100.2)
    assert script.channel.events() == [Opened(fresh=False)]
    assert script.channel.counters.recoveries == 1
    assert script.channel.connected_since == 0.0


def test_sequence_ids_go_on_over_a_recovery() -> None:
    script = opened()
    script.hears(message(1), message(2), now=99.0)
    script.channel.events()
    script.channel.connection_lost(now=100.0)
    script.channel.connection_opened(now=100.1)
    script.hears(message(2), message(3), now=100.2)  # the service repeats what was not acked
    events = script.channel.events()
    assert isinstance(events[0], Down)
    assert events[1:] == [Opened(fresh=False), Received(message(3))]
    assert script.control() == [Ping(), SequenceAck(3)]


def test_publishes_are_sent_again_under_the_same_id() -> None:
    script = opened()
    assert script.sends(b"x", now=99.0) == SendToGroup("out.a", b"x", 1)
    assert script.sends(b"y", now=99.0) == SendToGroup("out.a", b"y", 2)
    script.hears(Ack(1, True), now=99.5)
    assert script.channel.events() == [Settled(nobody, Outcome.ACKED)]
    script.channel.connection_lost(now=100.0)
    script.channel.connection_opened(now=100.1)
    assert script.resends(now=100.1) == []
    script.hears(Connected("c1", "u", "r2"), now=100.2)
    assert script.resends(now=100.2) == [SendToGroup("out.a", b"y", 2)]
    assert script.sends(b"z", now=100.3) == SendToGroup("out.a", b"z", 3)
    script.channel.events()
    script.hears(Ack(2, False, "Duplicate", ""), now=100.4)
    assert script.channel.events() == [Settled(nobody, Outcome.ACKED)]


def test_recovery_is_given_up_30_s_after_the_drop_however_often_it_was_tried() -> None:
    script = recovering()
    channel = script.channel
    channel.connection_refused(NetworkFailure("no route"), now=110.0)
    assert channel.next_deadline() == 110.25
    channel.handle_deadline(now=110.25)
    assert channel.actions() == [Recover("c1", "r1", timeout=10.0)]
    channel.connection_refused(NetworkFailure("no route"), now=120.25)
    channel.handle_deadline(now=120.75)
    assert channel.actions() == [Recover("c1", "r1", timeout=9.25)]
    channel.connection_refused(NetworkFailure("no route"), now=129.5)
    assert channel.next_deadline() == 130.0
    channel.handle_deadline(now=130.0)
    assert channel.actions() == []
    assert channel.state is State.WAITING
    channel.handle_deadline(now=130.25)
    assert channel.actions() == [DIAL]


@pytest.mark.parametrize("status", [None, 502, 503, 429])
def test_a_recovery_is_tried_again_after_what_may_pass(status: int | None) -> None:
    script = recovering()
    script.channel.connection_refused(NetworkFailure("x"), now=101.0, status=status)
    assert script.channel.state is State.RECOVERING
    assert script.channel.events() == []  # the reason is the one told before


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_recovery_is_given_up_after_an_http_4xx(status: int) -> None:
    script = recovering()
    script.channel.connection_refused(TokenRefused("x"), now=101.0, status=status)
    assert script.channel.state is State.WAITING
    assert script.reasons() == ["refused"]


def test_1008_means_a_new_connection_and_what_was_unacknowledged_is_lost() -> None:
    script = opened()
    script.sends(b"x", now=99.0)
    script.channel.connection_lost(now=100.0)
    script.channel.actions()
    script.channel.connection_opened(now=100.1)
    script.channel.connection_lost(now=100.2, close_code=1008, reason="unknown")
    down, forgotten, lost = script.channel.events()
    assert isinstance(down, Down)
    assert isinstance(forgotten, Down)
    assert forgotten.error.reason == "replaced"
    assert lost == Settled(nobody, Outcome.LOST)
    assert script.channel.next_deadline() == pytest.approx(100.45)
    script.channel.handle_deadline(now=100.5)
    assert script.channel.actions() == [DIAL]


def test_everything_begins_again_on_a_new_connection() -> None:
    script = opened()
    script.hears(message(7), now=1.0)
    script.sends(b"x", now=1.0)
    script.channel.connection_lost(now=100.0, close_code=1008)
    script.channel.handle_deadline(now=101.0)
    script.channel.connection_opened(now=101.0)
    script.hears(Connected("c2", "u", "r9"), message(1), now=101.1)
    assert script.channel.events()[-2:] == [Opened(fresh=True), Received(message(1))]
    assert script.resends(now=101.1) == []
    assert script.sends(b"y", now=101.1) == SendToGroup("out.a", b"y", 1)
    assert script.channel.counters.connections == 2


def test_a_service_that_answers_a_recovery_with_a_new_connection_is_believed() -> None:
    script = opened()
    script.sends(b"x", now=99.0)
    script.channel.connection_lost(now=100.0)
    script.channel.events()
    script.channel.connection_opened(now=100.1)
    script.hears(Connected("c2", "u", "r9"), message(1), now=100.2)
    assert script.channel.events() == [
        Settled(nobody, Outcome.LOST),
        Opened(fresh=True),
        Received(message(1)),
    ]


def test_without_a_reconnection_token_there_is_no_recovery() -> None:
    script = Script()
    script.channel.start(now=0.0)
    script.channel.connection_opened(now=0.0)
    script.hears(Connected("c1"), now=0.0)
    script.channel.connection_lost(now=100.0)
    assert script.channel.state is State.WAITING


def test_the_reason_of_a_goodbye_is_kept() -> None:
    script = opened()
    script.hears(Disconnected("run ended"), now=100.0)
    script.channel.connection_lost(now=100.0, close_code=1000)
    [down] = script.channel.events()
    assert isinstance(down, Down)
    assert down.error.reason == "replaced"
    assert "run ended" in str(down.error)
    # It does not say whether a recovery will work (client-spec 1.4): the service decides.
    assert script.channel.state is State.RECOVERING


def test_a_message_of_ours_that_broke_the_session_is_called_our_defect() -> None:
    script = opened()
    script.channel.connection_lost(now=100.0, close_code=1009, reason="too big")
    [down] = script.channel.events()
    assert isinstance(down, Down)
    assert "our defect" in str(down.error)
    assert script.channel.state is State.WAITING


# Backing off -----------------------------------------------------------------------------


def test_dials_are_repeated_for_ever_with_growing_delays() -> None:
    script = Script()
    script.channel.start(now=0.0)
    delays = []
    for attempt in range(1, 8):
        assert script.channel.actions() == [DIAL]
        assert script.channel.attempts == attempt
        script.channel.connection_refused(NetworkFailure("no route"), now=0.0)
        deadline = script.channel.next_deadline()
        assert deadline is not None
        delays.append(deadline)
        script.channel.handle_deadline(now=deadline)
    assert delays == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert script.reasons() == ["network"]


@pytest.mark.parametrize("error", [TokenRefused("x"), NoToken("x")])
def test_a_refused_token_is_tried_less_often(error: NoToken | TokenRefused) -> None:
    script = Script()
    script.channel.start(now=0.0)
    script.channel.connection_refused(error, now=0.0)
    assert script.channel.next_deadline() == 1.0


@pytest.mark.parametrize("error", [Superseded("x"), RunEnded("x")])
def test_what_is_final_waits_for_another_token_and_for_nothing_else(error: ChannelError) -> None:
    script = Script()
    script.channel.start(now=0.0)
    script.channel.actions()
    script.channel.connection_refused(error, now=0.0)
    assert script.channel.next_deadline() is None
    script.channel.handle_deadline(now=1e9)
    assert script.channel.actions() == []
    script.channel.token_changed(now=1e9)
    assert script.channel.actions() == [DIAL]


def test_who_is_told_when_to_ask_again_asks_then() -> None:
    script = Script()
    script.channel.start(now=0.0)
    script.channel.connection_refused(TooManyRequests("x", retry_after=7.0), now=10.0)
    assert script.channel.next_deadline() == 17.0


def test_a_changed_token_ends_the_back_off_at_once() -> None:
    script = Script()
    script.channel.start(now=0.0)
    script.channel.actions()
    script.channel.connection_refused(TokenRefused("x"), now=0.0)
    script.channel.token_changed(now=0.1)
    assert script.channel.actions() == [DIAL]
    script.channel.token_changed(now=0.2)  # too late: it is dialling already
    assert script.channel.actions() == []


def test_a_new_reason_is_told_while_down() -> None:
    script = Script()
    script.channel.start(now=0.0)
    failures = [
        NetworkFailure("no answer in 1 s"),
        NetworkFailure("no answer in 2 s"),
        NetworkFailure("no certificate"),
        NetworkFailure("no answer in 4 s"),
        TokenRefused("x"),
    ]
    for now, failure in enumerate(failures):
        script.channel.connection_refused(failure, now=now)
        script.channel.handle_deadline(now=now + 0.9)
    assert script.told() == ["no answer in 1 s", "no certificate", "x"]
    assert str(script.channel.failure) == "x"


def test_a_hub_that_says_something_else_each_time_is_not_told_for_ever() -> None:
    script = Script()
    script.channel.start(now=0.0)
    for now in range(20):
        script.channel.connection_refused(NetworkFailure("x" * now), now=now)
        script.channel.token_changed(now=now)
    assert len(script.told()) == 8


def test_a_link_that_breaks_at_once_does_not_reset_the_back_off() -> None:
    script = opened()
    for now, delay in [(1.0, 0.25), (2.0, 0.5), (3.0, 1.0)]:
        script.channel.connection_lost(now=now)
        assert script.channel.next_deadline() == now + delay
        script.channel.handle_deadline(now=now + delay)
        script.channel.connection_opened(now=now)
        script.hears(Pong(), now=now)


def test_a_link_that_held_for_10_s_does() -> None:
    script = opened()
    script.channel.connection_lost(now=1.0)
    script.channel.handle_deadline(now=1.25)
    script.channel.connection_opened(now=2.0)
    script.hears(Pong(), now=2.0)
    script.channel.actions()
    script.channel.connection_lost(now=12.0)
    assert script.channel.actions() == [Recover("c1", "r1", timeout=10.0)]


# Rates and the end -----------------------------------------------------------------------


def test_beyond_the_rate_only_what_is_urgent_goes() -> None:
    script = Script(rate=RateLimit(messages=10.0, burst_messages=2))
    script.channel.start(now=0.0)
    script.channel.connection_opened(now=0.0, limited=True)
    script.hears(Connected("c1", "u", "r1"), now=0.0)
    script.sends(b"x", now=0.0)
    assert script.channel.room(now=0.0) is Room.ANY
    script.sends(b"x", now=0.0)
    assert script.channel.room(now=0.0) is Room.URGENT
    assert script.channel.next_deadline() == pytest.approx(0.1)
    script.channel.handle_deadline(now=0.1)
    assert script.channel.room(now=0.1) is Room.ANY
    assert script.channel.next_deadline() == 20.0


def test_the_rate_does_not_hold_on_a_link_that_is_not_limited() -> None:
    script = Script(rate=RateLimit(messages=10.0, burst_messages=1))
    script.channel.start(now=0.0)
    script.channel.connection_opened(now=0.0)
    script.hears(Connected("c1", "u", "r1"), now=0.0)
    for _ in range(100):
        script.sends(b"x", now=0.0)
    assert script.channel.room(now=0.0) is Room.ANY


def test_closing_hands_everything_back_and_wants_nothing_more() -> None:
    script = opened()
    script.sends(b"x", now=1.0)
    script.channel.close(now=2.0)
    assert script.channel.state is State.CLOSED
    assert script.channel.events() == [Settled(nobody, Outcome.LOST)]
    assert script.channel.actions() == []
    assert script.channel.next_deadline() is None
    assert not script.channel.is_linked


def test_what_went_through_is_counted() -> None:
    script = opened()
    before = script.channel.counters.bytes_in
    script.hears(message(1), now=1.0)
    script.sends(b"x", now=1.0)
    counters = script.channel.counters
    assert (counters.messages_in, counters.messages_out) == (2, 1)
    assert counters.bytes_in - before == len(CODEC.encode_downstream(message(1)))
    assert script.channel.unacked == 1
    assert script.channel.chunk == 64 * 1024
