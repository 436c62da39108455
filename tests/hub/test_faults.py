"""The hub's faults: each does what it says, to whom it says, as often as it says."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage

from sidecar.clock import ManualClock
from sidecar.errors import Invalid
from sidecar.hub import Hub, HubSettings, serve
from sidecar.hub.faults import Cut, Direction
from sidecar.protocol.names import Grant
from sidecar.protocol.webpubsub.frames import Ack, Connected, Message, Ping, Pong, SendToGroup

ROLES = ("webpubsub.sendToGroup",)


def publish(ack_id: int) -> SendToGroup:
    return SendToGroup("g", b"x", ack_id=ack_id)


async def is_cut(peer: Any) -> bool:
    """Whether the connection ends without a close frame; what comes before is dropped."""
    with anyio.fail_after(5):
        try:
            while True:
                await peer.websocket.recv()
        except ConnectionClosed as closed:
            return closed.rcvd is None


async def test_the_connection_of_the_nth_frame_is_cut_and_its_ack_lost(hub: Hub, dial: Any) -> None:
    peer, watcher = await dial(hub, "u", roles=ROLES), await dial(hub, "v", ("g",))
    hub.faults.cut_after(Cut(2, user="u"))
    assert await peer.ask(publish(1)) == Ack(1, True)
    await peer.send(publish(2), publish(3))
    assert await is_cut(peer)
    assert [(await watcher.message()).data for _ in range(2)] == [b"x", b"x"]
    await watcher.send(Ping())
    assert await watcher.receive() == Pong(), "the third frame came after the cut"

    again = await dial(hub, query=peer.recovery)
    assert (await again.ask(publish(2))).error_name == "Duplicate"
    assert hub.faults.struck == {"cut_after": 1}


async def test_a_cut_on_the_way_out_strikes_as_often_as_told_and_can_close_and_forget(
    hub: Hub, dial: Any
) -> None:
    hub.faults.cut_after(
        Cut(2, direction=Direction.OUT, code=1012, reason="moving", forget=True, times=2)
    )
    for _ in range(2):
        peer = await dial(hub)  # its `connected` is the first frame
        await peer.send(Ping())
        assert await peer.close_code() == 1012
        refused = await dial(hub, query=peer.recovery, greeted=False)
        assert await refused.close_code() == 1008
    peer = await dial(hub)
    await peer.send(Ping(), Ping())
    assert [await peer.receive() for _ in range(2)] == [Pong(), Pong()]
    assert hub.faults.cuts == []


async def test_a_cut_counts_the_frames_of_its_users_alone(hub: Hub, dial: Any) -> None:
    hub.faults.cut_after(Cut(1, user="sandbox:*"))
    other, struck = await dial(hub, "control:a"), await dial(hub, "sandbox:a")
    await other.send(Ping())
    assert await other.receive() == Pong()
    await struck.send(Ping())
    assert await is_cut(struck)


async def test_lost_acks_are_of_frames_that_were_carried_out(hub: Hub, dial: Any) -> None:
    peer = await dial(hub, "u", ("g",), ROLES)
    hub.faults.lose_acks(2, user="u")
    await peer.send(publish(1), publish(2), publish(3))
    received = [await peer.receive() for _ in range(4)]
    assert [frame for frame in received if isinstance(frame, Ack)] == [Ack(3, True)]
    assert sum(isinstance(frame, Message) for frame in received) == 3
    assert (await peer.ask(publish(1))).error_name == "Duplicate"
    assert hub.faults.struck["lose_acks"] == 2


async def test_with_expiry_enforced_a_connection_ends_when_its_token_does(
    serving: Any, dial: Any
) -> None:
    clock = ManualClock()
    hub, _ = await serving(clock)
    peer = await dial(hub)  # with a token of 300 seconds
    clock.advance(299)
    hub.faults.enforce_expiry = True
    hub.expire()
    await peer.send(Ping())
    assert await peer.receive() == Pong()

    clock.advance(1)
    with anyio.fail_after(5), pytest.raises(ConnectionClosed) as closed:
        await peer.websocket.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (
        1008,
        "the access token has expired",
    )
    refused = await dial(hub, query=peer.recovery, greeted=False)
    assert await refused.close_code() == 1008


async def test_expiry_does_nothing_to_a_connection_unless_it_is_enforced(
    serving: Any, dial: Any
) -> None:
    clock = ManualClock()
    hub, _ = await serving(clock)
    peer = await dial(hub)
    clock.advance(301)
    hub.expire()
    await peer.send(Ping())
    assert await peer.receive() == Pong()


async def test_a_hub_that_is_away_cuts_everybody_and_lets_nobody_in(
    serving: Any, dial: Any
) -> None:
    clock = ManualClock()
    hub, address = await serving(clock)
    peer = await dial(hub)
    async with httpx.AsyncClient(trust_env=False) as client:
        url = f"{address.url}/api/health"
        assert (await client.head(url)).status_code == 200
        await hub.leave(5)
        assert await is_cut(peer)
        with pytest.raises(httpx.TransportError):
            await client.head(url)
        with pytest.raises((OSError, InvalidMessage)):
            await dial(hub, query=peer.recovery)

        clock.advance(5)
        assert (await client.head(url)).status_code == 200
    again = await dial(hub, query=peer.recovery)
    assert again.connected.connection_id == peer.connected.connection_id


async def test_a_hub_may_come_back_without_its_sessions(serving: Any, dial: Any) -> None:
    clock = ManualClock()
    hub, _ = await serving(clock)
    peer = await dial(hub)
    await hub.leave(5, forget=True)
    clock.advance(5)
    refused = await dial(hub, query=peer.recovery, greeted=False)
    assert await refused.close_code() == 1008
    assert isinstance((await dial(hub)).connected, Connected)


async def test_users_are_dropped_and_forgotten_by_pattern(hub: Hub, dial: Any) -> None:
    one, two, other = [await dial(hub, user) for user in ("sandbox:a", "sandbox:b", "control:a")]
    assert hub.forget("sandbox:*") == 2
    assert await hub.drop("sandbox:*") == 2
    assert await is_cut(one)
    assert await is_cut(two)
    await other.send(Ping())
    assert await other.receive() == Pong()
    assert hub.faults.struck == {"forget": 2, "drop": 2}


@pytest.mark.parametrize(
    "fault",
    [
        {"after": 0},
        {"after": 1, "times": 0},
        {"after": 1, "code": 1006},
        {"after": 1, "code": 999},
    ],
)
def test_a_cut_that_could_never_strike_is_refused(fault: dict[str, int]) -> None:
    with pytest.raises(Invalid):
        Cut(**fault)  # type: ignore[arg-type]


async def test_restarted_on_its_port_a_hub_takes_its_tokens_and_forgets_its_sessions(
    serving: Any, dial: Any
) -> None:
    first = Hub(HubSettings(access_key="k" * 40))
    async with serve(first) as address:
        peer = await dial(first, "u")
        token = first.mint(Grant("v", (), ()))
    second, again = await serving(access_key="k" * 40, port=first.port)
    assert again.client_url == address.client_url
    refused = await dial(second, query=peer.recovery, greeted=False)
    assert await refused.close_code() == 1008
    assert (await dial(second, query=f"access_token={token}")).connected.user_id == "v"
