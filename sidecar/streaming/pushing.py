"""What this side sends: bytes that are pushed, kept until the other side has them."""

from __future__ import annotations

import anyio

from sidecar.bell import Bell
from sidecar.errors import CallError, Code, Started
from sidecar.protocol.streams import Piece

KEEP = 1024 * 1024  # bytes that may wait to be received; `push` waits while there are more


class PushSource:
    """Standard input of a program: written here, read by offset by the sender."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._base = 0  # offset of the first byte kept
        self._ended = False
        self._closed = False
        self._grown = Bell()
        self._shrunk = Bell()

    async def push(self, data: bytes) -> None:
        """Add bytes; waits while too many are not received yet. Raises
        `anyio.BrokenResourceError` when the other side reads no more."""
        while len(self._buffer) >= KEEP and not self._closed:
            await self._shrunk.wait()
        if self._closed:
            raise anyio.BrokenResourceError
        self._buffer += data
        self._grown.ring()

    def end(self) -> None:
        """The end of input (half-close)."""
        self._ended = True
        self._grown.ring()

    async def received(self) -> None:
        """After `end`: until the other side has everything, or wants no more."""
        while not self._closed:
            await self._shrunk.wait()

    async def read(self, offset: int, size: int) -> Piece:
        """Raises `source_changed` for what was received and let go: a sidecar that was killed may
        ask for it again, and nobody has it."""
        if offset < self._base:
            raise CallError(
                Code.SOURCE_CHANGED,
                f"bytes from {offset} on were sent and are not kept: {self._base} is the first",
                started=Started.YES,
            )
        while offset - self._base >= len(self._buffer) and not self._ended:
            await self._grown.wait()
        start = offset - self._base
        data = bytes(memoryview(self._buffer)[start : start + size])
        ended = self._ended and start + len(data) == len(self._buffer)
        return Piece(offset, data, ended)

    def release(self, offset: int) -> None:
        gone = min(offset - self._base, len(self._buffer))
        if gone > 0:
            del self._buffer[:gone]
            self._base += gone
            self._shrunk.ring()

    async def aclose(self) -> None:
        self._closed = True
        self._shrunk.ring()
