"""The channel against the embedded hub, over real sockets; what the hub cannot be brought to do
is done by a relay that falls silent, or by a few lines of a service that refuses."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from http import HTTPStatus

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from sidecar.channel import Channel, Outcome, Publish
from sidecar.errors import ChannelError
from sidecar.hub import Hub, HubSettings, serve
from sidecar.protocol.channel_events import Timing
from sidecar.protocol.names import Grant, controller_grant, sidecar_grant
from sidecar.protocol.webpubsub import codec_for
from sidecar.protocol.webpubsub.frames import (
    JSON_SUBPROTOCOL,
    PROTOBUF_SUBPROTOCOL,
    Connected,
    Message,
    SendToGroup,
)
from sidecar.tokens import FixedToken, Token

PATIENCE = 10.0  # seconds until a test that waits for something has failed
FAST = Timing(ping_after=0.2, dead_after=0.2, backoff_first=0.01, backoff_longest=0.05)
CODEC = codec_for(PROTOBUF_SUBPROTOCOL)


class Side:
    """One side of the conversation: what it has to say, and all that it was told."""

    def __init__(self) -> None:
        self.urgent: deque[Publish] = deque()
        self.bulk: deque[Publish] = deque()
        self.messages: list[Message] = []
        self.opened: list[bool] = []
        self.down: list[ChannelError] = []
        self.outcomes: dict[bytes, list[Outcome]] = {}
        self.channel: Channel | None = None

    def publish(self, group: str, data: bytes, *, urgent: bool = True) -> None:
        outcomes = self.outcomes.setdefault(data, [])
        queue = self.urgent if urgent else self.bulk
        queue.append(Publish(group, data, None, outcomes.append, urgent))
        if self.channel is not None:
            self.channel.wake()

    def next_publish(self, *, now: float, urgent_only: bool) -> Publish | None:
        if self.urgent:
            return self.urgent.popleft()
        return self.bulk.popleft() if self.bulk and not urgent_only else None

    def channel_opened(self, *, fresh: bool, now: float) -> None:
        self.opened.append(fresh)

    def channel_message(self, message: Message, *, now: float) -> None:
        self.messages.append(message)

    def channel_down(self, error: ChannelError, *, now: float) -> None:
        self.down.append(error)

    @property
    def reasons(self) -> list[str]:
        return [error.reason for error in self.down]


class FreshTokens:
    """Mints a token for every dial, as a platform does."""

    def __init__(self, hub: Hub, grant: Grant) -> None:
        self.hub = hub
        self.grant = grant
        self.asked = 0

    async def token(self) -> Token:
        self.asked += 1
        return Token(self.hub.address.client_url, self.hub.mint(self.grant))

    async def changed(self) -> None:
        await anyio.sleep_forever()


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110  (nothing rings when it comes true)
            await anyio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(channel: Channel) -> AsyncIterator[Channel]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.run)
        yield channel
        tasks.cancel_scope.cancel()


def make_channel(
    side: Side,
    provider: FixedToken | FreshTokens,
    *,
    subprotocol: str = PROTOBUF_SUBPROTOCOL,
    timing: Timing = FAST,
) -> Channel:
    side.channel = Channel(
        provider=provider,
        codec=codec_for(subprotocol),
        source=side,
        receiver=side,
        timing=timing,
    )
    return side.channel


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    hub = Hub(HubSettings())
    async with serve(hub):
        yield hub


@contextlib.asynccontextmanager
async def sandbox(
    hub: Hub, *, subprotocol: str = PROTOBUF_SUBPROTOCOL, timing: Timing = FAST
) -> AsyncIterator[Side]:
    """The sidecar of run `a`, open."""
    side = Side()
    channel = make_channel(
        side, FreshTokens(hub, sidecar_grant("a")), subprotocol=subprotocol, timing=timing
    )
    async with running(channel):
        await until(lambda: side.opened)
        yield side


@contextlib.asynccontextmanager
async def controller(hub: Hub) -> AsyncIterator[Side]:
    """The controller `c` of run `a`, open."""
    side = Side()
    async with running(make_channel(side, FreshTokens(hub, controller_grant("c", ["a"])))):
        await until(lambda: side.opened)
        yield side


def status_of(side: Side) -> object:
    assert side.channel is not None
    return side.channel.status()


# Through the hub -------------------------------------------------------------------------


@pytest.mark.parametrize("subprotocol", [PROTOBUF_SUBPROTOCOL, JSON_SUBPROTOCOL])
async def test_messages_cross_the_hub_in_both_directions(hub: Hub, subprotocol: str) -> None:
    async with controller(hub) as platform, sandbox(hub, subprotocol=subprotocol) as sidecar:
        platform.publish("in.a", b"call")
        sidecar.publish("out.a.c", b"\x00result\xff")
        await until(lambda: sidecar.messages and platform.messages)
    assert [(m.group, m.data) for m in sidecar.messages] == [("in.a", b"call")]
    assert [(m.group, m.data) for m in platform.messages] == [("out.a.c", b"\x00result\xff")]
    assert sidecar.outcomes == {b"\x00result\xff": [Outcome.ACKED]}
    assert sidecar.opened == [True]


async def test_a_publish_without_the_right_is_refused_for_good(hub: Hub) -> None:
    async with sandbox(hub) as sidecar:
        sidecar.publish("out.another", b"x")
        await until(lambda: sidecar.outcomes[b"x"])
    assert sidecar.outcomes[b"x"] == [Outcome.REFUSED]


async def test_a_publish_that_would_kill_the_connection_is_not_sent(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    huge = bytes(1_000_000)
    async with sandbox(hub) as sidecar:
        sidecar.publish("out.a.c", huge)
        sidecar.publish("out.a.c", b"small")
        await until(lambda: sidecar.outcomes[b"small"])
    assert sidecar.outcomes == {huge: [Outcome.REFUSED], b"small": [Outcome.ACKED]}
    assert "was not sent" in caplog.text
    assert sidecar.down == []


async def test_a_receiver_that_fails_harms_nobody_else(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    async with controller(hub) as platform, sandbox(hub) as sidecar:
        kept = sidecar.messages
        sidecar.messages = None
        platform.publish("in.a", b"1")
        await until(lambda: "which failed" in caplog.text)
        sidecar.messages = kept
        platform.publish("in.a", b"2")
        await until(lambda: kept)
    assert [m.data for m in kept] == [b"2"]
    assert sidecar.down == []


async def test_everything_handed_over_is_settled_once_when_it_ends(hub: Hub) -> None:
    hub.ack_delay = float("inf")
    async with sandbox(hub) as sidecar:
        for number in range(20):
            sidecar.publish("out.a.c", b"%d" % number)
        await until(lambda: not sidecar.urgent)
    assert list(sidecar.outcomes.values()) == [[Outcome.LOST]] * 20


async def test_the_end_says_goodbye_so_that_the_hub_forgets(hub: Hub) -> None:
    async with sandbox(hub):
        assert hub.stats().sessions == 1
    await until(lambda: hub.stats().sessions == 0)


async def test_drain_waits_for_the_hub_and_is_bounded(hub: Hub) -> None:
    async with sandbox(hub) as sidecar:
        assert sidecar.channel is not None
        for number in range(50):
            sidecar.publish("out.a.c", b"%d" % number, urgent=False)
        assert await sidecar.channel.drain(PATIENCE)
        assert list(sidecar.outcomes.values()) == [[Outcome.ACKED]] * 50
        hub.ack_delay = float("inf")
        sidecar.publish("out.a.c", b"never acknowledged")
        assert not await sidecar.channel.drain(0.1)


async def test_the_status_says_how_it_is(hub: Hub) -> None:
    async with sandbox(hub) as sidecar:
        assert sidecar.channel is not None
        sidecar.publish("out.a.c", b"x")
        assert await sidecar.channel.drain(PATIENCE)
        status = sidecar.channel.status()
    assert (status.state, status.reason, status.attempts) == ("open", None, 0)
    assert (status.unacked, status.messages_out, status.reconnects) == (0, 1, 0)
    assert status.connection_id
    assert status.round_trip is not None and 0 < status.round_trip < PATIENCE
    assert sidecar.channel.status().state == "closed"


# Drops -----------------------------------------------------------------------------------


async def test_a_drop_loses_and_repeats_nothing(hub: Hub) -> None:
    async with controller(hub) as platform, sandbox(hub) as sidecar:
        for number in range(300):
            sidecar.publish("out.a.c", b"up %d" % number, urgent=False)
            platform.publish("in.a", b"down %d" % number, urgent=False)
            if number in (50, 150, 250):
                drops = len(sidecar.opened)
                await hub.drop("sandbox:a")
                await until(lambda drops=drops: len(sidecar.opened) > drops)
        await until(lambda: len(platform.messages) >= 300 and len(sidecar.messages) >= 300)
        assert sidecar.channel is not None
        assert await sidecar.channel.drain(PATIENCE)
        status = sidecar.channel.status()
    assert [m.data for m in platform.messages] == [b"up %d" % n for n in range(300)]
    assert [m.data for m in sidecar.messages] == [b"down %d" % n for n in range(300)]
    assert list(sidecar.outcomes.values()) == [[Outcome.ACKED]] * 300
    assert sidecar.opened == [True, False, False, False]
    assert sidecar.reasons == ["network"] * 3
    assert (status.recoveries, status.reconnects) == (3, 0)


async def test_acks_lost_in_a_drop_do_not_repeat_what_was_published(hub: Hub) -> None:
    async with controller(hub) as platform, sandbox(hub) as sidecar:
        hub.ack_delay = float("inf")
        sidecar.publish("out.a.c", b"once")
        await until(lambda: platform.messages)
        hub.ack_delay = 0.0
        await hub.drop("sandbox:a")
        await until(lambda: sidecar.outcomes[b"once"])
        sidecar.publish("out.a.c", b"after")
        await until(lambda: len(platform.messages) == 2)
    assert [m.data for m in platform.messages] == [b"once", b"after"]
    assert sidecar.outcomes[b"once"] == [Outcome.ACKED]


async def test_a_forgotten_connection_becomes_a_new_one_and_hands_back_what_was_on_it(
    hub: Hub,
) -> None:
    async with sandbox(hub) as sidecar:
        hub.ack_delay = float("inf")
        sidecar.publish("out.a.c", b"x")
        await until(lambda: not sidecar.urgent)
        hub.forget("sandbox:a")
        await hub.drop("sandbox:a")
        await until(lambda: len(sidecar.opened) == 2)
    assert sidecar.opened == [True, True]
    assert sidecar.outcomes == {b"x": [Outcome.LOST]}
    assert sidecar.reasons == ["network", "replaced"]


async def test_a_connection_that_the_platform_ends_is_replaced_by_a_new_one(hub: Hub) -> None:
    async with sandbox(hub) as sidecar:
        await hub.close("sandbox:a", 1000, "enough")
        await until(lambda: len(sidecar.opened) == 2)
    assert sidecar.opened == [True, True]
    assert sidecar.reasons == ["replaced"]


async def test_every_new_connection_has_a_new_token_and_a_recovery_none(hub: Hub) -> None:
    side = Side()
    provider = FreshTokens(hub, sidecar_grant("a"))
    async with running(make_channel(side, provider)):
        await until(lambda: side.opened == [True])
        await hub.drop("sandbox:a")
        await until(lambda: side.opened == [True, False])
        assert provider.asked == 1
        hub.forget("sandbox:a")
        await hub.drop("sandbox:a")
        await until(lambda: side.opened == [True, False, True])
        assert provider.asked == 2


async def test_a_hub_that_comes_late_is_found() -> None:
    hub = Hub(HubSettings())
    async with serve(hub) as address:
        port, token = hub.port, hub.mint(sidecar_grant("a"))
    side = Side()
    async with running(make_channel(side, FixedToken(address.client_url, token))):
        await until(lambda: side.channel and side.channel.status().attempts > 2)
        assert side.reasons == ["network"]
        key = address.access_key
        async with serve(Hub(HubSettings(port=port, access_key=key))):
            await until(lambda: side.opened)


# Links that carry nothing ----------------------------------------------------------------


class SilentRelay:
    """A TCP relay to the hub that can stop carrying anything while its sockets stay open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._flows = anyio.Event()
        self._flows.set()

    def fall_silent(self) -> None:
        self._flows = anyio.Event()

    def speak(self) -> None:
        self._flows.set()

    async def carry(self, client: anyio.abc.SocketStream) -> None:
        flows = self._flows  # a connection that fell silent stays so; new ones speak
        try:
            async with client, await anyio.connect_tcp("127.0.0.1", self._port) as service:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._pump, client, service)
                    await self._pump(service, client)
                    tasks.cancel_scope.cancel()
        except* (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            flows.set()

    async def _pump(self, source: anyio.abc.SocketStream, sink: anyio.abc.SocketStream) -> None:
        async for data in source:
            await self._flows.wait()
            await sink.send(data)


@contextlib.asynccontextmanager
async def relayed(hub: Hub) -> AsyncIterator[tuple[SilentRelay, str]]:
    relay = SilentRelay(hub.port)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, relay.carry)
        yield relay, f"ws://127.0.0.1:{port}/client/hubs/{hub.settings.hub}"
        tasks.cancel_scope.cancel()


async def test_an_idle_link_stays_while_the_service_answers(hub: Hub) -> None:
    async with sandbox(hub) as sidecar:
        await anyio.sleep(1.0)  # five times the silence after which it asks
        assert sidecar.channel is not None
        assert sidecar.channel.status().messages_out >= 3
    assert sidecar.down == []


async def test_a_half_open_link_is_noticed_and_recovered(hub: Hub) -> None:
    side = Side()
    async with relayed(hub) as (relay, url):
        provider = FixedToken(url, hub.mint(sidecar_grant("a")))
        async with running(make_channel(side, provider)):
            await until(lambda: side.opened)
            relay.fall_silent()
            side.publish("out.a.c", b"into the void")
            await until(lambda: side.down)
            assert "silent" in str(side.down[0])
            relay.speak()
            await until(lambda: side.opened == [True, False])
            await until(lambda: side.outcomes[b"into the void"] == [Outcome.ACKED])


# Refusals --------------------------------------------------------------------------------


async def test_an_expired_token_is_told_from_a_refused_one(hub: Hub) -> None:
    url = hub.address.client_url
    expired, refused = Side(), Side()
    old = hub.mint(sidecar_grant("a"), lifetime=-3600.0)
    async with (
        running(make_channel(expired, FixedToken(url, old))),
        running(make_channel(refused, FixedToken(url, hub.mint(sidecar_grant("a"))[:-4] + "AAAA"))),
    ):
        await until(lambda: expired.down and refused.down)
    assert expired.reasons == ["expired"]
    assert refused.reasons == ["refused"]


class ChangingToken:
    """A provider whose first token is bad; `mend` puts a good one in place."""

    def __init__(self, bad: Token, good: Token) -> None:
        self._bad, self._good = bad, good
        self._mended = anyio.Event()

    def mend(self) -> None:
        self._mended.set()

    async def token(self) -> Token:
        return self._good if self._mended.is_set() else self._bad

    async def changed(self) -> None:
        await self._mended.wait()


async def test_a_token_put_in_place_ends_the_back_off_at_once(hub: Hub) -> None:
    url, side = hub.address.client_url, Side()
    provider = ChangingToken(Token(url, "bad"), Token(url, hub.mint(sidecar_grant("a"))))
    timing = Timing(refused_first=3600.0, refused_longest=3600.0)
    channel = Channel(
        provider=provider,
        codec=CODEC,
        source=side,
        receiver=side,
        timing=timing,
        random=lambda: 1.0,
    )
    async with running(channel):
        await until(lambda: side.reasons == ["refused"])
        provider.mend()
        await until(lambda: side.opened)


@contextlib.asynccontextmanager
async def service(
    handler: Callable[[ServerConnection], Awaitable[None]],
    *,
    status: HTTPStatus | None = None,
    subprotocols: Sequence[Subprotocol] | None = (Subprotocol(PROTOBUF_SUBPROTOCOL),),
) -> AsyncIterator[str]:
    """A few lines of a service, for what the hub does not do."""

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        return None if status is None else connection.respond(status, "")

    server: Server
    async with serve_websocket(
        handler,
        "127.0.0.1",
        0,
        subprotocols=subprotocols,
        process_request=answer,
        compression=None,
    ) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}/client/hubs/h"


async def forget(connection: ServerConnection) -> None:
    await connection.wait_closed()


@pytest.mark.parametrize("status", [HTTPStatus.BAD_GATEWAY, HTTPStatus.NOT_FOUND])
async def test_a_gateway_without_its_service_is_the_network(status: HTTPStatus) -> None:
    side = Side()
    async with service(forget, status=status) as url:
        async with running(make_channel(side, FixedToken(url, "t"))):
            await until(lambda: side.down)
    assert side.reasons == ["network"]
    assert str(status.value) in str(side.down[0])


async def test_a_server_that_speaks_something_else_is_no_hub() -> None:
    side = Side()
    async with service(forget, subprotocols=None) as url:
        async with running(make_channel(side, FixedToken(url, "t"))):
            await until(lambda: side.down)
    assert side.reasons == ["network"]
    assert "does not speak" in str(side.down[0])


async def test_a_hub_that_accepts_and_says_nothing_is_given_up() -> None:
    side = Side()
    async with service(forget) as url:
        timing = Timing(first_frame=0.1, backoff_first=60.0, backoff_longest=60.0)
        async with running(make_channel(side, FixedToken(url, "t"), timing=timing)):
            await until(lambda: side.down)
    assert "is silent" in str(side.down[0])


async def test_a_message_that_is_too_large_to_read_is_not_fetched_again() -> None:
    seen: list[str] = []

    async def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append(connection.request.path)
        await connection.send(CODEC.encode_downstream(Connected("c1", "u", "r1")))
        if len(seen) == 1:
            await connection.send(bytes(3_000_000))
        await connection.wait_closed()

    side = Side()
    async with service(handler) as url:
        async with running(make_channel(side, FixedToken(url, "t"))):
            await until(lambda: len(side.opened) == 2)
    assert side.opened == [True, True]
    assert "cannot read" in str(side.down[0])
    assert seen == ["/client/hubs/h", "/client/hubs/h"]


async def test_a_proxy_that_loses_the_service_for_a_while_does_not_cost_the_connection() -> None:
    paths: list[str] = []

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        paths.append(request.path)
        is_away = 2 <= len(paths) <= 4
        return connection.respond(HTTPStatus.BAD_GATEWAY, "") if is_away else None

    async def handler(connection: ServerConnection) -> None:
        await connection.send(CODEC.encode_downstream(Connected("c1", "u", "r 1")))
        if len(paths) == 1:
            connection.transport.abort()
        await connection.wait_closed()

    side = Side()
    async with serve_websocket(
        handler,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol(PROTOBUF_SUBPROTOCOL)],
        process_request=answer,
    ) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/client/?hub=h"
        async with running(make_channel(side, FixedToken(url, "t"))):
            await until(lambda: side.opened == [True, False])
    recovery = "/client/?hub=h&awps_connection_id=c1&awps_reconnection_token=r+1"
    assert paths == ["/client/?hub=h", *[recovery] * 4]


# Fairness --------------------------------------------------------------------------------


class Flood(Side):
    """Has bulk without end, and counts what it handed out in each turn of the event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.handed_out = 0
        self.turn = 0
        self.in_turn: Counter[int] = Counter()

    async def watch_turns(self) -> None:
        while True:
            self.turn += 1
            await anyio.lowlevel.checkpoint()

    def next_publish(self, *, now: float, urgent_only: bool) -> Publish | None:
        if self.urgent or urgent_only:
            return super().next_publish(now=now, urgent_only=urgent_only)
        self.handed_out += 1
        self.in_turn[self.turn] += 1
        data = b"%08d" % self.handed_out + bytes(200 * 1024)
        return Publish("out.a.c", data, None, lambda outcome: None, urgent=False)


async def test_the_event_loop_turns_between_any_two_chunks(hub: Hub) -> None:
    side = Flood()
    channel = make_channel(side, FreshTokens(hub, sidecar_grant("a")))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(side.watch_turns)
        async with running(channel):
            await until(lambda: side.handed_out > 100)
        tasks.cancel_scope.cancel()
    assert max(side.in_turn.values()) <= 2  # a turn may be counted before or after the writer


async def test_bulk_without_end_does_not_starve_control() -> None:
    acks_wait = anyio.Event()
    arrived: list[bytes] = []

    async def handler(connection: ServerConnection) -> None:
        """Takes everything as fast as it comes, and acknowledges nothing before the end."""
        await connection.send(CODEC.encode_downstream(Connected("c1", "u", "r1")))
        async for data in connection:
            frame = CODEC.decode_upstream(data)
            if isinstance(frame, SendToGroup):
                arrived.append(frame.data[:8])
            if frame == SendToGroup("out.a.c", b"stop", frame.ack_id):
                acks_wait.set()

    side = Flood()
    async with service(handler) as url:
        async with running(make_channel(side, FixedToken(url, "t"), timing=Timing())):
            await until(lambda: arrived)
            side.publish("out.a.c", b"stop")
            before = side.handed_out
            with anyio.fail_after(PATIENCE):
                await acks_wait.wait()
    # Late binding: only what was in the socket already goes first.
    assert arrived.index(b"stop") <= before


async def test_control_beside_bulk_flat_out_is_answered_soon(hub: Hub) -> None:
    side = Flood()
    provider = FreshTokens(hub, sidecar_grant("a"))
    async with controller(hub) as platform, running(make_channel(side, provider)):
        await until(lambda: len(platform.messages) > 20)
        trips = []
        for number in range(20):
            asked = anyio.current_time()
            side.publish("out.a.c", b"ping %d" % number)
            await until(lambda number=number: side.outcomes[b"ping %d" % number])
            trips.append(anyio.current_time() - asked)
    # Without yielding and late binding, measured: seconds.
    assert sorted(trips)[len(trips) // 2] < 0.25


# Secrets ---------------------------------------------------------------------------------


async def test_no_token_reaches_a_url_or_a_log(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    paths: list[str] = []
    headers: list[str] = []

    async def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        paths.append(connection.request.path)
        headers.append(connection.request.headers.get("Authorization", ""))
        if len(paths) > 2:
            return
        await connection.send(CODEC.encode_downstream(Connected("c1", "u", "reconnect-hush")))
        await connection.close(1001 if len(paths) == 1 else 1008)

    side = Side()
    with caplog.at_level(logging.DEBUG):
        async with service(handler) as url:
            async with running(make_channel(side, FixedToken(url, "access-hush"))):
                await until(lambda: len(paths) > 2)
    assert headers == ["Bearer access-hush", "", "Bearer access-hush"]
    assert "access-hush" not in "".join(paths)
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("sidecar")]
    assert ours
    assert "hush" not in "".join(ours)
    assert "hush" not in repr(status_of(side))
