"""A file as the source of a stream: read by offset, and only as long as it stays the same.

The etag (device, inode, size, mtime) is taken when the source is made and compared after each
read, so a stream that goes on after a drop, or a file that is written meanwhile, ends in
`source_changed` and never in bytes of two versions. A change that keeps the size and falls in
the same tick of the file system's clock is not seen by this; the stream's digest is of the
bytes that were sent.

Who allows changes gets each byte as it is when it is read, of the very file that was opened, and
as many as there were then.

Holes are read as the zeros that they are, and none of them is skipped.
"""

from __future__ import annotations

import os
import stat
from types import TracebackType

import anyio

from sidecar.errors import CallError, Code, Started, from_os_error, show_path
from sidecar.hands.interface import FileStat, stat_of
from sidecar.protocol.streams import Piece
from sidecar.reading import OffsetReader


class FileSource:
    """Owns `fd` from the first moment: it is closed by `close`, and if this raises.

    `what` is the path as the caller wrote it, for errors. With `etag`, the file must be the
    one that had it; where changes are allowed, it may have changed since.
    """

    def __init__(
        self, fd: int, what: str | bytes, *, etag: str | None = None, allow_change: bool = False
    ) -> None:
        self.what = what
        self._fd = fd
        self._allow_change = allow_change
        self._reader = OffsetReader(fd)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise CallError(Code.UNSUPPORTED, f"{show_path(what)} is not a regular file")
            self.stat: FileStat = stat_of(status)
            self.size = status.st_size
            self.etag = self.stat.etag
            self.has_blocks = status.st_blocks > 0
            self._identity = _identity(status)
            if etag is not None and not self._is_the_one(etag):
                raise self.changed()
        except BaseException:
            self.close()
            raise

    def _is_the_one(self, etag: str) -> bool:
        if self._allow_change:
            return etag.startswith(f"{self.stat.device:x}-{self.stat.inode:x}-")
        return etag == self.etag

    async def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes (and 1 MiB) from `offset`; none at the end of the file.

        Raises `source_changed` if the file is not the one it was.
        """
        self._check_open()
        if offset >= self.size:
            return b""
        data = await self.read_beyond(offset, min(size, self.size - offset))
        self._check_unchanged()
        return data

    async def read_beyond(self, offset: int, size: int) -> bytes:
        """The same whatever size it was said to have, and whether or not it changed since."""
        self._check_open()
        try:
            data = await self._reader.read(offset, size)
        except OSError as error:
            raise from_os_error(error, self.what) from error
        self._check_open()
        return data

    def _check_open(self) -> None:
        if self._fd < 0:
            raise anyio.ClosedResourceError

    def _check_unchanged(self) -> None:
        if not self._allow_change and _identity(os.fstat(self._fd)) != self._identity:
            raise self.changed()

    def changed(self, how: str = "changed while it was read") -> CallError:
        """What ends a stream of this file. Some bytes have been sent, or may have been."""
        return CallError(
            Code.SOURCE_CHANGED,
            f"{show_path(self.what)} {how}",
            started=Started.YES,
            path=self.what,
        )

    def close(self) -> None:
        """A second call is harmless, and so is one beside a read, which then raises
        `anyio.ClosedResourceError`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> FileSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    """What an etag is made of; compared after each chunk, so not put into words."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class RangeSource:
    """A part of a file as a stream: offset 0 of the stream is `start` of the file."""

    def __init__(self, file: FileSource, start: int, length: int) -> None:
        self._file = file
        self._start = start
        self._length = length

    async def read(self, offset: int, size: int) -> Piece:
        size = min(size, self._length - offset)
        data = await self._file.read(self._start + offset, size) if size else b""
        if size and not data:
            raise self._file.changed(f"ended at {self._start + offset} while it was read")
        return Piece(offset, data, ended=offset + len(data) == self._length)

    def release(self, offset: int) -> None:
        """The file keeps everything."""

    async def aclose(self) -> None:
        self._file.close()
