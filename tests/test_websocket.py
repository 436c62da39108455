from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable

import anyio
import pytest
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosedError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from sidecar import websocket
from sidecar.protocol.webpubsub.frames import PROTOBUF_SUBPROTOCOL
from sidecar.tokens import Token
from sidecar.websocket import Dialer, DialFailed, WebSocketClosed


async def echo(connection: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosedError):
        async for message in connection:
            await answer(connection, message)


async def answer(connection: ServerConnection, message: bytes | str) -> None:
    if message == b"leave":
        await connection.close(1001, "bye")
    else:
        await connection.send(message)


@contextlib.asynccontextmanager
async def server() -> AsyncIterator[Token]:
    subprotocols = [Subprotocol(PROTOBUF_SUBPROTOCOL)]
    async with serve_websocket(echo, "127.0.0.1", 0, subprotocols=subprotocols) as listening:
        port = listening.sockets[0].getsockname()[1]
        yield Token(f"ws://127.0.0.1:{port}/", "t")


async def test_bytes_and_text_come_back_as_they_went() -> None:
    async with server() as token:
        link = await Dialer(PROTOBUF_SUBPROTOCOL).dial(token, timeout=5.0)
        await link.send(b"\x00\xff")
        await link.send("text")
        assert [await link.receive(), await link.receive()] == [b"\x00\xff", "text"]
        assert not link.is_remote
        await link.close()


async def test_the_end_says_which_code_came() -> None:
    async with server() as token:
        link = await Dialer(PROTOBUF_SUBPROTOCOL).dial(token, timeout=5.0)
        await link.send(b"leave")
        with pytest.raises(WebSocketClosed) as closed:
            await link.receive()
        assert (closed.value.code, closed.value.reason, closed.value.by_us) == (1001, "bye", False)
        with pytest.raises(WebSocketClosed):
            await link.send(b"too late")


async def test_a_redirect_is_not_followed() -> None:
    reached: list[str] = []

    def elsewhere(connection: ServerConnection, request: Request) -> None:
        reached.append(request.headers.get("Authorization", "no token"))

    async with (
        serve_websocket(echo, "127.0.0.1", 0, process_request=elsewhere) as target,
        serve_websocket(echo, "127.0.0.1", 0, process_request=redirect_to(port_of(target))) as hub,
    ):
        token = Token(f"ws://127.0.0.1:{port_of(hub)}/", "t")
        with pytest.raises(DialFailed, match="HTTP 302") as failed:
            await Dialer(PROTOBUF_SUBPROTOCOL).dial(token, timeout=5.0)
    assert (failed.value.status, reached) == (302, [])


def port_of(listening: Server) -> int:
    port: int = next(iter(listening.sockets)).getsockname()[1]
    return port


def redirect_to(port: int) -> Callable[[ServerConnection, Request], Response]:
    def answer(connection: ServerConnection, request: Request) -> Response:
        response = connection.respond(302, "")
        response.headers["Location"] = f"ws://127.0.0.1:{port}/"
        return response

    return answer


async def test_an_aborted_link_ends_without_a_code() -> None:
    async with server() as token:
        link = await Dialer(PROTOBUF_SUBPROTOCOL).dial(token, timeout=5.0)
        link.abort()
        link.abort()
        with pytest.raises(WebSocketClosed) as closed:
            await link.receive()
        assert closed.value.code is None


async def test_small_messages_wait_for_no_delayed_ack() -> None:
    async with server() as token:
        link = await Dialer(PROTOBUF_SUBPROTOCOL).dial(token, timeout=5.0)
        sock = link._connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await link.close()


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
async def test_a_cancelled_dial_leaves_nothing_open() -> None:
    async with server() as token:
        dialer = Dialer(PROTOBUF_SUBPROTOCOL)
        before = len(os.listdir("/proc/self/fd"))
        for steps in range(12):
            async with anyio.create_task_group() as tasks:

                async def dial() -> None:
                    (await dialer.dial(token, timeout=5.0)).abort()

                tasks.start_soon(dial)
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        with anyio.fail_after(5.0):
            while len(os.listdir("/proc/self/fd")) > before:  # noqa: ASYNC110  (nobody rings)
                await anyio.sleep(0.01)


async def test_a_dial_that_is_not_answered_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts, and never reads
        token = Token(f"ws://127.0.0.1:{listener.getsockname()[1]}/", "t")
        with pytest.raises(DialFailed, match="no answer"):
            await Dialer(PROTOBUF_SUBPROTOCOL).dial(token, timeout=0.05)


async def test_a_closed_port_is_told_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(DialFailed, match=f"nobody listens at 127.0.0.1:{port}") as failed:
        await Dialer(PROTOBUF_SUBPROTOCOL).dial(Token(f"ws://127.0.0.1:{port}/", "t"), timeout=5.0)
    assert failed.value.status is None


async def test_tls_is_verified() -> None:
    async with server() as plain:  # speaks no TLS at all
        token = Token(plain.url.replace("ws://", "wss://"), "t")
        with pytest.raises(DialFailed):
            await Dialer(PROTOBUF_SUBPROTOCOL).dial(token, timeout=5.0)


async def test_a_context_of_certificates_may_be_given() -> None:
    context = ssl.create_default_context()
    dialer = Dialer(PROTOBUF_SUBPROTOCOL, ssl_context=context)
    assert (await dialer._trust_store()).context is context


async def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://user:hush@127.0.0.1:1")
    async with server() as token:
        link = await Dialer(PROTOBUF_SUBPROTOCOL).dial(token, timeout=5.0)
        await link.close()


async def test_a_proxy_of_the_environment_is_asked_for_every_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    async def proxy(client: anyio.abc.SocketStream) -> None:
        async with client:
            asked.append((await client.receive()).split(b"\r\n")[0])
            await client.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    monkeypatch.setenv("https_proxy", f"http://user:hush@127.0.0.1:{port}")
    monkeypatch.delenv("no_proxy", raising=False)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, proxy)
        with pytest.raises(DialFailed) as failed:
            token = Token("wss://hub.invalid/client/hubs/h", "t")
            await Dialer(PROTOBUF_SUBPROTOCOL).dial(token, timeout=5.0)
        tasks.cancel_scope.cancel()
    assert asked == [b"CONNECT hub.invalid:443 HTTP/1.1"]
    assert "hush" not in str(failed.value)


def test_the_library_may_not_log_headers_whatever_the_root_says() -> None:
    logging.getLogger().setLevel(logging.DEBUG)
    try:
        assert not websocket._library_log.isEnabledFor(logging.DEBUG)
    finally:
        logging.getLogger().setLevel(logging.WARNING)


def test_missing_speed_ups_are_complained_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    websocket._complain_without_speedups.cache_clear()
    Dialer(PROTOBUF_SUBPROTOCOL)
    Dialer(PROTOBUF_SUBPROTOCOL)
    assert caplog.text.count("speed-ups") == 1
    websocket._complain_without_speedups.cache_clear()
