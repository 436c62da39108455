"""One reader's view of an output: a spool as the source of a stream.

Any number of readers read at once, each at its own pace. One at most sets the pace of the
program: see `Output.source`. What is gone when a reader comes to it is skipped and counted.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.protocol.streams import Piece
from sidecar.spool import Spool


class SpoolSource:
    """Ends where the spool does, or where `end_at` said."""

    def __init__(
        self,
        spool: Spool,
        offset: int,
        *,
        on_release: Callable[[SpoolSource, int], None],
        on_close: Callable[[SpoolSource], None],
        remembers: bool = False,
    ) -> None:
        """With `remembers` what it skips is on record: it is the one reader that goes on after a
        restart of the sidecar."""
        self._spool = spool
        self._next = offset  # the first byte that was never read
        self._skipped = spool.skipped if remembers else 0
        self._remembers = remembers
        self._end: int | None = None
        self._on_release = on_release
        self._on_close = on_close

    def end_at(self, offset: int) -> None:
        """This reader gets nothing from `offset` on. What was said first counts: who asked for
        what there is now gets no more because the program ends meanwhile."""
        if self._end is None:
            self._end = offset
            self._spool.grown.ring()

    async def read(self, offset: int, size: int) -> Piece:
        """See `streaming.Source`."""
        spool = self._spool
        while offset >= spool.size and not spool.has_ended and self._end is None:
            await spool.wait_grown()
        if self._end is not None and offset >= self._end:
            return Piece(self._end, b"", ended=True)
        piece = await spool.read(offset, size)
        if self._end is not None:
            piece = _cut(piece, self._end)
        gone = piece.offset - max(offset, self._next)
        if gone > 0:
            self._skipped += gone
            if self._remembers:
                spool.note_skipped(self._skipped)
        self._next = max(self._next, piece.offset + len(piece.data))
        return piece

    @property
    def size(self) -> int:
        """Where it ends, or how far the program has come."""
        return self._spool.size if self._end is None else self._end

    @property
    def dropped(self) -> int:
        """Bytes that were gone before this reader could have them."""
        return self._skipped + self._spool.missing(self._next)

    def release(self, offset: int) -> None:
        self._next = max(self._next, offset)  # the receiver has it, from whomever
        self._on_release(self, offset)

    async def aclose(self) -> None:
        """The stream is over, or was broken off."""
        self._on_close(self)


def _cut(piece: Piece, end: int) -> Piece:
    """What of `piece` lies before `end`."""
    if piece.offset >= end:
        return Piece(end, b"", ended=True)
    data = piece.data[: end - piece.offset]
    return Piece(piece.offset, data, ended=piece.offset + len(data) == end)
