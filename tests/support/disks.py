"""Disks that fail: at a chosen operation, when they are full, or because the power went.

All of them keep real files in a real folder, so that what reads them reads what is there.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

from sidecar.durable.disk import Disk

ROOMY = 1 << 40  # bytes


class FullDisk(Disk):
    """Has room for so many bytes of files; is read-only, or broken, when told to be."""

    def __init__(self, room: int = ROOMY) -> None:
        self.room = room
        self.room_error = errno.ENOSPC  # what does not fit fails with it
        self.error: int | None = None  # an errno: every change fails with it
        self.sync_error: int | None = None  # the same for syncs alone

    def fail(self, error: int = errno.ENOSPC) -> None:
        """Nothing fits; what is there, such as the mark, can be overwritten."""
        self.room, self.room_error = 0, error

    def heal(self) -> None:
        self.room, self.error, self.sync_error = ROOMY, None, None

    def _change(self) -> None:
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))

    def write(self, fd: int, data: bytes, offset: int) -> None:
        self._change()
        more = max(0, offset + len(data) - self.size(fd))
        if more <= self.room:
            self.room -= more
            return super().write(fd, data, offset)
        fits, self.room = len(data) - more + self.room, 0
        super().write(fd, data[:fits], offset)
        raise OSError(self.room_error, os.strerror(self.room_error))

    def open(self, path: Path, *, create: bool = False) -> int:
        if create:
            self._change()
        return super().open(path, create=create)

    def truncate(self, fd: int, size: int) -> None:
        self._change()
        self.room += max(0, self.size(fd) - size)
        super().truncate(fd, size)

    def sync(self, fd: int) -> None:
        self._change()
        if self.sync_error is not None:
            raise OSError(self.sync_error, os.strerror(self.sync_error))
        super().sync(fd)

    def rename(self, old: Path, new: Path) -> None:
        self._change()
        super().rename(old, new)

    def unlink(self, path: Path) -> None:
        self._change()
        self.room += path.stat().st_size if path.exists() else 0
        super().unlink(path)


class MortalDisk(Disk):
    """Dies at operation number `dies_at`, of which `part` was done (0 to 1); afterwards nothing
    can be done. Remembers what a power cut leaves: what was synced, and names of synced folders.
    """

    def __init__(self, folder: Path, *, dies_at: int = 0, part: float = 0.0) -> None:
        self.operations = 0
        self.is_dead = False
        self.is_full = False  # what is there can be overwritten, and nothing can grow
        self.folder = folder
        self._dies_at = dies_at
        self._part = part
        self._lock = threading.RLock()
        self._open: set[int] = set()
        self._names: dict[str, int] = {}
        self._contents: dict[int, bytes] = {}
        if folder.exists():  # and synced, as what a life leaves that ended in order
            for path in folder.iterdir():
                self._contents[path.stat().st_ino] = path.read_bytes()
            self._remember_names()

    @property
    def has_died(self) -> bool:
        """At the operation that was told, not by being buried."""
        return 0 < self._dies_at <= self.operations

    def _remember_names(self) -> None:
        self._names = {path.name: path.stat().st_ino for path in self.folder.iterdir()}

    def _do(self, work: Callable[[], object], dying: Callable[[], object]) -> None:
        with self._lock:
            if self.is_dead:
                raise OSError(errno.EIO, "the process is dead")
            self.operations += 1
            if self.operations != self._dies_at:
                work()
                return
            self.is_dead = True
            dying()
            raise OSError(errno.EIO, "the process dies")

    def _whole(self, work: Callable[[], object]) -> None:
        self._do(work, lambda: work() if self._part == 1.0 else None)

    def open(self, path: Path, *, create: bool = False) -> int:
        if not create:
            return self._opened(super().open(path))
        fds: list[int] = []
        self._whole(lambda: fds.append(self._opened(Disk.open(self, path, create=True))))
        return fds[0]

    def _opened(self, fd: int) -> int:
        self._open.add(fd)
        return fd

    def write(self, fd: int, data: bytes, offset: int) -> None:
        if self.is_full and offset + len(data) > self.size(fd):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = data[: int(len(data) * self._part)]
        write = super().write
        self._do(lambda: write(fd, data, offset), lambda: write(fd, part, offset))

    def make_folder(self, path: Path) -> None:
        make = super().make_folder
        self._whole(lambda: make(path))

    def truncate(self, fd: int, size: int) -> None:
        truncate = super().truncate
        self._whole(lambda: truncate(fd, size))

    def sync(self, fd: int) -> None:
        self._whole(lambda: self._remember_content(fd))

    def _remember_content(self, fd: int) -> None:
        self._contents[os.fstat(fd).st_ino] = os.pread(fd, 1 << 30, 0)

    def sync_folder(self, folder: Path) -> None:
        self._whole(self._remember_names)

    def rename(self, old: Path, new: Path) -> None:
        rename = super().rename
        self._whole(lambda: rename(old, new))

    def unlink(self, path: Path) -> None:
        unlink = super().unlink
        self._whole(lambda: unlink(path))

    def close(self, fd: int) -> None:
        with self._lock:
            if fd in self._open:  # else it was buried already
                self._open.discard(fd)
                super().close(fd)

    def bury(self) -> None:
        """Close what the dead process had open."""
        with self._lock:
            self.is_dead = True
            for fd in self._open:
                os.close(fd)
            self._open.clear()

    def cut_power(self, *, luck: float = 0.0) -> None:
        """Leave what was synced. With `luck`, names are as they were last, and of what was not
        synced that part of each file is there too."""
        if not self.folder.exists():
            return
        now = {path.name: path for path in self.folder.iterdir()}
        present = {name: path.read_bytes() for name, path in now.items()}
        inodes = {name: path.stat().st_ino for name, path in now.items()}
        names = inodes if luck else self._names
        left: dict[str, bytes] = {}
        for name, inode in names.items():
            kept = self._contents.get(inode, b"")
            if luck and name in present:
                kept = _between(kept, present[name], luck)
            left[name] = kept
        for path in now.values():
            path.unlink()
        for name, content in left.items():
            (self.folder / name).write_bytes(content)


def _between(synced: bytes, written: bytes, luck: float) -> bytes:
    """A block is there or not; a file that grew lost a part of its end."""
    if len(synced) == len(written) or not written.startswith(synced):
        return written if luck >= 0.5 else synced
    return written[: len(synced) + int((len(written) - len(synced)) * luck)]
