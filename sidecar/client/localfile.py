"""A regular file of this machine that is sent: its bytes from any offset, and their digest."""

from __future__ import annotations

import hashlib
import os
from types import TracebackType

import anyio.to_thread

from sidecar.filesource import FileSource, RangeSource
from sidecar.streaming import Source

READ = 1024 * 1024  # bytes of one read
HOP = 32 * READ  # bytes that one hop to a thread hashes: what a cancellation may wait for


class LocalFile:
    """Owns `fd` from the first moment. `what` names the file in errors.

    What lies before `start` is no part of it: standard input may have been read from before. All
    that is read must be of the file as it is now, or `source_changed` is raised.
    """

    def __init__(self, fd: int, what: str | bytes, *, start: int = 0) -> None:
        self._file = FileSource(fd, what)  # it has the identity of the file, and closes `fd`
        self._fd = fd
        self._what = what
        self._start = min(start, self._file.size)
        self._sha256: bytes | None = None
        status = os.fstat(fd)
        self.size = self._file.size - self._start
        self.mode = status.st_mode & 0o7777
        self.mtime_ns = status.st_mtime_ns
        self.identity = f"{self._file.etag}+{self._start}"

    def source(self, offset: int = 0) -> Source:
        """The bytes from `offset` on, as a stream that may outlive this object."""
        file = FileSource(os.dup(self._fd), self._what, etag=self._file.etag)
        return RangeSource(file, self._start + offset, self.size - offset)

    async def sha256(self) -> bytes:
        """Of all its bytes; computed once, in threads. Raises `CallError`."""
        if self._sha256 is None:
            found = await sha256_of(self._fd, self._start, self.size)
            await self._file.read(max(0, self._file.size - 1), 1)  # raises if it has changed
            self._sha256 = found
        return self._sha256

    def close(self) -> None:
        """A second call is harmless."""
        self._file.close()

    def __enter__(self) -> LocalFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_local(source: int | str | os.PathLike[str]) -> LocalFile:
    """A path, or a descriptor, which this closes. Blocks. Raises `OSError` and `CallError`."""
    if isinstance(source, int):
        return LocalFile(source, f"descriptor {source}")
    fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO is refused, not met
    return LocalFile(fd, os.fspath(source))


async def sha256_of(fd: int, start: int, size: int) -> bytes:
    """The SHA-256 of `size` bytes from `start`, or of what there is of them."""
    digest = hashlib.sha256()
    end = start + size

    def work(at: int, stop: int) -> int:
        while at < stop and (data := os.pread(fd, min(READ, stop - at), at)):
            digest.update(data)
            at += len(data)
        return at

    at = start
    while at < end:
        reached = await anyio.to_thread.run_sync(work, at, min(end, at + HOP))
        if reached == at:
            break
        at = reached
    return digest.digest()
