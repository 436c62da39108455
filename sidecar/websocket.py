"""One websocket to the hub: the only place that knows the library under it.

Four verbs (`send`, `receive`, `close`, `abort`), so that another library could take its place.

Compression stays off: on random bytes it makes a loop of 30 MB/s out of 500, and it mixes what
the agent writes with what others do. The library's own keepalive stays off: the channel has one
that reaches the service and not only a proxy (`protocol.liveness`). Pings from the service are
answered by the library. A proxy is taken from the environment (`https_proxy`, `no_proxy`),
except for loopback, which no proxy can reach.

The token travels in the Authorization header, to the host that was named and no other: no
redirect is followed, for the service makes none. The library logs headers and request lines at
DEBUG, so its logger is kept above that, whatever the root logger says.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import socket
import ssl
from urllib.parse import urlencode, urlsplit, urlunsplit

import anyio.to_thread
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import CloseCode
from websockets.typing import Subprotocol

from sidecar.tokens import Token, is_loopback

MAX_INBOUND = 1024 * 1024 + 64 * 1024  # bytes; the service's "1 MB", and room for its framing
WRITE_HIGH, WRITE_LOW = (
    64 * 1024,
    16 * 1024,
)  # bytes in the buffer: `send` waits above, goes on below
CLOSE_TIMEOUT = 1.0  # seconds for the far end to answer a close

_log = logging.getLogger(__name__)
_library_log = logging.getLogger(f"{__name__}.library")
_library_log.setLevel(logging.INFO)


class DialFailed(Exception):
    """There is no websocket; `status` is that of HTTP, if something answered."""

    def __init__(self, sentence: str, status: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status


class WebSocketClosed(Exception):
    """The websocket ended. `code` is None if no close frame came; with `by_us`, it is what we
    closed with because what came broke RFC 6455 or was too large."""

    def __init__(self, code: int | None, reason: str, *, by_us: bool = False) -> None:
        super().__init__(f"closed with {code}: {reason}")
        self.code = code
        self.reason = reason
        self.by_us = by_us


class WebSocket:
    """An open websocket. `is_remote`: over TLS to another machine, so a paid, shared service."""

    def __init__(self, connection: ClientConnection, *, is_remote: bool) -> None:
        self._connection = connection
        self.is_remote = is_remote

    async def send(self, message: bytes | str) -> None:
        """Queue `message`, and wait while the buffer is above its high mark. It need not suspend.

        Raises `WebSocketClosed`. When cancelled, the message goes out all the same."""
        try:
            await self._connection.send(message)
        except ConnectionClosed as error:
            raise _closed(error) from None

    async def receive(self) -> bytes | str:
        """The next message. Raises `WebSocketClosed` after the last. Cancelling loses nothing;
        it need not suspend."""
        try:
            return await self._connection.recv()
        except ConnectionClosed as error:
            raise _closed(error) from None

    async def close(self) -> None:
        """Say goodbye with 1000, which makes the service forget the connection. Bounded."""
        await self._connection.close()

    def abort(self) -> None:
        """Drop the TCP connection, as a broken network would. Harmless when it is closed."""
        self._connection.transport.abort()


class _Connect(connect):
    """Without redirects."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class Dialer:
    """Opens websockets. `ssl_context` replaces the system's certificate store."""

    def __init__(self, subprotocol: str, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self._subprotocol = Subprotocol(subprotocol)
        self._ssl_context = ssl_context
        _complain_without_speedups()

    async def dial(self, token: Token, *, timeout: float) -> WebSocket:
        """A new connection. Raises `DialFailed`; cancelling it leaves nothing open."""
        headers = {"Authorization": f"Bearer {token.value}"}
        return await self._connect(token.url, headers, timeout)

    async def recover(
        self, url: str, connection_id: str, reconnection_token: str, *, timeout: float
    ) -> WebSocket:
        """The same for a dropped connection (client-spec 1.4), which needs no access token."""
        query = urlencode(
            {"awps_connection_id": connection_id, "awps_reconnection_token": reconnection_token}
        )
        parts = urlsplit(url)
        url = urlunsplit(parts._replace(query=f"{parts.query}&{query}".lstrip("&")))
        return await self._connect(url, {}, timeout)

    async def _connect(self, url: str, headers: dict[str, str], timeout: float) -> WebSocket:
        parts = urlsplit(url)
        is_local = is_loopback(parts.hostname or "")
        context = await self._context() if parts.scheme == "wss" else None
        # No `happy_eyeballs_delay`: asyncio's staggered race leaks the socket that won when it is
        # cancelled just then (measured on Python 3.11: every time).
        try:
            connection = await _Connect(
                url,
                additional_headers=headers,
                subprotocols=[self._subprotocol],
                compression=None,
                proxy=None if is_local else True,
                open_timeout=timeout,
                close_timeout=CLOSE_TIMEOUT,
                ping_interval=None,
                max_size=MAX_INBOUND,
                write_limit=(WRITE_HIGH, WRITE_LOW),
                logger=_library_log,
                ssl=context,
            )
        except InvalidStatus as error:
            status = error.response.status_code
            raise DialFailed(f"HTTP {status}", status) from None
        except TimeoutError:
            raise DialFailed(f"no answer within {timeout:.0f} s") from None
        except (OSError, EOFError, ValueError, ImportError, WebSocketException) as error:
            raise DialFailed(_sentence(error)) from None
        self._check(connection)
        return WebSocket(connection, is_remote=parts.scheme == "wss" and not is_local)

    def _check(self, connection: ClientConnection) -> None:
        chosen = connection.subprotocol or ""
        if chosen.lower() != self._subprotocol.lower():
            connection.transport.abort()
            raise DialFailed(f"the far end does not speak {self._subprotocol}: not a hub?")
        # Two small writes in a row would wait for a delayed ACK. asyncio does this itself for a
        # socket it opened, but not for one behind a proxy.
        sock = connection.transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def _context(self) -> ssl.SSLContext:
        if self._ssl_context is None:  # once: it reads the certificate store, some 25 ms
            self._ssl_context = await anyio.to_thread.run_sync(ssl.create_default_context)
        return self._ssl_context


def _closed(error: ConnectionClosed) -> WebSocketClosed:
    if error.rcvd is not None:
        return WebSocketClosed(error.rcvd.code, error.rcvd.reason)
    if error.sent is not None and error.sent.code != CloseCode.NORMAL_CLOSURE:
        return WebSocketClosed(error.sent.code, error.sent.reason, by_us=True)
    return WebSocketClosed(None, "")


def _sentence(error: Exception) -> str:
    """Without what `InvalidURI` and `InvalidProxy` quote: URLs hold tokens and passwords."""
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    if hasattr(error, "uri") or hasattr(error, "proxy"):
        return type(error).__name__
    return f"{type(error).__name__}: {error}"


@functools.cache
def _complain_without_speedups() -> None:
    if importlib.util.find_spec("websockets.speedups") is None:
        _log.warning("websockets runs without its C speed-ups: bulk is 2 to 4 times slower")
