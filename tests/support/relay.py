"""A TCP relay before the hub: connections that break, a hub that cannot be reached."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.abc

GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: close sends RST (socket(7))


class Relay:
    """Made by `open_relay`. Dial `port` instead of the hub's."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.is_up = True  # else whoever dials is cut off
        self.is_silent = False  # whoever dials is heard and never answered
        self.cut_after: int | None = None  # bytes to the client; then its connection breaks
        self.dials = 0
        self.cuts = 0
        self._target = target
        self._carried: dict[anyio.abc.SocketStream, int] = {}

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/client/hubs/sidecar"

    async def cut(self) -> None:
        """Break every connection that there is."""
        for stream in list(self._carried):
            await self._break(stream)

    async def go_away(self) -> None:
        """Break them all and let nobody in until `is_up` is True again."""
        self.is_up = False
        await self.cut()

    async def carry(self, client: anyio.abc.SocketStream) -> None:
        """One connection, as long as it lasts."""
        self.dials += 1
        self._carried[client] = 0
        with suppress(*GONE):
            async with client:
                await self._attend(client)
        del self._carried[client]

    async def _attend(self, client: anyio.abc.SocketStream) -> None:
        if self.is_silent:
            while True:
                await client.receive()
        if not self.is_up:
            await self._break(client)
            return
        async with await anyio.connect_tcp("127.0.0.1", self._target) as hub:
            await self._join(client, hub)

    async def _join(self, client: anyio.abc.SocketStream, hub: anyio.abc.SocketStream) -> None:
        """Either direction ends both."""
        async with anyio.create_task_group() as tasks:

            async def up() -> None:
                with suppress(*GONE):
                    async for data in client:
                        await hub.send(data)
                tasks.cancel_scope.cancel()

            tasks.start_soon(up)
            with suppress(*GONE):
                async for data in hub:
                    await self._down(data, client)
            tasks.cancel_scope.cancel()

    async def _down(self, data: bytes, client: anyio.abc.SocketStream) -> None:
        self._carried[client] += len(data)
        if self.cut_after is None or self._carried[client] < self.cut_after:
            await client.send(data)
            return
        await client.send(data[: len(data) // 2])  # in the middle of a frame
        await self._break(client)

    async def _break(self, client: anyio.abc.SocketStream) -> None:
        self.cuts += 1
        raw = client.extra(anyio.abc.SocketAttribute.raw_socket)
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        await client.aclose()


@asynccontextmanager
async def open_relay(target: int) -> AsyncIterator[Relay]:
    """A relay to the port `target` on loopback; everything ends with the block."""
    relay = Relay(target)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    relay.port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, relay.carry)
        yield relay
        tasks.cancel_scope.cancel()
