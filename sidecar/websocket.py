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
from urllib.parse import SplitResult, urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidMessage,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    ProxyError,
    WebSocketException,
)
from websockets.frames import CloseCode
from websockets.proxy import get_proxy, parse_proxy
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from sidecar.certificates import TrustStore, load_trust_store
from sidecar.threads import in_thread, is_shortage
from sidecar.tokens import Token, is_loopback
from sidecar.unreached import SENSELESS_PROXY, Way, explain, explain_proxy, explain_silence

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
    """There is no websocket; `status` is that of HTTP, if something answered, and `date` what its
    header of that name said."""

    def __init__(
        self, sentence: str, status: int | None = None, *, date: str | None = None
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.date = date


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
        response = connection.response
        self.date: str | None = None if response is None else response.headers.get("Date")

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
        self._trust = None if ssl_context is None else TrustStore(ssl_context, "what we were given")
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
        trust = await self._trust_store() if parts.scheme == "wss" else None
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
                ssl=None if trust is None else trust.context,
            )
        except InvalidStatus as error:
            status, date = error.response.status_code, error.response.headers.get("Date")
            raise DialFailed(f"HTTP {status}", status, date=date) from None
        except TimeoutError:
            raise DialFailed(explain_silence(_way(url, is_local, trust), timeout)) from None
        except (OSError, EOFError, ValueError, ImportError, WebSocketException) as error:
            raise DialFailed(_sentence(error, parts, _way(url, is_local, trust))) from None
        except RuntimeError as error:  # asyncio looks names up in a thread
            if not is_shortage(error):
                raise
            raise DialFailed(str(error)) from None
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

    async def _trust_store(self) -> TrustStore:
        if self._trust is None:  # once: it takes some 25 ms to read
            self._trust = await in_thread(load_trust_store)
        return self._trust


def _closed(error: ConnectionClosed) -> WebSocketClosed:
    if error.rcvd is not None:
        return WebSocketClosed(error.rcvd.code, error.rcvd.reason)
    if error.sent is not None and error.sent.code != CloseCode.NORMAL_CLOSURE:
        return WebSocketClosed(error.sent.code, error.sent.reason, by_us=True)
    return WebSocketClosed(None, "")


def _way(url: str, is_local: bool, trust: TrustStore | None) -> Way:
    """For sentences: how `url` was dialled. What makes no sense is left out."""
    parts = urlsplit(url)
    default = 443 if parts.scheme == "wss" else 80
    host, proxy = f"{parts.hostname}:{parts.port or default}", None
    try:
        named = None if is_local else get_proxy(parse_uri(url))
        if named is not None:
            found = parse_proxy(named)
            proxy = f"{found.host}:{found.port}"
    except (ValueError, WebSocketException):
        pass
    return Way(host, proxy) if trust is None else Way(host, proxy, trust.source)


def _sentence(error: Exception, parts: SplitResult, way: Way) -> str:
    """Without what `InvalidURI` and `InvalidProxy` quote: URLs hold tokens and passwords."""
    match error:
        case InvalidProxyStatus():
            return explain_proxy(way, f"HTTP {error.response.status_code}")
        case InvalidProxy():
            return f"{SENSELESS_PROXY}; http://HOST:PORT expected"
        case ProxyError() if not isinstance(error.__cause__, OSError):
            return f"{way.first} does not speak as a proxy does: check https_proxy"
        case InvalidMessage() if parts.scheme == "ws":
            return f"{way.host} does not speak HTTP: no hub, or is it wss:// there?"
        case InvalidMessage():
            return f"{way.host} does not speak HTTP: no hub?"
    if isinstance(error, OSError | EOFError | ProxyError):
        return explain(error, way)
    if hasattr(error, "uri"):
        return type(error).__name__
    return f"{type(error).__name__}: {error}"


@functools.cache
def _complain_without_speedups() -> None:
    if importlib.util.find_spec("websockets.speedups") is None:
        _log.warning("websockets runs without its C speed-ups: bulk is 2 to 4 times slower")
