"""The tool `watch`: what changes below a directory, told over the pipe as it happens.

Records (`hands.records`), paths as bytes below the directory:

    {"changes": [[kind, path, type], ...]}   kind: added, modified, removed; one row for each path
    {"lost": why, "paths"?}                  changes may have been missed, below these directories

The first record has no changes: from then on all are told, or that they are lost. Why:

    overflow       they came faster than the kernel keeps them
    slow reader    they came faster than they were read
    gone           the directory was moved or removed; it may come again
    replaced       the path leads to another directory than before, which is watched from now on
    unreadable     directories that may not be read, or lie too deep

When something was lost, the tree has been read again before that is told: who looks at it then
and follows what is told from there on knows all of it. Changes are gathered for a while, and told
in batches of a bounded size. If nobody reads, they are gathered on; past a bound they are lost.

Nothing tells of what another machine does to a network file system, or of a file that is changed
by another name outside of the tree.

It is inotify(7) itself, in one thread that sleeps as long as nothing happens. watchfiles 1.3 was
measured first: of 30,000 files made while it was stopped it told 5,462 and nothing of the
overflow, it follows links out of the tree, loses 20 to 1,150 of 10,000 files made in new
directories, ends at a name that is not UTF-8, does not notice that its folder was replaced, and
wakes 49 times a second when nothing happens.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from typing import Any

from sidecar.hands.fileinterface import FileType, Path, Selection
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.stop import Stop, Stopped
from sidecar.hands.local.walk.choosing import Choice
from sidecar.hands.local.walk.descent import identity
from sidecar.hands.local.walk.ignorefiles import GIT, IGNORE_FILE
from sidecar.hands.local.watch import inotify
from sidecar.hands.local.watch.changes import Changes
from sidecar.hands.local.watch.inotify import Event, Inotify
from sidecar.hands.local.watch.watchedfolder import WatchedFolder
from sidecar.hands.local.watch.watchedtree import WatchedTree
from sidecar.hands.records import framed

REST = 0.005  # seconds between two looks at the kernel's queue: 200 wake-ups a second at most
OVERFLOW = "overflow"
GONE = "gone"
REPLACED = "replaced"
_ENDS = inotify.DELETE_SELF | inotify.MOVE_SELF | inotify.IGNORED | inotify.UNMOUNT
# When a file has the content that it will have: not while it is being written.
_REWRITTEN = (inotify.CREATE | inotify.CLOSE_WRITE | inotify.DELETE) | (
    inotify.MOVED_FROM | inotify.MOVED_TO
)


def watch(
    roots: Roots, path: Path, options: Mapping[str, Any], fd: int, stop: Stop
) -> dict[str, Any]:
    """A body for `tools`. Options: `recursive`, `gather` (seconds), `exclude`, `ignore`."""
    watching = Watching(roots, path, options, stop)
    try:
        watching.begin()
        _Telling(watching, fd, stop, gather=options["gather"]).run()
    finally:
        watching.close()
    return {}


class Watching:
    """One path that is watched, whatever directory it leads to."""

    def __init__(self, roots: Roots, path: Path, options: Mapping[str, Any], stop: Stop) -> None:
        self.changes = Changes()
        self._kernel = Inotify()
        self._folder = WatchedFolder(self._kernel, roots, path)
        self._roots = roots
        self._path = path
        self._options = options
        self._choice = Choice(Selection(options["exclude"], options["ignore"]))
        self._check = stop.check
        self._top = -1
        self._tree: WatchedTree | None = None  # None: there is no such directory now

    @property
    def fd(self) -> int:
        """Readable when something has happened."""
        return self._kernel.fd

    @property
    def directories(self) -> int:
        """How many have a watch."""
        return 0 if self._tree is None else self._tree.directories

    def begin(self) -> None:
        """Raises `CallError` if there is no such directory, or it cannot be watched."""
        self._adopt(self._folder.open())

    def close(self) -> None:
        self._leave()
        self._kernel.close()

    def receive(self) -> None:
        """Take what the kernel has, as far as one read gives it."""
        events = self._kernel.read()
        rules_changed: set[int] = set()
        is_moved = False
        for event in events:
            self._check()
            if event.mask & inotify.OVERFLOW:
                self._start_over()
                return
            is_moved = is_moved or self._folder.concerns(event) or self._is_about_top(event)
            if self._tree is not None:
                self._tree.receive(event)
                if event.name in (IGNORE_FILE, GIT) and event.mask & _REWRITTEN:
                    rules_changed.add(event.wd)
        if is_moved:
            self._find_again()
        if self._options["ignore"] == "git":
            self._apply_rules(rules_changed)

    def take(self) -> dict[str, Any]:
        """The next record of `changes`."""
        return self.changes.take(self._look)

    def _look(self, path: bytes) -> FileType:
        return FileType.UNKNOWN if self._tree is None else self._tree.look(path)

    def _is_about_top(self, event: Event) -> bool:
        """The directory itself was moved or removed, or what it lies on unmounted."""
        is_top = self._tree is not None and event.wd == self._tree.root.wd and not event.name
        return is_top and bool(event.mask & _ENDS)

    def _find_again(self) -> None:
        """The path may lead elsewhere by now, or nowhere."""
        top = self._folder.find()
        if top is not None and self._is_same(top):
            os.close(top)
        elif top is not None:
            self._take_over(top, REPLACED)
        elif self._tree is not None:
            self._leave()
            self.changes.lose(GONE)
        self._folder.tidy(self._tree or ())

    def _start_over(self) -> None:
        """The kernel had no room for more: nobody knows what happened."""
        top = self._folder.find()
        if top is None:
            self._leave()
            self.changes.lose(GONE)
        else:
            self._take_over(top, OVERFLOW)
        self._folder.tidy(self._tree or ())

    def _take_over(self, top: int, why: str) -> None:
        """Watch `top`, which may be what is watched already, and tell that something was lost."""
        try:
            if self._is_same(top) and self._tree is not None:
                os.close(top)
                self._tree.refresh(quiet=True)
            else:
                self._leave()
                self._adopt(top)
        except OSError:  # gone once more, or not to be read: its parent will tell
            self._leave()
            why = GONE
        self.changes.lose(why)

    def _is_same(self, top: int) -> bool:
        # The old one is open, so no new directory can have its inode number.
        if self._tree is None:
            return False
        return identity(os.fstat(top)) == identity(os.fstat(self._top))

    def _adopt(self, top: int) -> None:
        """Watch all below `top`, which is ours from now on."""
        self._top = top
        above = self._choice.rules_above(self._roots.of(self._path), top)
        self._tree = WatchedTree(
            self._kernel,
            top,
            self._choice,
            above,
            self.changes,
            recursive=self._options["recursive"],
            check=self._check,
        )
        self._tree.refresh(quiet=True)

    def _leave(self) -> None:
        if self._tree is not None:
            self._tree.close(keep=self._folder)
            self._tree = None
        if self._top >= 0:
            os.close(self._top)
            self._top = -1

    def _apply_rules(self, wds: set[int]) -> None:
        """A .gitignore is another: what it hides no more came, what it hides now went."""
        for wd in wds:
            if self._tree is not None and wd in self._tree:
                self._tree.refresh(self._tree[wd])


class _Telling:
    """From the changes into the pipe, while there is somebody at its other end."""

    def __init__(self, watching: Watching, fd: int, stop: Stop, *, gather: float) -> None:
        self._watching = watching
        self._fd = fd
        self._stop = stop
        self._gather = gather
        self._out = memoryview(framed({"changes": []}))
        self._due = math.inf  # when the changes that wait are to be told
        self._rests_until = 0.0

    def run(self) -> None:
        """Until `Stopped`, also because nobody reads any more."""
        while True:
            now = time.monotonic()
            self._tell(now)
            ready = self._wait(now)
            if self._fd in ready and not self._out:
                raise Stopped  # that is all that a pipe says to a writer who has nothing to write
            if self._watching.fd in ready:
                self._watching.receive()
                now = time.monotonic()
                self._rests_until = now + REST
                if self._watching.changes.is_large:
                    self._due = now
                elif self._watching.changes and self._due == math.inf:
                    self._due = now + self._gather

    def _tell(self, now: float) -> None:
        """Write as much as goes."""
        while self._out or now >= self._due:
            if not self._out:
                self._out = memoryview(framed(self._watching.take()))
                if not self._watching.changes:
                    self._due = math.inf
            try:
                self._out = self._out[os.write(self._fd, self._out) :]
            except BlockingIOError:
                return
            except BrokenPipeError:
                raise Stopped from None

    def _wait(self, now: float) -> set[int]:
        readable = [] if self._out else [self._fd]
        wake_at = math.inf if self._out else self._due
        if now >= self._rests_until:
            readable.append(self._watching.fd)
        else:
            wake_at = min(wake_at, self._rests_until)
        timeout = None if wake_at == math.inf else max(0.001, wake_at - now)
        writable = [self._fd] if self._out else []
        return self._stop.wait(readable, writable, timeout=timeout)
