"""A served hub and clients that speak its frames over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeVar
from urllib.parse import urlencode

import anyio
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from sidecar.hub import Address, Hub, HubSettings, serve
from sidecar.protocol.names import Grant
from sidecar.protocol.webpubsub import codec_for
from sidecar.protocol.webpubsub.frames import (
    PROTOBUF_SUBPROTOCOL,
    Ack,
    Codec,
    Connected,
    Downstream,
    Message,
    Upstream,
)

PATIENCE = 5.0  # seconds until a test that waits for something has failed

F = TypeVar("F")


class Peer:
    """One WebSocket to the hub, in frames."""

    def __init__(self, websocket: ClientConnection, codec: Codec) -> None:
        self.websocket = websocket
        self.codec = codec
        self.connected = Connected("")

    async def send(self, *frames: Upstream) -> None:
        for frame in frames:
            await self.websocket.send(self.codec.encode_upstream(frame))

    async def receive(self) -> Downstream:
        with anyio.fail_after(PATIENCE):
            return self.codec.decode_downstream(await self.websocket.recv())

    async def expect(self, kind: type[F]) -> F:
        """The next frame, which has to be of this kind."""
        frame = await self.receive()
        assert isinstance(frame, kind), frame
        return frame

    async def message(self) -> Message:
        return await self.expect(Message)

    async def ask(self, frame: Upstream) -> Ack:
        """The ack of `frame`, which has to come next."""
        await self.send(frame)
        return await self.expect(Ack)

    async def close_code(self) -> int:
        """Read until the hub closes; the code that it gave."""
        with anyio.fail_after(PATIENCE):
            try:
                while True:
                    await self.websocket.recv()
            except ConnectionClosed as closed:
                assert closed.rcvd is not None, "the connection was cut without a close frame"
                return closed.rcvd.code

    @property
    def recovery(self) -> str:
        """The query that takes up this connection."""
        return urlencode(
            {
                "awps_connection_id": self.connected.connection_id,
                "awps_reconnection_token": self.connected.reconnection_token or "",
            }
        )


Serve = Callable[..., Awaitable[tuple[Hub, Address]]]
Dial = Callable[..., Awaitable[Peer]]


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait for a condition that nobody announces: what the hub notices of a lost socket."""

    async def wait(condition: Callable[[], bool]) -> None:
        with anyio.fail_after(PATIENCE):
            while not condition():  # noqa: ASYNC110
                await anyio.sleep(0.005)

    return wait


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def serving(stack: AsyncExitStack) -> Serve:
    """Serve a hub with these settings until the end of the test."""

    async def start(clock: Any = None, **settings: Any) -> tuple[Hub, Address]:
        hub = Hub(HubSettings(**settings), clock)
        return hub, await stack.enter_async_context(serve(hub))

    return start


@pytest.fixture
async def hub(serving: Serve) -> Hub:
    """A hub with the defaults, served."""
    hub, _ = await serving()
    return hub


@pytest.fixture
def dial(stack: AsyncExitStack) -> Dial:
    """Connect to a hub: as `user` with these groups and roles, or by the `query` of a recovery."""

    async def connect_to(
        hub: Hub,
        user: str = "u",
        groups: tuple[str, ...] = (),
        roles: tuple[str, ...] = (),
        *,
        protocol: str = PROTOBUF_SUBPROTOCOL,
        query: str | None = None,
        greeted: bool = True,
    ) -> Peer:
        if query is None:
            query = urlencode({"access_token": hub.mint(Grant(user, groups, roles))})
        websocket = await stack.enter_async_context(
            connect(
                f"{hub.address.client_url}?{query}",
                subprotocols=[protocol],  # type: ignore[list-item]
                compression=None,
                max_size=1 << 22,
                close_timeout=1,
            )
        )
        peer = Peer(websocket, codec_for(protocol))
        if greeted:
            peer.connected = await peer.expect(Connected)
        return peer

    return connect_to
