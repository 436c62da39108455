"""Drops, recovery, and what ends a session: over real sockets."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.clock import ManualClock
from sidecar.hub import Hub
from sidecar.protocol.webpubsub.frames import (
    JSON_SUBPROTOCOL,
    Ack,
    JoinGroup,
    Ping,
    Pong,
    SendToGroup,
    SequenceAck,
)

ANY = ("webpubsub.sendToGroup", "webpubsub.joinLeaveGroup")


async def refused(hub: Hub, dial: Any, query: str) -> bool:
    """Whether a recovery is answered by an upgrade and close code 1008."""
    peer = await dial(hub, query=query, greeted=False)
    return bool(await peer.close_code() == 1008)


async def test_after_a_drop_nothing_is_lost_and_nothing_comes_twice(hub: Hub, dial: Any) -> None:
    member = await dial(hub, "m", ("g",))
    sender = await dial(hub, "s", (), ANY)
    for data in (b"1", b"2", b"3"):
        await sender.send(SendToGroup("g", data))
    assert [(await member.message()).data for _ in range(3)] == [b"1", b"2", b"3"]
    await member.send(SequenceAck(1), Ping())
    assert await member.receive() == Pong()  # so the sequence ack has been read

    await hub.drop("m")
    await sender.ask(SendToGroup("g", b"4", 1))
    again = await dial(hub, query=member.recovery)

    assert again.connected.connection_id == member.connected.connection_id
    assert again.connected.reconnection_token != member.connected.reconnection_token
    replayed = [await again.message() for _ in range(3)]
    assert [(each.sequence_id, each.data) for each in replayed] == [(2, b"2"), (3, b"3"), (4, b"4")]
    await sender.send(SendToGroup("g", b"5"))
    assert (await again.message()).sequence_id == 5


async def test_rights_groups_and_acks_survive_and_an_expired_access_token_is_ignored(
    hub: Hub, dial: Any
) -> None:
    peer = await dial(hub, "u", (), ANY)
    assert await peer.ask(JoinGroup("g", 1)) == Ack(1, True)
    await hub.drop("u")
    again = await dial(hub, query=f"{peer.recovery}&access_token=expired")
    assert (await again.ask(JoinGroup("g", 1))).error_name == "Duplicate"
    await again.send(SendToGroup("g", b"x", 2))
    assert (await again.message()).data == b"x"


async def test_every_newer_token_and_every_older_one_recovers(hub: Hub, dial: Any) -> None:
    peer = await dial(hub)
    await hub.drop("u")
    again = await dial(hub, query=peer.recovery)
    await hub.drop("u")
    await dial(hub, query=again.recovery)
    await hub.drop("u")
    assert await dial(hub, query=peer.recovery)


async def test_recovery_takes_over_a_socket_that_still_looks_alive(
    hub: Hub, dial: Any, until: Any
) -> None:
    first = await dial(hub, "m", ("g",))
    sender = await dial(hub, "s", (), ANY)
    second = await dial(hub, query=first.recovery)
    await sender.send(SendToGroup("g", b"x"))
    assert (await second.message()).data == b"x"
    await until(lambda: hub.stats().connections == 2)
    assert hub.stats().sessions == 2


@pytest.mark.parametrize("code", [1001, 1011, 3000])
async def test_other_close_codes_can_be_recovered(hub: Hub, dial: Any, code: int) -> None:
    peer = await dial(hub)
    await peer.websocket.close(code)
    assert (await dial(hub, query=peer.recovery)).connected.user_id == "u"


async def test_a_close_by_the_service_can_be_recovered_unless_it_is_1000(
    hub: Hub, dial: Any
) -> None:
    peer = await dial(hub)
    await hub.close("u", 1012, "service reload")
    assert await peer.close_code() == 1012
    again = await dial(hub, query=peer.recovery)
    await hub.close("u", 1000)
    assert await again.close_code() == 1000
    assert await refused(hub, dial, again.recovery)


async def test_the_subprotocol_stays(hub: Hub, dial: Any) -> None:
    peer = await dial(hub, "u", protocol=JSON_SUBPROTOCOL)
    await hub.drop("u")
    again = await dial(hub, query=peer.recovery, protocol=JSON_SUBPROTOCOL)
    assert again.websocket.subprotocol == JSON_SUBPROTOCOL


async def test_a_wrong_token_connection_or_hub_is_refused_and_harms_nobody(
    hub: Hub, dial: Any
) -> None:
    peer = await dial(hub, "u")
    other = await dial(hub, "v")
    mine = peer.connected.connection_id
    theirs = other.connected.reconnection_token
    assert await refused(hub, dial, f"awps_connection_id={mine}&awps_reconnection_token=x")
    assert await refused(hub, dial, f"awps_connection_id={mine}")
    assert await refused(hub, dial, f"awps_connection_id={mine}&awps_reconnection_token={theirs}")
    assert await refused(hub, dial, f"awps_connection_id=no&awps_reconnection_token={theirs}")
    await peer.send(Ping())
    assert await peer.receive() == Pong()


async def test_a_plain_connection_cannot_be_recovered(hub: Hub, dial: Any) -> None:
    peer = await dial(hub, "u", protocol="json.webpubsub.azure.v1")
    await hub.drop("u")
    assert hub.stats().sessions == 0
    assert await refused(hub, dial, f"awps_connection_id={peer.connected.connection_id}")


async def test_a_session_is_kept_for_the_retention_and_no_longer(serving: Any, dial: Any) -> None:
    clock = ManualClock()
    hub, _ = await serving(clock, retention=30.0)
    peer = await dial(hub, "u", ("g",))
    await hub.drop("u")
    clock.advance(29.9)
    again = await dial(hub, query=peer.recovery)
    await hub.drop("u")
    clock.advance(30.0)
    assert await refused(hub, dial, again.recovery)
    hub.expire()
    assert hub.stats().sessions == 0


async def test_a_forgotten_session_is_refused(hub: Hub, dial: Any) -> None:
    peer = await dial(hub)
    hub.forget("u")
    await peer.send(Ping())
    assert await peer.receive() == Pong()
    await hub.drop("u")
    assert await refused(hub, dial, peer.recovery)


async def test_too_many_unacknowledged_messages_end_a_connected_session(
    serving: Any, dial: Any
) -> None:
    hub, _ = await serving(max_unacked_messages=10)
    member = await dial(hub, "m", ("g",))
    sender = await dial(hub, "s", (), ANY)
    for number in range(11):
        assert (await sender.ask(SendToGroup("g", b"x", number))).success
    assert await member.close_code() == 1008
    assert await refused(hub, dial, member.recovery)
    assert hub.stats().sessions == 1


async def test_too_many_unacknowledged_bytes_end_a_detached_session(
    serving: Any, dial: Any
) -> None:
    hub, _ = await serving(max_unacked_bytes=1000)
    member = await dial(hub, "m", ("g",))
    sender = await dial(hub, "s", (), ANY)
    await hub.drop("m")
    assert (await sender.ask(SendToGroup("g", bytes(1000), 1))).success
    assert hub.stats().sessions == 2
    assert (await sender.ask(SendToGroup("g", b"x", 2))).success
    assert hub.stats().sessions == 1
    assert await refused(hub, dial, member.recovery)


async def test_an_acknowledging_member_gets_any_number_of_messages(serving: Any, dial: Any) -> None:
    hub, _ = await serving(max_unacked_messages=10)
    member = await dial(hub, "m", ("g",))
    sender = await dial(hub, "s", (), ANY)
    for number in range(1, 31):
        await sender.send(SendToGroup("g", b"x"))
        assert (await member.message()).sequence_id == number
        await member.send(SequenceAck(number))


@pytest.mark.slow
async def test_a_member_that_does_not_read_is_cut_off_at_the_bound(
    serving: Any, dial: Any, until: Any
) -> None:
    hub, _ = await serving(max_unacked_bytes=8 << 20)
    member = await dial(hub, "m", ("g",))
    member.websocket.transport.pause_reading()
    sender = await dial(hub, "s", (), ANY)
    for number in range(33):
        assert (await sender.ask(SendToGroup("g", bytes(256 << 10), number))).success
    await until(lambda: hub.stats().connections == 1)


async def test_messages_past_their_time_to_live_are_not_replayed(serving: Any, dial: Any) -> None:
    clock = ManualClock()
    hub, _ = await serving(clock)
    member = await dial(hub, "m", ("g",))
    sender = await dial(hub, "s", (), ANY)
    await hub.drop("m")
    await sender.ask(SendToGroup("g", b"short", 1, ttl=5))
    await sender.ask(SendToGroup("g", b"long", 2, ttl=60))
    await sender.ask(SendToGroup("g", b"unlimited", 3, ttl=0))
    clock.advance(10.0)
    again = await dial(hub, query=member.recovery)
    assert [(await again.message()).data for _ in range(2)] == [b"long", b"unlimited"]
