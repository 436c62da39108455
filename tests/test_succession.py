"""Handovers of a channel, through the embedded hub and over real sockets: a new connection opens
before the old one closes, and nothing is lost on the way."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import AsyncIterator

import anyio
import pytest
from stack import until
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.typing import Subprotocol

from sidecar import succession
from sidecar.channel import Channel, Outcome, Publish
from sidecar.errors import ChannelError, NoToken
from sidecar.hub import Hub, HubSettings, serve
from sidecar.protocol.channel_events import Timing
from sidecar.protocol.names import Grant, controller_grant, sidecar_grant
from sidecar.protocol.webpubsub import codec_for
from sidecar.protocol.webpubsub.frames import PROTOBUF_SUBPROTOCOL, Message
from sidecar.tokens import Token, make_token

FAST = Timing(backoff_first=0.01, backoff_longest=0.05)


class Side:
    """One side of the conversation: what it has to say, and all that it was told."""

    def __init__(self, hub: Hub, grant: Grant, *, handover: str = "auto") -> None:
        self.hub, self.grant = hub, grant
        self.queue: deque[Publish] = deque()
        self.messages: list[bytes] = []
        self.opened: list[bool] = []
        self.down: list[ChannelError] = []
        self.outcomes: dict[bytes, list[Outcome]] = {}
        self.url = hub.address.client_url
        self.lifetime = 300.0
        self.asked = 0
        self.refused_tokens: list[str] = []
        self.channel = Channel(
            provider=self,
            codec=codec_for(PROTOBUF_SUBPROTOCOL),
            source=self,
            receiver=self,
            timing=FAST,
            handover=handover,
        )

    # its provider mints a token for every dial

    async def token(self) -> Token:
        self.asked += 1
        return make_token(self.url, self.hub.mint(self.grant, self.lifetime))

    async def changed(self) -> None:
        await anyio.sleep_forever()

    def used(self, token: Token) -> None:
        """Nothing to do."""

    def refused(self, token: Token, error: ChannelError) -> None:
        self.refused_tokens.append(token.value)

    # its source and receiver

    def publish(self, group: str, data: bytes) -> None:
        outcomes = self.outcomes.setdefault(data, [])
        self.queue.append(Publish(group, data, None, outcomes.append, urgent=True))
        self.channel.wake()

    def next_publish(self, *, now: float, urgent_only: bool) -> Publish | None:
        return self.queue.popleft() if self.queue else None

    def channel_opened(self, *, fresh: bool, now: float) -> None:
        self.opened.append(fresh)

    def channel_message(self, message: Message, *, now: float) -> None:
        self.messages.append(message.data)

    def channel_down(self, error: ChannelError, *, now: float) -> None:
        self.down.append(error)


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    hub = Hub(HubSettings())
    async with serve(hub):
        yield hub


@contextlib.asynccontextmanager
async def sandbox(hub: Hub, *, handover: str = "auto", lifetime: float = 300.0):
    """The sidecar of run `a`, open."""
    async with running(Side(hub, sidecar_grant("a"), handover=handover), lifetime) as side:
        yield side


@contextlib.asynccontextmanager
async def running(side: Side, lifetime: float = 300.0) -> AsyncIterator[Side]:
    side.lifetime = lifetime
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(side.channel.run)
        await until(lambda: side.opened)
        yield side
        tasks.cancel_scope.cancel()


async def test_the_new_connection_opens_before_the_old_one_closes(hub: Hub) -> None:
    async with sandbox(hub) as side:
        before = side.channel.status().connection_id
        side.channel.hand_over()
        await until(lambda: len(side.opened) == 2)
        status = side.channel.status()
        await until(lambda: hub.stats().sessions == 1)
    assert side.down == []
    assert side.opened == [True, True]
    assert status.connection_id != before
    assert (status.handovers, status.recoveries, status.state) == (1, 0, "open")


async def test_ten_handovers_under_traffic_lose_and_repeat_no_publish(hub: Hub) -> None:
    platform_side = Side(hub, controller_grant("c", ["a"]))
    async with running(platform_side) as platform, sandbox(hub) as sidecar:
        for number in range(1000):
            sidecar.publish("out.a.c", b"up %d" % number)
            platform.publish("in.a", b"down %d" % number)
            if number % 100 == 50:
                sidecar.channel.hand_over()
                done = number // 100 + 1
                while sidecar.channel.status().handovers < done:
                    sidecar.publish("out.a.c", b"meanwhile")
                    await anyio.sleep(0.001)
        assert await sidecar.channel.drain(10)
        await until(lambda: b"up 999" in platform.messages and b"down 999" in sidecar.messages)
        status = sidecar.channel.status()
    numbered = [data for data in platform.messages if data != b"meanwhile"]
    assert numbered == [b"up %d" % number for number in range(1000)]
    assert {Outcome.ACKED} == {one for outcomes in sidecar.outcomes.values() for one in outcomes}
    assert (status.handovers, status.recoveries) == (10, 0)
    assert sidecar.down == []
    # What comes for us may come on both connections, but nothing is missing and the order of
    # first arrivals holds.
    assert list(dict.fromkeys(sidecar.messages)) == [b"down %d" % n for n in range(1000)]


@pytest.mark.slow
async def test_what_the_old_connection_does_not_acknowledge_goes_back_to_its_owner(
    hub: Hub,
) -> None:
    async with sandbox(hub) as side:
        hub.ack_delay = float("inf")
        side.publish("out.a.c", b"x")
        await until(lambda: not side.queue)
        side.channel.hand_over()
        await until(lambda: len(side.opened) == 2)
        assert side.outcomes[b"x"] == [Outcome.LOST]
        hub.ack_delay = 0.0
        side.publish("out.a.c", b"y")
        await until(lambda: side.outcomes[b"y"] == [Outcome.ACKED])


async def test_a_successor_that_is_refused_costs_the_old_connection_nothing(hub: Hub) -> None:
    async with sandbox(hub) as side:
        before = side.channel.status().connection_id
        side.lifetime = -3600.0
        side.channel.hand_over()
        await until(lambda: side.refused_tokens)
        side.publish("out.a.c", b"x")
        await until(lambda: side.outcomes[b"x"] == [Outcome.ACKED])
        status = side.channel.status()
    assert (status.connection_id, status.state, status.reason) == (before, "open", "expired")
    assert side.down == []


async def test_both_connections_lost_at_once_in_a_handover_cost_a_dial_and_no_silence(
    hub: Hub,
) -> None:
    async with sandbox(hub) as side:
        hub.ack_delay = math.inf  # the old connection is waited for
        side.publish("out.a", b"unacknowledged")
        side.channel.hand_over()
        await until(lambda: side.channel._protocol.is_handing_over)
        hub.ack_delay = 0.0
        old = side.channel.status().connection_id
        links = sorted(hub._links, key=lambda link: link.session.connection_id != old)
        assert len(links) == 2
        for link in links:
            link.abort()  # within one turn of the event loop
        side.publish("out.a", b"after")
        await until(lambda: side.outcomes[b"after"] != [])
        assert side.down != []


async def test_a_handover_while_the_channel_is_down_dials_at_once(hub: Hub) -> None:
    side = Side(hub, sidecar_grant("a"))
    side.lifetime = -3600.0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(side.channel.run)
        await until(lambda: side.down)
        side.lifetime = 300.0
        asked = side.asked
        side.channel.hand_over()
        await until(lambda: side.opened)
        assert side.asked == asked + 1
        tasks.cancel_scope.cancel()


async def test_a_handover_while_a_recovery_is_tried_ends_it_for_a_dial(hub: Hub) -> None:
    port = hub.port
    side = Side(hub, sidecar_grant("a"))
    async with running(side):
        await hub.leave(0.0, forget=True)
        side.channel.hand_over()
        await until(lambda: len(side.opened) == 2)
        assert side.opened == [True, True]
    assert hub.port == port


async def test_a_handover_in_a_dial_that_fails_just_then_leads_to_one_more_dial(hub: Hub) -> None:
    side = Side(hub, sidecar_grant("a"))
    asked, fails = anyio.Event(), anyio.Event()
    good = side.token

    async def bad() -> Token:
        with anyio.CancelScope(shield=True):  # as a thread is, that reads a file
            asked.set()
            await fails.wait()
        raise NoToken("the file is empty")

    side.token = bad  # type: ignore[method-assign]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(side.channel.run)
        await asked.wait()
        side.token = good  # type: ignore[method-assign]
        side.channel.hand_over()
        fails.set()
        await until(lambda: side.opened)
        assert side.opened == [True]
        tasks.cancel_scope.cancel()


async def test_a_link_that_breaks_while_another_connection_is_wanted_is_not_recovered(
    hub: Hub,
) -> None:
    async with sandbox(hub) as side:
        side.url = "ws://127.0.0.1:1/client/hubs/h"  # nobody is there
        side.channel.hand_over()
        await until(lambda: side.channel.status().reason == "network")
        side.url = hub.address.client_url
        await hub.drop("sandbox:a")
        await until(lambda: len(side.opened) == 2)
        assert side.opened == [True, True]
        assert side.channel.status().recoveries == 0


@pytest.mark.slow
async def test_always_hands_over_before_the_token_lapses(hub: Hub) -> None:
    async with sandbox(hub, handover="always", lifetime=3.0) as side:
        side.lifetime = 300.0
        await until(lambda: side.channel.status().handovers == 1)
    assert side.down == []


@pytest.mark.slow
async def test_auto_learns_that_a_hub_ends_connections_with_their_tokens(hub: Hub) -> None:
    hub.faults.enforce_expiry = True
    async with sandbox(hub, lifetime=2.0) as side:
        await until(lambda: len(side.opened) == 2)
        assert [error.reason for error in side.down] == ["replaced"]
        await until(lambda: side.channel.status().handovers >= 2)
        assert len(side.down) == 1


@pytest.mark.slow
async def test_auto_leaves_a_hub_alone_that_does_not(hub: Hub) -> None:
    async with sandbox(hub, lifetime=2.0) as side:
        await anyio.sleep(2.2)
        assert (side.asked, side.channel.status().handovers) == (1, 0)


async def silent(connection: ServerConnection) -> None:
    """A hub that accepts, and says nothing."""
    await connection.wait_closed()


async def test_a_hub_that_accepts_a_successor_and_is_silent_is_given_up(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(succession, "CONNECTED_TIME", 0.05)
    protocols = [Subprotocol(PROTOBUF_SUBPROTOCOL)]
    async with (
        serve_websocket(silent, "127.0.0.1", 0, subprotocols=protocols) as mute,
        sandbox(hub) as side,
    ):
        side.url = f"ws://127.0.0.1:{mute.sockets[0].getsockname()[1]}/client/hubs/h"
        side.channel.hand_over()
        await until(lambda: side.channel.status().reason == "network")
        side.publish("out.a.c", b"x")
        await until(lambda: side.outcomes[b"x"] == [Outcome.ACKED])
        side.url = hub.address.client_url
        await until(lambda: side.channel.status().handovers == 1)
    assert side.down == []
