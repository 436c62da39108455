"""The least that a client of the hub can be: `python -m tests.bench.bareclient URL GROUP`.

It connects with the library that the sidecar uses, publishes one message, and waits.
"""

from __future__ import annotations

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

SUBPROTOCOL = "protobuf.reliable.webpubsub.azure.v1"


async def main(url: str, group: str) -> None:
    async with connect(
        url, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, ping_interval=None
    ) as socket:
        await socket.recv()
        await socket.send(publish(group.encode(), b"hello"))
        async for _ in socket:
            pass


def publish(group: bytes, data: bytes) -> bytes:
    """`sendToGroup`, by hand: field 1 of an upstream message; its group, ack id 1 and data."""
    inner = _field(b"\x0a", group) + b"\x10\x01" + _field(b"\x1a", _field(b"\x12", data))
    return _field(b"\x0a", inner)


def _field(key: bytes, value: bytes) -> bytes:
    assert len(value) < 0x80, "lengths of one byte are enough here"
    return key + bytes((len(value),)) + value


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
