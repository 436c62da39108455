"""The denominator for bulk: bytes through the same hub process, with the same codec and library.

The pump is what the sidecar could be at best: a process that sends the same few buffers over and
over, without envelopes, files, digests or acks of publishes; a receiver in our process that
decodes the frames and counts. A sliding window keeps it below the hub's bounds of 16 MB and 1,000
messages. Both ends have the allocator settings of the sidecar and yield as it does.

`python -m tests.bench.pump URL CODEC` is the sending process: it does what it is told over the
group `pump.orders`, and sends into the group `pump.data`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from sidecar.allocator import tune_malloc
from sidecar.protocol.names import Grant
from sidecar.protocol.webpubsub import codec_for
from sidecar.protocol.webpubsub.frames import (
    JSON_SUBPROTOCOL,
    PROTOBUF_SUBPROTOCOL,
    Codec,
    Message,
    SendToGroup,
    SequenceAck,
)
from sidecar.websocket import MAX_INBOUND
from tests.bench.stage import HubAt, first_line, process

DATA, ORDERS = "pump.data", "pump.orders"
MESSAGE = 256 * 1024  # bytes; the largest chunk that a sidecar sends
BUFFERS = 8  # that the sender rotates over, so that it does not live off one hot cache line
WINDOW_BYTES = 4 * 1024 * 1024  # what a sidecar grants an attachment, too
WINDOW_MESSAGES = 512
ACK_BYTES = 1024 * 1024  # to the hub and to the sender
ACK_MESSAGES = 64
YIELD_BYTES = 64 * 1024
YIELD_MESSAGES = 16
SOURCE = Grant("pump-source", (ORDERS,), (f"webpubsub.sendToGroup.{DATA}",))
SINK = Grant("pump-sink", (DATA,), (f"webpubsub.sendToGroup.{ORDERS}",))


@asynccontextmanager
async def connected(url: str, codec: Codec) -> AsyncIterator[ClientConnection]:
    """A websocket to the hub, set up as the sidecar's are."""
    async with connect(
        url,
        subprotocols=[Subprotocol(codec.subprotocol)],
        compression=None,
        ping_interval=None,
        max_size=MAX_INBOUND,
        write_limit=(64 * 1024, 16 * 1024),
    ) as socket:
        await socket.recv()  # connected
        yield socket


class Source:
    """The sending process."""

    def __init__(self, socket: ClientConnection, codec: Codec) -> None:
        self._socket = socket
        self._codec = codec
        self._sent = 0
        self._seen = 0
        self._moved = anyio.Event()

    async def run(self) -> None:
        async with anyio.create_task_group() as group:
            async for data in self._socket:
                frame = self._codec.decode_downstream(data)
                if not isinstance(frame, Message):
                    continue
                await self._socket.send(
                    self._codec.encode_upstream(SequenceAck(frame.sequence_id or 0))
                )
                order = json.loads(frame.data)
                if "seen" in order:
                    self._seen = order["seen"]
                    self._moved.set()
                else:
                    group.start_soon(self._pump, order["count"], order["size"])

    async def _pump(self, count: int, size: int) -> None:
        self._sent = self._seen = 0
        buffers = [os.urandom(size) for _ in range(BUFFERS)]
        window = max(1, min(WINDOW_MESSAGES, WINDOW_BYTES // size))
        messages = pending = 0
        for number in range(count):
            while self._sent - self._seen >= window:
                self._moved = anyio.Event()
                await self._moved.wait()
            frame = SendToGroup(DATA, buffers[number % BUFFERS])
            await self._socket.send(self._codec.encode_upstream(frame))
            self._sent += 1
            messages, pending = messages + 1, pending + size
            if messages >= YIELD_MESSAGES or pending >= YIELD_BYTES:
                messages = pending = 0
                await anyio.lowlevel.checkpoint()


@dataclass(slots=True)
class Pump:
    """The receiving end, in our process."""

    pid: int
    _socket: ClientConnection
    _codec: Codec

    async def run(self, count: int, size: int) -> float:
        """Seconds for `count` messages of `size` bytes, from the order to the last of them."""
        began = time.perf_counter()
        await self._order({"count": count, "size": size})
        messages = total = unacked = 0
        last = 0
        step = max(1, min(ACK_MESSAGES, ACK_BYTES // size))
        while messages < count:
            frame = self._codec.decode_downstream(await self._socket.recv())
            if not isinstance(frame, Message):
                continue
            messages += 1
            total += len(frame.data)
            unacked += 1
            last = frame.sequence_id or 0
            if unacked >= step or messages == count:
                unacked = 0
                await self._socket.send(self._codec.encode_upstream(SequenceAck(last)))
                await self._order({"seen": messages})
        seconds = time.perf_counter() - began
        assert total == count * size, f"{total} bytes came, {count * size} were sent"
        return seconds

    async def _order(self, order: dict[str, int]) -> None:
        frame = SendToGroup(ORDERS, json.dumps(order).encode())
        await self._socket.send(self._codec.encode_upstream(frame))


@asynccontextmanager
async def pump(hub: HubAt, *, codec: str = "protobuf") -> AsyncIterator[Pump]:
    """A sending process, and us."""
    tune_malloc()
    own = codec_for(PROTOBUF_SUBPROTOCOL if codec == "protobuf" else JSON_SUBPROTOCOL)
    url = hub.client_url(SOURCE)
    with process("-m", "tests.bench.pump", url, own.subprotocol) as child:
        await first_line(child)
        async with connected(hub.client_url(SINK), own) as socket:
            yield Pump(child.pid, socket, own)


async def main(url: str, subprotocol: str) -> None:
    tune_malloc()
    codec = codec_for(subprotocol)
    async with connected(url, codec) as socket:
        print("connected", flush=True)
        await Source(socket, codec).run()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
