"""One session without sockets: numbers, buffers, acks and times."""

from __future__ import annotations

from sidecar.hub.delivery import Delivery
from sidecar.hub.permissions import Permissions
from sidecar.hub.session import AckMemory, HubSession
from sidecar.hub.settings import HubSettings
from sidecar.protocol.webpubsub import codec_for
from sidecar.protocol.webpubsub.frames import (
    Ack,
    Connected,
    Downstream,
    Message,
    Pong,
)

RELIABLE = "protobuf.reliable.webpubsub.azure.v1"
PLAIN = "protobuf.webpubsub.azure.v1"


class FakeLink:
    """Remembers that it was woken."""

    def __init__(self) -> None:
        self.wakes = 0

    def wake(self) -> None:
        self.wakes += 1

    def close(self, code: int, reason: str = "") -> None:
        raise AssertionError("a session closes nothing by itself")

    def abort(self) -> None:
        raise AssertionError("a session cuts nothing by itself")


def session_over(protocol: str = RELIABLE) -> HubSession:
    limits = HubSettings(max_unacked_messages=3, max_unacked_bytes=100)
    session = HubSession(
        "c1",
        "u",
        Permissions(),
        codec_for(protocol),
        is_reliable=protocol == RELIABLE,
        limits=limits,
    )
    session.attach(FakeLink(), Connected("c1", "u", "t1"))
    return session


def delivery(data: bytes, expires_at: float | None = None) -> Delivery:
    return Delivery(Message("server", data), expires_at)


def written(session: HubSession, now: float = 0.0) -> list[Downstream]:
    """All that the session gives its link now."""
    frames = []
    while (message := session.next_message(now=now)) is not None:
        frames.append(session.codec.decode_downstream(message))
    return frames


def data(frames: list[Downstream]) -> list[tuple[int | None, bytes]]:
    return [(frame.sequence_id, frame.data) for frame in frames if isinstance(frame, Message)]


def test_connected_comes_first_and_messages_are_numbered_from_one() -> None:
    session = session_over()
    session.deliver(delivery(b"a"))
    session.say(Pong())
    session.deliver(delivery(b"b"))
    assert written(session) == [
        Connected("c1", "u", "t1"),
        Message("server", b"a", sequence_id=1),
        Pong(),
        Message("server", b"b", sequence_id=2),
    ]


def test_a_plain_session_numbers_nothing() -> None:
    session = session_over(PLAIN)
    session.deliver(delivery(b"a"))
    assert data(written(session)) == [(None, b"a")]


def test_every_delivery_wakes_the_link() -> None:
    session = session_over()
    link = session.link
    assert isinstance(link, FakeLink)
    before = link.wakes
    session.deliver(delivery(b"a"))
    session.say(Pong())
    assert link.wakes == before + 2


def test_what_was_not_acknowledged_is_replayed_in_order_ahead_of_the_new() -> None:
    session = session_over()
    session.deliver(delivery(b"a"))
    session.deliver(delivery(b"b"))
    written(session)
    session.acknowledge(1)
    session.detach(now=10.0)
    session.deliver(delivery(b"c"))

    session.attach(FakeLink(), Connected("c1", "u", "t2"))
    frames = written(session)
    assert frames[0] == Connected("c1", "u", "t2")
    assert data(frames) == [(2, b"b"), (3, b"c")]


def test_an_ack_right_after_recovery_spares_the_replay() -> None:
    session = session_over()
    session.deliver(delivery(b"a"))
    session.deliver(delivery(b"b"))
    written(session)
    session.detach(now=10.0)
    session.attach(FakeLink(), Connected("c1"))
    session.acknowledge(1)
    assert data(written(session)) == [(2, b"b")]


def test_an_ack_from_the_future_releases_only_what_was_written() -> None:
    session = session_over()
    session.deliver(delivery(b"a"))
    written(session)
    session.deliver(delivery(b"b"))
    session.acknowledge(2**64 - 1)
    session.detach(now=0.0)
    session.attach(FakeLink(), Connected("c1"))
    assert data(written(session)) == [(2, b"b")]


def test_an_older_ack_changes_nothing() -> None:
    session = session_over()
    for text in (b"a", b"b", b"c"):
        session.deliver(delivery(text))
    written(session)
    session.acknowledge(2)
    session.acknowledge(1)
    session.detach(now=0.0)
    session.attach(FakeLink(), Connected("c1"))
    assert data(written(session)) == [(3, b"c")]


def test_the_buffer_ends_at_so_many_messages() -> None:
    session = session_over()
    assert [session.deliver(delivery(b"")) for _ in range(4)] == [True, True, True, False]


def test_the_buffer_ends_at_so_many_bytes_also_while_detached() -> None:
    session = session_over()
    session.detach(now=0.0)
    assert session.deliver(delivery(bytes(100)))
    assert not session.deliver(delivery(bytes(1)))


def test_acknowledged_messages_make_room() -> None:
    session = session_over()
    for _ in range(3):
        session.deliver(delivery(bytes(30)))
    written(session)
    session.acknowledge(2)
    assert session.deliver(delivery(bytes(70)))


def test_a_plain_session_counts_only_what_is_not_written() -> None:
    session = session_over(PLAIN)
    for _ in range(20):
        assert session.deliver(delivery(bytes(90)))
        written(session)
    session.deliver(delivery(bytes(90)))
    assert not session.deliver(delivery(bytes(90)))


def test_recovery_is_possible_until_the_retention_is_over() -> None:
    session = session_over()
    assert session.can_recover(now=99.0)  # takes over a WebSocket that is still there
    session.detach(now=100.0)
    assert session.can_recover(now=129.9)
    assert not session.has_lapsed(now=129.9)
    assert not session.can_recover(now=130.0)
    assert session.has_lapsed(now=130.0)


def test_a_plain_or_forgotten_or_ended_session_cannot_recover() -> None:
    plain = session_over(PLAIN)
    plain.detach(now=0.0)
    forgotten = session_over()
    forgotten.forget()
    forgotten.detach(now=0.0)
    ended = session_over()
    ended.end()
    assert not any(each.can_recover(now=0.0) for each in (plain, forgotten, ended))


def test_an_ended_session_takes_nothing_more() -> None:
    session = session_over()
    session.deliver(delivery(b"a"))
    session.end()
    assert session.deliver(delivery(b"b"))
    assert written(session) == []


def test_a_flushed_end_leaves_what_was_queued() -> None:
    session = session_over()
    session.deliver(delivery(b"a"))
    session.end(flush=True)
    assert data(written(session)) == [(1, b"a")]


def test_replies_die_with_their_websocket() -> None:
    session = session_over()
    written(session)
    session.say(Ack(1, True))
    session.detach(now=0.0)
    session.say(Ack(2, True))
    session.attach(FakeLink(), Connected("c1"))
    assert written(session) == [Connected("c1")]


def test_expired_messages_are_skipped_and_make_room() -> None:
    session = session_over()
    session.deliver(delivery(bytes(99), expires_at=5.0))
    session.deliver(delivery(b"b"))
    assert data(written(session, now=5.0)) == [(2, b"b")]
    assert session.deliver(delivery(bytes(99)))


def test_a_delayed_reply_waits_for_its_time() -> None:
    session = session_over()
    written(session)
    session.say(Ack(1, True), not_before=7.0)
    session.deliver(delivery(b"a"))
    assert session.next_deadline() == 7.0
    assert data(written(session, now=6.9)) == [(1, b"a")]
    assert written(session, now=7.0) == [Ack(1, True)]
    assert session.next_deadline() is None


def test_a_client_that_reads_no_replies_congests() -> None:
    session = session_over()
    written(session)
    for _ in range(256):
        session.say(Pong())
    assert not session.is_congested
    session.say(Pong())
    assert session.is_congested
    session.next_message(now=0.0)
    assert not session.is_congested


def test_the_latest_thousand_acks_are_remembered() -> None:
    memory = AckMemory()
    for ack_id in range(1001):
        memory.remember(ack_id)
    memory.remember(1000)
    assert 0 not in memory
    assert 1 in memory
    assert 1000 in memory
