"""A file that was opened to be read, and how many bytes it has.

Some file systems do not know: a file of procfs says 0 and has many (proc(5)), one of sysfs says
4096 and has few. Both have no blocks on any disk. Such a file is read whole before anything is
said of its size, and what was found then is what is sent.
"""

from __future__ import annotations

from sidecar.errors import CallError, Code, show_path
from sidecar.filesource import FileSource, RangeSource
from sidecar.hands.interface import FileHands, Path
from sidecar.protocol.limits import UNSIZED_BYTES
from sidecar.streaming import BytesSource, Source

PROBE = 4096  # bytes; what a file of sysfs says it has


class OpenFile:
    """Made by `open_file`; whoever has it closes it, or hands it on by `source`."""

    def __init__(self, file: FileSource, data: bytes | None) -> None:
        self.file = file
        self.data = data  # of a file without a size
        self.size = file.size if data is None else len(data)
        self.etag = file.etag

    def describe(self, offset: int, length: int) -> dict[str, object]:
        """What is answered of it, when `length` bytes from `offset` on are sent."""
        return {
            "size": self.size,
            "offset": offset,
            "length": length,
            "etag": self.etag,
            "mode": self.file.stat.mode,
            "mtime_ns": self.file.stat.mtime_ns,
        }

    def source(self, offset: int, length: int) -> Source:
        """These bytes as a stream, which has the file from now on."""
        if self.data is None:
            return RangeSource(self.file, offset, length)
        self.close()
        return BytesSource(self.data[offset : offset + length])

    async def read(self, offset: int, length: int) -> bytes:
        """These bytes at once. Raises `source_changed`."""
        source = self.source(offset, length)
        parts: list[bytes] = []
        have = 0
        while have < length:
            piece = await source.read(have, length - have)
            parts.append(piece.data)
            have += len(piece.data)
        return b"".join(parts)

    def close(self) -> None:
        self.file.close()


async def open_file(
    hands: FileHands, path: Path, *, etag: str | None = None, allow_change: bool = False
) -> OpenFile:
    """The file at `path`; with `etag`, raises `precondition_failed` unless it is that one."""
    file = FileSource(await hands.open(path), what=path, allow_change=allow_change)
    try:
        if etag is not None and etag != file.etag:
            raise CallError(
                Code.PRECONDITION_FAILED,
                f"{show_path(path)} is not the file that had this etag",
                path=path,
                etag=file.etag,
                size=file.size,
            )
        return OpenFile(file, await _unsized(file))
    except BaseException:
        file.close()
        raise


async def _unsized(file: FileSource) -> bytes | None:
    """All that a file has which may not know how much that is; None if it knows."""
    if file.has_blocks or file.size > PROBE:
        return None
    found = bytearray()
    while piece := await file.read_beyond(len(found), UNSIZED_BYTES + 1 - len(found)):
        found += piece
        if len(found) > UNSIZED_BYTES:
            raise CallError(
                Code.LIMIT,
                f"{show_path(file.what)} does not say how many bytes it has, and those are more"
                f" than {UNSIZED_BYTES}",
                path=file.what,
                limit=UNSIZED_BYTES,
            )
    return None if len(found) == file.size else bytes(found)
