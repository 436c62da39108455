"""The I/O under one session: a WebSocket, one reader and one writer.

The reader hands each message to the relay; the writer writes what the session has queued, as
fast as the socket takes it. So a slow client fills its session's buffer, which is bounded, and
holds up nobody else; and a client that does not read its replies is not read from.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import anyio
from anyio.lowlevel import checkpoint
from starlette.websockets import WebSocket, WebSocketDisconnect

from sidecar.clock import Clock
from sidecar.errors import ProtocolError
from sidecar.hub.faults import Direction, Faults
from sidecar.hub.relay import Relay
from sidecar.hub.session import HubSession
from sidecar.hub.settings import CLOSE_GRACE

# The others on the event loop get a turn after so many messages or bytes: neither reading nor
# writing suspends by itself while the socket is ready.
TURN_MESSAGES = 32
TURN_BYTES = 1 << 18

UNSUPPORTED_DATA, INVALID_DATA = 1003, 1007  # close codes, RFC 6455 §7.4.1


class Socket(Protocol):
    """What we need of the server's socket that ASGI does not offer."""

    broke_protocol: bool

    def abort(self) -> None: ...


class SocketLink:
    """One WebSocket, from its handshake to its end."""

    def __init__(
        self,
        websocket: WebSocket,
        socket: Socket,
        session: HubSession,
        relay: Relay,
        faults: Faults,
        clock: Clock,
    ) -> None:
        self.session = session
        self.ended = anyio.Event()
        self._websocket = websocket
        self._socket = socket
        self._relay = relay
        self._faults = faults
        self._clock = clock
        self._awake = anyio.Event()
        self._drained = anyio.Event()
        self._closing: tuple[int, str] | None = None
        self._can_write = True
        self._is_cut = False

    def wake(self) -> None:
        self._awake.set()

    def close(self, code: int, reason: str = "") -> None:
        if self._closing is None:
            self._closing = code, reason
            self._awake.set()
            # Whoever does not read cannot take a close frame either.
            asyncio.get_running_loop().call_later(CLOSE_GRACE, self._socket.abort)

    def abort(self) -> None:
        self._is_cut = True  # what had come in before is not carried out any more
        self._socket.abort()
        self._drained.set()

    async def run(self) -> bool:
        """Read and write until the WebSocket ends; whether its session has to end with it."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write)
            code = await self._read()
            tasks.cancel_scope.cancel()
        return code == 1000 or self._socket.broke_protocol

    async def _read(self) -> int:
        """Read to the end; its close code (1005 if there was none)."""
        messages = size = 0
        while True:
            event = await self._websocket.receive()
            if event["type"] == "websocket.disconnect":
                code: int = event["code"]
                return code
            text: str | None = event.get("text")
            message: bytes | str = event["bytes"] if text is None else text
            if self._closing is None and not self._is_cut:
                self._receive(message)
                if self._faults.cuts:
                    self._faults.count_frame(self.session, Direction.IN)
            messages += 1
            size += len(message)
            if messages >= TURN_MESSAGES or size >= TURN_BYTES:
                messages = size = 0
                await checkpoint()
            while self._must_hold():
                self._drained = anyio.Event()
                await self._drained.wait()

    def _must_hold(self) -> bool:
        is_ours = self._can_write and self.session.link is self
        return is_ours and self.session.is_congested

    def _receive(self, message: bytes | str) -> None:
        is_binary = self.session.codec.is_binary
        if isinstance(message, bytes) is not is_binary:
            wanted = "binary" if is_binary else "text"
            self._relay.end(self.session, UNSUPPORTED_DATA, f"expected {wanted} messages")
            return
        try:
            self._relay.receive(self.session, message, now=self._clock.now())
        except ProtocolError as error:
            self._relay.end(self.session, INVALID_DATA, str(error))

    async def _write(self) -> None:
        kind = "bytes" if self.session.codec.is_binary else "text"
        messages = size = 0
        try:
            while True:
                message = self._next_message()
                if message is None:
                    if self._closing is not None:
                        await self._websocket.close(self._closing[0], _short(self._closing[1]))
                        return
                    await self._wait()
                    continue
                await self._websocket.send({"type": "websocket.send", kind: message})
                self._drained.set()
                if self._faults.cuts:
                    self._faults.count_frame(self.session, Direction.OUT)
                messages += 1
                size += len(message)
                if messages >= TURN_MESSAGES or size >= TURN_BYTES:
                    messages = size = 0
                    await checkpoint()
        except WebSocketDisconnect:
            pass  # the reader learns the code
        finally:
            self._can_write = False
            self._drained.set()

    def _next_message(self) -> bytes | str | None:
        if self.session.link is not self or self._is_cut:
            return None  # taken over: what is queued belongs to the new WebSocket
        return self.session.next_message(now=self._clock.now())

    async def _wait(self) -> None:
        self._awake = anyio.Event()
        deadline = self.session.next_deadline()
        if deadline is None:
            await self._awake.wait()
            return
        with anyio.move_on_after(max(0.0, deadline - self._clock.now())):
            await self._awake.wait()


def _short(reason: str) -> str:
    """A close frame holds 123 bytes of reason (RFC 6455 §5.5)."""
    return reason.encode()[:123].decode(errors="ignore")
