"""A controller in bare envelopes, for what no client of ours would send."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
from websockets.asyncio.client import ClientConnection, connect

from sidecar.clock import SystemClock
from sidecar.errors import CallError
from sidecar.hub import Hub
from sidecar.identity import new_id
from sidecar.protocol import envelope as wire
from sidecar.protocol.names import Scope, Subject, controller_grant
from sidecar.protocol.webpubsub import codec_for
from sidecar.protocol.webpubsub.frames import (
    PROTOBUF_SUBPROTOCOL,
    Ack,
    Connected,
    DataType,
    Message,
    SendToGroup,
    SequenceAck,
)

E = TypeVar("E")

WIDE = [1 << 40, 1 << 40]  # a window that never shuts
PATIENCE = 5.0


class RawPeer:
    """One connection to the hub with a controller's token. Made by `raw_peer`."""

    def __init__(self, websocket: ClientConnection, controller: str, run: str, scope: Scope):
        self.controller = controller
        self.subject = Subject(run)
        self.group = (
            self.subject.commands_group if scope is Scope.FULL else self.subject.watch_group
        )
        self.attachment = b""
        self.acks: deque[Ack] = deque()
        self.connection_id = ""
        self._websocket = websocket
        self._codec = codec_for(PROTOBUF_SUBPROTOCOL)
        self._bytes = self._messages = self._ack_id = 0
        self._came: deque[Any] = deque()
        self._clock = SystemClock()

    def new_id(self) -> bytes:
        return new_id(self._clock)

    # sending

    async def publish(self, data: bytes, *, group: str | None = None) -> None:
        """One hub message of these very bytes."""
        self._ack_id += 1
        frame = SendToGroup(group or self.group, data, self._ack_id, DataType.BINARY)
        await self._websocket.send(self._codec.encode_upstream(frame))

    def head(self, size: int = 0) -> bytes:
        self._bytes += size
        self._messages += 1
        return wire.encode(wire.Head(self.attachment, self._bytes, self._messages))

    async def send(self, *envelopes: wire.Envelope | bytes) -> None:
        """Envelopes of our attachment; bytes go as they are."""
        body = b"".join(x if isinstance(x, bytes) else wire.encode(x) for x in envelopes)
        await self.publish(self.head(len(body)) + body)

    async def call(self, command: str, arguments: Any = None, **options: Any) -> bytes:
        """A call; its id."""
        id = options.pop("id", None) or self.new_id()
        raw = options.pop("raw", None)
        raw = wire.dumps({} if arguments is None else arguments) if raw is None else raw
        await self.send(wire.Call(id, command, raw, **options))
        return id

    async def attach(self, *, window: list[int] = WIDE, **options: Any) -> wire.Attached:
        nonce = self.new_id()
        request = wire.Attach(self.controller, nonce, [1], window, **options)
        await self.publish(wire.encode(request))
        answer = await self.expect(wire.Attached, nonce=nonce)
        self.attachment = answer.attachment
        self._bytes = self._messages = 0
        return answer

    # receiving

    def forget(self) -> None:
        """All that came and that nobody asked for."""
        self._came.clear()

    async def expect(self, kind: type[E], *, timeout: float = PATIENCE, **fields: Any) -> E:
        """The next envelope of this kind with these fields; others wait for their turn."""
        with anyio.fail_after(timeout):
            while True:
                for envelope in self._came:
                    if isinstance(envelope, kind) and all(
                        getattr(envelope, name) == value for name, value in fields.items()
                    ):
                        self._came.remove(envelope)
                        return envelope
                await self._receive()

    async def result(self, id: bytes) -> Any:
        """The value of a call's result; raises its error."""
        result = await self.expect(wire.Result, id=id)
        if result.error is not None:
            raise wire.error_from(result.error)
        return None if result.value is None else wire.loads(result.value)

    async def error(self, id: bytes) -> CallError:
        """The error of a call, which has to have one."""
        result = await self.expect(wire.Result, id=id)
        assert result.error is not None, wire.loads(result.value or b"\xf6")
        return wire.error_from(result.error)

    async def refusal(self) -> str:
        """The name of the error in the hub's answer to the latest publish."""
        with anyio.fail_after(PATIENCE):
            while not self.acks or self.acks[-1].ack_id != self._ack_id:
                await self._receive()
        return self.acks[-1].error_name or ""

    async def _receive(self) -> None:
        frame = self._codec.decode_downstream(await self._websocket.recv())
        match frame:
            case Connected():
                self.connection_id = frame.connection_id
            case Ack():
                self.acks.append(frame)
            case Message():
                assert frame.sequence_id is not None
                ack = self._codec.encode_upstream(SequenceAck(frame.sequence_id))
                await self._websocket.send(ack)
                self._came.extend(wire.decode(frame.data))

    async def close_code(self) -> int | None:
        with anyio.fail_after(PATIENCE):
            await self._websocket.wait_closed()
        return self._websocket.close_code


@asynccontextmanager
async def raw_peer(
    hub: Hub, controller: str = "raw", *, run: str = "demo", scope: Scope = Scope.FULL
) -> AsyncIterator[RawPeer]:
    token = hub.mint(controller_grant(controller, [run], scope))
    async with connect(
        f"{hub.address.client_url}?access_token={token}",
        subprotocols=[PROTOBUF_SUBPROTOCOL],  # type: ignore[list-item]
        compression=None,
        max_size=1 << 22,
        close_timeout=1,
    ) as websocket:
        yield RawPeer(websocket, controller, run, scope)
