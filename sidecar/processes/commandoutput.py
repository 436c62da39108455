"""What one command of a shell session prints: a part of the session's output, and a stream.

Offsets within it count from the command's first byte. `Marked` knows where that is, and, while
the command runs, up to where the output is certainly its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.processes.output import Output
from sidecar.processes.shellscript import Marked
from sidecar.processes.source import SpoolSource
from sidecar.protocol.streams import Piece
from sidecar.spool import Spool


class CommandOutput:
    """From before the command is said until `close`. `on_grown` must not raise."""

    def __init__(self, output: Output, marked: Marked, *, on_grown: Callable[[], None]) -> None:
        self._output = output
        self._marked = marked
        self._on_grown = on_grown
        self._inner: SpoolSource | None = None
        output.spool.on_write = self._note

    @property
    def size(self) -> int:
        """Bytes printed so far."""
        return 0 if self._marked.begin is None else self._marked.limit - self._marked.begin

    @property
    def is_streamed(self) -> bool:
        return self._inner is not None

    def source(self) -> CommandSource:
        """All of it as a stream; the shell prints at its pace."""
        marked = self._marked
        start = marked.start if marked.begin is None else marked.begin
        self._inner = self._output.source(start, paces=True)
        return CommandSource(self._inner, marked, self._output.spool)

    def close(self) -> None:
        """The command is over."""
        spool = self._output.spool
        spool.on_write = None
        self._marked.give_up()
        spool.grown.ring()

    async def answer(self, limit: int) -> dict[str, Any]:
        """What the result says of it, after `close`. It has the bytes if these are not sent as a
        stream and are `limit` at most. At `offset` they can be read later in any case."""
        begin, end = self._marked.begin, self._marked.end
        assert begin is not None and end is not None, "close() comes first"
        answer: dict[str, Any] = {"size": end - begin, "offset": begin, "dropped": 0}
        if self._inner is not None:
            answer |= {"streamed": True, "dropped": self._inner.dropped}
        elif end - begin <= limit:
            data = await _read(self._output.spool, begin, end)
            answer |= {"data": data, "dropped": end - begin - len(data)}
        if self._output.spool.disk_error is not None:
            answer["disk_error"] = self._output.spool.disk_error
        return answer

    def _note(self, data: bytes) -> None:
        self._marked.receive(data)
        self._on_grown()


class CommandSource:
    """See `streaming.Source`."""

    def __init__(self, inner: SpoolSource, marked: Marked, spool: Spool) -> None:
        self._inner = inner
        self._marked = marked
        self._spool = spool

    async def read(self, offset: int, size: int) -> Piece:
        marked = self._marked
        while marked.begin is None or marked.begin + offset >= marked.limit:
            if marked.begin is not None and marked.end is not None:
                return Piece(marked.end - marked.begin, b"", ended=True)
            await self._spool.wait_grown()
        begin, limit = marked.begin, marked.limit
        piece = await self._inner.read(begin + offset, min(size, limit - begin - offset))
        data = piece.data[: max(0, limit - piece.offset)]  # it may begin later than asked for
        place = min(piece.offset, limit)
        return Piece(place - begin, data, ended=place + len(data) == marked.end)

    def release(self, offset: int) -> None:
        if self._marked.begin is not None:
            self._inner.release(self._marked.begin + offset)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _read(spool: Spool, begin: int, end: int) -> bytes:
    """What is kept of it."""
    data = b""
    while begin < end:
        piece = await spool.read(begin, end - begin)
        if not piece.data or piece.offset >= end:
            break
        data += piece.data[: end - piece.offset]
        begin = piece.offset + len(piece.data)
    return data
