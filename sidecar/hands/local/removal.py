"""A tree goes, without following links, crossing mounts or recursing.

The way down is by openat(2) with O_NOFOLLOW. The way up is `..`, checked against the identity
of the directory we came from, so one descriptor is enough for a tree of any depth and a
directory that is moved meanwhile ends the removal instead of leading it elsewhere. What is kept
on the way is a list of names for each level, of subdirectories only.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from sidecar.errors import Started, from_os_error
from sidecar.hands.interface import Path
from sidecar.hands.local.roots import Roots
from sidecar.hands.names import UP

SWEEPS = 4  # of one directory; some file systems skip entries while others are removed
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def remove(roots: Roots, path: Path, *, recursive: bool, check: Callable[[], None]) -> int:
    """Remove `path`; how many entries went. `check` is called often and may raise to stop.

    An error after the first entry went says `started: yes` and has `removed` in its details.
    """
    with roots.parent(path) as place:
        if not stat.S_ISDIR(place.lstat().st_mode):
            os.unlink(place.name, dir_fd=place.directory)
            return 1
        if not recursive:
            os.rmdir(place.name, dir_fd=place.directory)
            return 1
        tree = _Tree(place.directory, check)
        try:
            tree.remove(place.name)
        except OSError as error:
            if not tree.removed:
                raise
            answer = from_os_error(error, path, started=Started.YES)
            answer.details["removed"] = tree.removed
            raise answer from None
        finally:
            tree.close()
        return tree.removed


@dataclass(slots=True)
class _Level:
    """A directory on the way down."""

    name: bytes
    parent: tuple[int, int]  # identity of the directory it lies in
    subdirectories: list[bytes]
    sweeps: int = 1


class _Tree:
    def __init__(self, directory: int, check: Callable[[], None]) -> None:
        self._here = os.open(b".", _ENTER, dir_fd=directory)
        self._check = check
        self._levels: list[_Level] = []
        self.removed = 0

    def close(self) -> None:
        os.close(self._here)

    def remove(self, name: bytes) -> None:
        self._enter(name)
        while self._levels:
            self._check()
            level = self._levels[-1]
            if level.subdirectories:
                # Gone or replaced by a file since the sweep: the next sweep sees what it is.
                with suppress(FileNotFoundError, NotADirectoryError):
                    self._enter(level.subdirectories.pop())
            else:
                self._leave(level)

    def _enter(self, name: bytes) -> None:
        below = os.open(name, _ENTER | os.O_NOFOLLOW, dir_fd=self._here)
        try:
            if _mount(below) != _mount(self._here):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            parent = _identity(self._here)
        except BaseException:
            os.close(below)
            raise
        self._move_to(below)
        self._levels.append(_Level(name, parent, []))
        self._levels[-1].subdirectories = self._sweep()

    def _leave(self, level: _Level) -> None:
        above = os.open(UP, _ENTER, dir_fd=self._here)
        try:
            if _identity(above) != level.parent:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            with suppress(FileNotFoundError):  # somebody else was quicker
                os.rmdir(level.name, dir_fd=above)
                self.removed += 1
        except OSError as error:
            os.close(above)
            if error.errno != errno.ENOTEMPTY or level.sweeps == SWEEPS:
                raise
            level.sweeps += 1
            level.subdirectories = self._sweep()
            return
        self._levels.pop()
        self._move_to(above)

    def _sweep(self) -> list[bytes]:
        """Unlink all but directories, whose names are returned."""
        subdirectories = []
        with os.scandir(self._here) as entries:
            for entry in entries:
                self._check()
                name = os.fsencode(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    subdirectories.append(name)
                    continue
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._here)
                    self.removed += 1
        return subdirectories

    def _move_to(self, descriptor: int) -> None:
        os.close(self._here)
        self._here = descriptor


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _mount(descriptor: int) -> int:
    """Which mount a descriptor lies on: a bind mount has the device of what it shows (proc(5),
    /proc/pid/fdinfo). The device where that cannot be read."""
    with suppress(OSError), open(f"/proc/self/fdinfo/{descriptor}", "rb") as lines:
        for line in lines:
            if line.startswith(b"mnt_id:"):
                return int(line.split()[1])
    return os.fstat(descriptor).st_dev
