"""The stream socket to a program, beside its terminal.

Bytes both ways, for one task that sends and one that receives. It ends when nobody at the other
end holds it any more, or when it is closed here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from sidecar.bell import Bell

READ_SIZE = 64 * 1024


class Control:
    """Owns the descriptor. Nothing here waits in a call, whatever its mode: a hands in another
    process shares the open socket and may change that."""

    def __init__(self, fd: int) -> None:
        self._socket: socket.socket | None = socket.socket(
            socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd
        )
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._ready = Bell()

    async def send(self, data: bytes) -> bool:
        """Send all of `data`; False if the other end is gone. Cancelling leaves a part sent."""
        left = memoryview(data)
        while left and self._socket is not None:
            try:
                left = left[self._socket.send(left, socket.MSG_DONTWAIT) :]
            except (BlockingIOError, InterruptedError):
                await self._wait(self._socket, self._loop.add_writer, self._loop.remove_writer)
            except OSError:  # EPIPE, ECONNRESET
                return False
        return not left

    async def receive(self) -> bytes:
        """What came, at least one byte; nothing at the end. Cancelling loses nothing."""
        while self._socket is not None:
            try:
                return self._socket.recv(READ_SIZE, socket.MSG_DONTWAIT)
            except (BlockingIOError, InterruptedError):
                await self._wait(self._socket, self._loop.add_reader, self._loop.remove_reader)
            except OSError:
                break
        return b""

    async def _wait(
        self,
        own: socket.socket,
        add: Callable[[socket.socket, Callable[[], None]], None],
        remove: Callable[[socket.socket], bool],
    ) -> None:
        add(own, self._ready.ring)
        try:
            await self._ready.wait()
        finally:
            if self._socket is not None:  # else `close` did so, and the number may be another's
                remove(own)

    def close(self) -> None:
        """Whoever sends or receives comes to an end. Harmless when repeated."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None
            self._ready.ring()
