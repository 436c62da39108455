"""Hands behind a socket, in one process: real socket, real programs, both ends to look into."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from sidecar.hands.apart import wire
from sidecar.hands.apart.link import Link
from sidecar.hands.apart.remote import SocketHands
from sidecar.hands.apart.server import Server
from sidecar.hands.local.hands import LocalHands


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    return listener


@asynccontextmanager
async def serve(local: LocalHands, path: Path, **options: Any) -> AsyncIterator[None]:
    """A server for `local` at `path`, which is free again at the end."""
    async with serve_with(Server(local, **options), path):
        yield


@asynccontextmanager
async def serve_with(server: Server, path: Path) -> AsyncIterator[None]:
    listener = listen(path)
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve, listener)
        try:
            yield
        finally:
            group.cancel_scope.cancel()
    os.unlink(path)


@asynccontextmanager
async def reach(local: LocalHands, path: Path) -> AsyncIterator[SocketHands]:
    """`local` through a socket at `path`."""
    async with serve(local, path), SocketHands.open_socket(str(path)) as hands:
        await hands.stat(".")  # connected
        yield hands


class FakeHands:
    """A hands that says what a test makes it say. It greets, pings, and gives every other request
    to `answer`."""

    def __init__(self, answer: Callable[[FakeHands, wire.Request], None]) -> None:
        self.requests: list[str] = []
        self.incarnation = b"i" * 16
        self.hello: wire.Message | None = None  # in place of a good one
        self.links: list[Link] = []
        self._answer = answer

    @property
    def link(self) -> Link:
        """To the core that came last."""
        return self.links[-1]

    def reply(self, request: wire.Request, value: Any, descriptors: Sequence[int] = ()) -> None:
        self.link.send(wire.Reply(request.id, value), descriptors)

    @asynccontextmanager
    async def at(self, path: Path) -> AsyncIterator[FakeHands]:
        """In the block it listens at `path`."""
        with listen(path) as listener:
            listener.setblocking(False)
            async with anyio.create_task_group() as group:
                group.start_soon(self._accept, listener)
                try:
                    yield self
                finally:
                    group.cancel_scope.cancel()
                    for link in self.links:
                        link.end("over")
        os.unlink(path)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            link = Link(
                sock, limit=wire.MAX_REQUEST, on_message=self._receive, on_end=lambda why: None
            )
            self.links.append(link)
            link.listen()

    def _receive(self, message: wire.Message, descriptors: list[int]) -> None:
        match message:
            case wire.Hello():
                facts = {"incarnation": self.incarnation, "pid": 7, "capabilities": {}}
                self.link.send(self.hello or wire.Hello(wire.VERSION, facts))
            case wire.Request(method="ping"):
                self.reply(message, None)
            case wire.Request():
                self.requests.append(message.method)
                self._answer(self, message)
