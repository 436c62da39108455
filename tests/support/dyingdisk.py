"""A disk below which the process dies, and one that fails: for logs, on real files.

Operations that change something are counted. Death comes before the one with a given number, or
in the middle of it where it is a write; what is there then is copied aside, for the next life to
find. After that the disk answers nothing, as nobody is left to ask it.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path

from sidecar.durable.disk import Disk
from sidecar.durable.writer import LogWriter


class Died(Exception):
    """Raised where a task waits for the disk; the threads of a writer end by `SystemExit`."""


class DyingDisk(Disk):
    """`remains` is the copy of `folder` when `has_died`."""

    def __init__(self, folder: Path, remains: Path, dies_at: int | None, *, half: bool = False):
        self.operations = 0
        self.remains = remains
        self._folder = folder
        self._dies_at = dies_at
        self._half = half
        self._synced: dict[Path, int] = {}
        self._paths: dict[int, Path] = {}
        self._lock = threading.Lock()
        self._died = threading.Event()
        self._ended = threading.Event()

    @property
    def has_died(self) -> bool:
        return self._died.is_set()

    def bury(self, writer: LogWriter) -> None:
        """Let the threads of its writer go, who would wait for ever."""
        self._ended.set()
        for lane in (writer.writes, writer.syncs):
            lane._rounds.put(None)

    def cut_power(self) -> None:
        """What was not synced is not in `remains` either."""
        for file in self.remains.glob("*.log"):
            synced = self._synced.get(self._folder / file.name)
            if synced is None:
                file.unlink()
            else:
                os.truncate(file, min(synced, file.stat().st_size))

    def _count(self, fd: int = -1, data: bytes = b"", offset: int = 0) -> None:
        with self._lock:
            if self.has_died:
                self._stop()
            self.operations += 1
            if self.operations != self._dies_at:
                return
            if self._half and data:
                os.pwrite(fd, data[: len(data) // 2], offset)
            if self._folder.exists():
                shutil.copytree(self._folder, self.remains)
            self._died.set()
        self._stop()

    def _stop(self) -> None:
        if threading.current_thread().name.startswith("log-"):
            self._ended.wait(20)
            raise SystemExit
        raise Died

    def make_folder(self, path: Path) -> None:
        self._count()
        super().make_folder(path)

    def open(self, path: Path, *, create: bool = False) -> int:
        if create:
            self._count()
        fd = super().open(path, create=create)
        self._paths[fd] = path
        return fd

    def write(self, fd: int, data: bytes, offset: int) -> None:
        self._count(fd, data, offset)
        super().write(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        self._count()
        super().truncate(fd, size)

    def sync(self, fd: int) -> None:
        self._count()
        super().sync(fd)
        self._synced[self._paths[fd]] = os.fstat(fd).st_size

    def sync_folder(self, folder: Path) -> None:
        self._count()
        super().sync_folder(folder)

    def rename(self, old: Path, new: Path) -> None:
        self._count()
        super().rename(old, new)

    def unlink(self, path: Path) -> None:
        self._count()
        super().unlink(path)


class FailingDisk(Disk):
    """Writes fail with `error` while it is set; the mark, whose room is set aside, only with
    `is_gone`."""

    def __init__(self) -> None:
        self.error = 0
        self.is_gone = False
        self._marks: set[int] = set()

    def fail(self, error: int = errno.ENOSPC, *, is_gone: bool = False) -> None:
        self.error, self.is_gone = error, is_gone

    def heal(self) -> None:
        self.error, self.is_gone = 0, False

    def open(self, path: Path, *, create: bool = False) -> int:
        if create:
            self._check()
        fd = super().open(path, create=create)
        self._marks.discard(fd)
        if path.name == "mark":
            self._marks.add(fd)
        return fd

    def write(self, fd: int, data: bytes, offset: int) -> None:
        if self.is_gone or fd not in self._marks:
            self._check()
        super().write(fd, data, offset)

    def _check(self) -> None:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
