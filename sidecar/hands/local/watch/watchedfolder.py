"""Which directory a path leads to, and what tells that it leads to another one.

The watch of a directory goes with it when it is renamed, and says nothing when one further up is.
So each directory on the way is watched for the next name of the path: whenever something happens
to that name, the way is gone again. While the path leads nowhere, the directories that are there
are watched for what is missing, and nothing runs.

A root of hands is the directory that was opened at the start, whatever its name means by now.
Of a way through symbolic links, what lies on the way of the path itself is watched, the links
among it, but not what lies on the way that they say.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Container
from contextlib import suppress

from sidecar.errors import CallError, Code
from sidecar.hands.fileinterface import Path
from sidecar.hands.local.beneath import Beneath
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.watch import inotify
from sidecar.hands.local.watch.inotify import Event, Inotify
from sidecar.hands.names import SELF, split

MASK = (inotify.CREATE | inotify.DELETE | inotify.MOVED_FROM | inotify.MOVED_TO) | (
    inotify.ATTRIB | inotify.DELETE_SELF | inotify.MOVE_SELF
)
_ABSENT = {Code.NOT_FOUND, Code.NOT_DIRECTORY, Code.PERMISSION_DENIED, Code.OUTSIDE, Code.INVALID}


class WatchedFolder:
    """The way to one path."""

    def __init__(self, kernel: Inotify, roots: Roots, path: Path) -> None:
        self._kernel = kernel
        self._roots = roots
        self._path = path
        self._guards: dict[int, bytes] = {}  # by watch descriptor: the name that counts there
        self._old: set[int] = set()  # watch descriptors of ways before

    def __contains__(self, wd: object) -> bool:
        """Whether a watch descriptor is that of a directory on the way."""
        return wd in self._guards

    def concerns(self, event: Event) -> bool:
        """Whether the path may lead to another directory since then."""
        name = self._guards.get(event.wd)
        return name is not None and event.name in (name, b"")

    def open(self) -> int:
        """An O_PATH descriptor of the directory, which is the caller's. Raises `CallError`."""
        beneath = self._roots.of(self._path)
        relative = beneath.relative(self._path)
        self._guard(beneath, relative)
        with self._roots.resolved(self._path) as found:
            status = os.fstat(found)
            if not stat.S_ISDIR(status.st_mode):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not status.st_nlink:  # a root that was removed: it has no other name to be found by
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            return os.dup(found)

    def find(self) -> int | None:
        """`open`, for a path that was there before; None if it leads to no directory now."""
        try:
            return self.open()
        except CallError as error:
            if error.code not in _ABSENT:
                raise
            return None

    def tidy(self, tree: Container[int]) -> None:
        """End the watches that were set for a way that is none any more, but not those that
        `tree` has, too."""
        for wd in self._old:
            if wd not in self._guards and wd not in tree:
                self._kernel.unwatch(wd)
        self._old.clear()

    def _guard(self, beneath: Beneath, relative: bytes) -> None:
        """Watch the way, as far as there is one: each directory first, and then what it leads to,
        so that nothing happens unseen in between."""
        self._old.update(self._guards)
        self._guards = {}
        names = [name for name in split(relative) if name != SELF]
        for count, name in enumerate(names):
            with suppress(CallError, OSError):  # there is none, or none that we may read
                found = beneath.resolve(b"/".join(names[:count]) or SELF)
                try:
                    self._guards[self._kernel.watch(found, MASK)] = name
                finally:
                    os.close(found)
