"""What a tool of hands writes, as the source of a stream.

Bytes are read from its pipe when the sender asks for them, and kept until the receiver has them:
a pipe cannot be read again. So what waits is bounded three times, by `KEEP` here, by the pipe,
and by the tool that stands still when that is full.
"""

from __future__ import annotations

import asyncio
import os

from sidecar.bell import Bell
from sidecar.errors import CallError, Code, Started
from sidecar.hands.interface import Tool
from sidecar.hands.pipeio import PipeIO
from sidecar.protocol.streams import Piece

KEEP = 2 * 1024 * 1024  # bytes that the receiver may not have yet
READ_SIZE = 256 * 1024


class ToolSource:
    """Owns `tool`. The stream ends well only if the tool does: its error becomes the stream's."""

    def __init__(self, tool: Tool, io: PipeIO) -> None:
        self._tool = tool
        self._io = io
        self._fd = tool.take_fd()  # -1 once it has ended, or was closed
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._base = 0  # offset of the first byte kept
        self._has_ended = False
        self._changed = Bell()  # something may be read, or was released, or all is over

    async def begin(self) -> None:
        """Until there are bytes, or none will come. Raises the error of a tool that could not even
        begin: it is the answer of the call then, which needs no stream."""
        while not self._buffer and not self._has_ended:
            await self._fill()

    async def read(self, offset: int, size: int) -> Piece:
        """See `Source.read`. Raises `source_changed` for what was let go, and the tool's error."""
        if offset < self._base:
            raise CallError(
                Code.SOURCE_CHANGED,
                f"bytes from {offset} on were sent and are not kept: {self._base} is the first",
                started=Started.YES,
            )
        while offset - self._base >= len(self._buffer) and not self._has_ended:
            await self._fill()
        start = offset - self._base
        data = bytes(memoryview(self._buffer)[start : start + size])
        return Piece(offset, data, self._has_ended and start + len(data) == len(self._buffer))

    def release(self, offset: int) -> None:
        gone = min(offset - self._base, len(self._buffer))
        if gone > 0:
            del self._buffer[:gone]
            self._base += gone
            self._changed.ring()

    async def aclose(self) -> None:
        """Stop the tool if it runs. Harmless when repeated."""
        self._close_fd()
        self._changed.ring()
        await self._tool.aclose()

    async def _fill(self) -> None:
        """Read once, or wait until that may be done."""
        room = KEEP - len(self._buffer)
        if room <= 0:
            await self._changed.wait()
            return
        if self._fd < 0:
            raise CallError(Code.CANCELLED, "it was stopped", started=Started.YES)
        try:
            data = self._io.read(self._fd, min(room, READ_SIZE))
        except (BlockingIOError, InterruptedError):
            await self._wait_readable(self._fd)
            return
        except OSError as error:  # only a hands that means harm makes such a pipe (`pipeio`)
            message = f"the pipe of a tool cannot be read: {error.strerror}"
            raise CallError(Code.HANDS_AWAY, message, started=Started.UNKNOWN) from None
        self._buffer += data
        if not data:
            await self._tool.result()
            self._has_ended = True
            self._close_fd()

    async def _wait_readable(self, fd: int) -> None:
        self._loop.add_reader(fd, self._changed.ring)
        try:
            await self._changed.wait()
        finally:
            if self._fd >= 0:  # else the number may be another's
                self._loop.remove_reader(fd)

    def _close_fd(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
