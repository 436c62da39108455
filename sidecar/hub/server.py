"""The hub on a port: uvicorn with starlette, REST and WebSocket side by side.

uvicorn is used below its public surface in two places, each a subclass here. Its server would
install signal handlers and wake ten times a second; ours is told when to stop. Its WebSocket
lacks what a stand-in needs: to cut a connection, and to close one that broke the protocol in a
way that lets the close frame arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route, WebSocketRoute
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from sidecar.errors import SettingsError
from sidecar.hub.endpoint import SOCKET, ClientEndpoint
from sidecar.hub.faultrest import FaultEndpoint
from sidecar.hub.hub import Address, Hub
from sidecar.hub.platform.endpoint import METHODS as PLATFORM_METHODS
from sidecar.hub.platform.endpoint import PlatformEndpoint
from sidecar.hub.platform.file import PlatformFile
from sidecar.hub.rest import METHODS, RestEndpoint
from sidecar.hub.settings import CLOSE_GRACE, HubSettings

LOOK = 0.2  # seconds between two looks for what has outlived its time
SHUTDOWN_GRACE = 2  # seconds for open requests when the hub stops


class HubSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, which the endpoint finds in its scope."""

    broke_protocol = False

    def abort(self) -> None:
        self.transport.abort()

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope["extensions"][SOCKET] = self  # type: ignore[assignment]

    def handle_parser_exception(self) -> None:
        # uvicorn would close at once. Closing with unread data makes TCP reset the connection,
        # and the reset can overtake the close frame: read and discard until the peer is gone.
        if self.broke_protocol:
            return
        self.broke_protocol = True
        assert self.conn.close_sent is not None
        code = self.conn.close_sent.code
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": ""})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.write_eof()  # a peer that got the close frame closes when it sees this
        self.close_timer = self.loop.call_later(CLOSE_GRACE, self.transport.abort)
        self.transport.resume_reading()

    async def send(self, message: Any) -> None:
        try:
            await super().send(message)
        except RuntimeError:
            if self.close_sent:  # the connection broke after the writer had looked
                raise ClientDisconnected from None
            raise
        if self.close_sent:
            self.handshake_complete = True  # by a denial: uvicorn would log that nobody answered


def _http_of(hub: Hub) -> type[H11Protocol]:
    """uvicorn's HTTP, which lets nobody in while the hub is away."""

    class HubHttp(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if hub.is_away:
                transport.abort()

    return HubHttp


class _Server(uvicorn.Server):
    """uvicorn's server inside somebody else's event loop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = anyio.Event()
        self._stop = anyio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    async def main_loop(self) -> None:
        await self._stop.wait()

    def stop(self) -> None:
        self._stop.set()

    def cut_all(self) -> None:
        """Cut every connection, whatever it is for."""
        for connection in tuple(self.server_state.connections):
            connection.transport.abort()


@contextlib.asynccontextmanager
async def serve(hub: Hub) -> AsyncIterator[Address]:
    """Serve `hub` until the block ends; yields where. Open connections are closed then."""
    routes = _routes(hub)
    if hub.settings.platform:
        routes.append(await anyio.to_thread.run_sync(_open_platform, hub))
    listener = _bind(hub.settings)
    server = _Server(_config(hub, routes))
    host, port = listener.getsockname()[:2]
    address = hub.listen_at(host, port, server.cut_all)
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_expire, hub)
        tasks.start_soon(_serve, server, listener)
        await server.is_up.wait()
        try:
            yield address
        except Exception as error:
            failure = error  # raised below, so that the task group does not wrap it
        finally:
            server.stop()
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _serve(server: _Server, listener: socket.socket) -> None:
    # Shielded, because uvicorn closes its connections only when it is stopped; that is bounded.
    with anyio.CancelScope(shield=True):
        await server.serve([listener])


async def _expire(hub: Hub) -> None:
    """Sessions are refused on time by themselves; this frees their memory. Connections that end
    with their token do so here, and sooner than within a second."""
    while True:
        await anyio.sleep(min(LOOK, hub.settings.retention))
        hub.expire()


def _bind(settings: HubSettings) -> socket.socket:
    try:
        listener = socket.create_server(
            (settings.host, settings.port),
            family=socket.AF_INET6 if ":" in settings.host else socket.AF_INET,
        )
        # Accepted sockets inherit it. asyncio sets it only on sockets that name their protocol,
        # and without it small messages wait 40 ms for a delayed ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        ) from None


def _open_platform(hub: Hub) -> BaseRoute:
    """The platform endpoint, with the state that an earlier hub left. It blocks."""
    path = hub.settings.platform_state
    file = None
    if path is not None:
        file = PlatformFile(path, hub.clock)
        file.load(hub.platform)
    endpoint = PlatformEndpoint(hub, hub.platform, file)
    return Route("/platform/v1/{path:path}", endpoint.serve, methods=PLATFORM_METHODS)


def _routes(hub: Hub) -> list[BaseRoute]:
    clients = ClientEndpoint(hub)
    routes: list[BaseRoute] = [
        WebSocketRoute("/client/hubs/{hub}", clients.serve),
        WebSocketRoute("/client/", clients.serve),
        WebSocketRoute("/client", clients.serve),
        Route("/api/{path:path}", RestEndpoint(hub).serve, methods=METHODS),
    ]
    if hub.settings.faults:
        faults = FaultEndpoint(hub).serve
        routes.append(Route("/faults", faults, methods=["GET", "DELETE"]))
        routes.append(Route("/faults/{fault}", faults, methods=["POST"]))
    return routes


def _config(hub: Hub, routes: list[BaseRoute]) -> uvicorn.Config:
    settings = hub.settings
    return uvicorn.Config(
        Starlette(routes=routes),
        http=_http_of(hub),
        ws=HubSocket,
        ws_max_size=settings.max_message,
        ws_ping_interval=settings.ping_interval,
        ws_ping_timeout=settings.ping_timeout,
        ws_per_message_deflate=False,
        loop="none",
        lifespan="off",
        # uvicorn logs every URL at INFO, and a URL may hold a token.
        log_config=None,
        log_level="warning",
        access_log=False,
        date_header=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_GRACE,
    )
