"""The file operations of a log: few, so that a test can put in a disk that fails at each.

All of them block and belong into a thread. Writes say where: one that failed in the middle is
made again at the same place.
"""

from __future__ import annotations

import os
from pathlib import Path


class Disk:
    """The file system, as it is."""

    def make_folder(self, path: Path) -> None:
        """Make `path`, for us alone, if it is not there."""
        path.mkdir(mode=0o700, exist_ok=True)

    def list(self, folder: Path) -> list[str]:
        return sorted(os.listdir(folder))

    def open(self, path: Path, *, create: bool = False) -> int:
        """A descriptor to read and write; with `create` of an empty file, whatever was there."""
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        if create:
            flags |= os.O_CREAT | os.O_TRUNC
        return os.open(path, flags, 0o600)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def read(self, fd: int, size: int, offset: int) -> bytes:
        """Fewer bytes than `size` only at the end of the file."""
        pieces: list[bytes] = []
        while size > 0 and (piece := os.pread(fd, size, offset)):
            pieces.append(piece)
            size -= len(piece)
            offset += len(piece)
        return b"".join(pieces)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """All of `data`."""
        view = memoryview(data)
        while view:
            count = os.pwrite(fd, view, offset)
            view = view[count:]
            offset += count

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """Until what was written to the file survives a power cut."""
        os.fdatasync(fd)

    def sync_folder(self, folder: Path) -> None:
        """The same for its names."""
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        """`new` is replaced if it is there."""
        old.rename(new)

    def unlink(self, path: Path) -> None:
        """Harmless if it is gone."""
        path.unlink(missing_ok=True)

    def close(self, fd: int) -> None:
        os.close(fd)
