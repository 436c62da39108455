"""Many files as one stream, one after the other, with one descriptor at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.errors import CallError, Code, Started, show_path
from sidecar.filesource import FileSource
from sidecar.hands.interface import FileHands, Path
from sidecar.protocol.streams import Piece


@dataclass(frozen=True, slots=True)
class Part:
    """One file, and where in the stream it stands. `kept`: all of it, if it is in memory."""

    path: Path
    offset: int
    length: int
    etag: str
    kept: bytes | None = None

    @property
    def stop(self) -> int:
        return self.offset + self.length


class ManySource:
    """See `streaming.Source`. Files that have no bytes are never opened for it."""

    def __init__(
        self, hands: FileHands, parts: Sequence[Part], *, allow_change: bool = False
    ) -> None:
        self._hands = hands
        self._allow_change = allow_change
        self._parts = [part for part in parts if part.length]
        self._offsets = [part.offset for part in self._parts]
        self._length = self._parts[-1].stop if self._parts else 0
        self._open: tuple[Part, FileSource] | None = None

    async def read(self, offset: int, size: int) -> Piece:
        """As many small files as fit. Raises `source_changed` for a file that is not the one that
        was announced; what came before it is sent first."""
        pieces: list[bytes] = []
        at, stop = offset, min(offset + size, self._length)
        while at < stop:
            try:
                data = await self._read(at, stop - at)
            except CallError:
                if not pieces:
                    raise
                break
            pieces.append(data)
            at += len(data)
        return Piece(offset, b"".join(pieces), ended=at == self._length)

    async def _read(self, at: int, size: int) -> bytes:
        part = self._parts[bisect_right(self._offsets, at) - 1]
        start = at - part.offset
        size = min(size, part.stop - at)
        if part.kept is not None:
            return part.kept[start : start + size]
        file = await self._file(part)
        data = await file.read(start, size)
        if not data:
            raise file.changed(f"ended at {start} while it was read")
        return data

    async def _file(self, part: Part) -> FileSource:
        if self._open is not None:
            if self._open[0] is part:
                return self._open[1]
            self._close()
        try:
            fd = await self._hands.open(part.path)
        except CallError as error:
            if error.code is Code.HANDS_AWAY:
                raise
            raise CallError(
                Code.SOURCE_CHANGED,
                f"{show_path(part.path)} is not there any more to be read: {error.message}",
                started=Started.YES,
                path=part.path,
            ) from error
        file = FileSource(fd, part.path, etag=part.etag, allow_change=self._allow_change)
        self._open = part, file
        return file

    def _close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def release(self, offset: int) -> None:
        """The files keep everything."""

    async def aclose(self) -> None:
        self._close()
