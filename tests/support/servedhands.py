"""Hands behind a socket, in one process: real socket, real programs, both ends to look into."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from sidecar.hands.local import LocalHands
from sidecar.hands.remote import SocketHands
from sidecar.hands.server import Server


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    return listener


@asynccontextmanager
async def serve(local: LocalHands, path: Path, **options: Any) -> AsyncIterator[None]:
    """A server for `local` at `path`, which is free again at the end."""
    listener = listen(path)
    async with anyio.create_task_group() as group:
        group.start_soon(Server(local, **options).serve, listener)
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
