"""The tree of this machine: looked through, and written, by descriptors only.

What is written comes from a sandbox, which may be hostile: no link is followed in any place of a
path, whoever made it, so nothing lands outside the folder; `..` and the like are refused before
anything is opened (`entries.check_path`). All of this blocks, and is done in threads.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from types import TracebackType

from sidecar.client.localpart import PERMISSIONS
from sidecar.client.trees.entries import Node, Problem, TreeOptions, check_count
from sidecar.hands.interface import type_of
from sidecar.hands.local.beneath import Beneath
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.walk.walking import Selection, Walked, walk
from sidecar.hands.names import part_name

ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OWNER = 0o700  # what we need of a directory while we write into it

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def marker_name(token: bytes) -> bytes:
    """What lies in a folder that a copy has made and not finished: by it the same copy, begun
    again, knows that the folder is what it was to become, and not one to be copied into."""
    return part_name(b"cp", token)


class Cancelled(Exception):
    """Raised in a thread that nobody waits for any more."""


class Look:
    """One look through a local tree, in a thread; `cancelled` is set from outside."""

    def __init__(self, top: str | bytes, options: TreeOptions) -> None:
        self.nodes: list[Node] = []
        self.problems: list[Problem] = []
        self.cancelled = False
        self._top = os.fsencode(top)
        self._options = options

    def run(self) -> Look:
        """Raises `CallError` about the top; what is wrong below it is a problem."""
        ignore = self._options.git_ignore
        selection = Selection(self._options.exclude, "git" if ignore else "none")
        roots = Roots(Beneath(self._top))
        try:
            with closing(walk(roots, "", selection, check=self._check)) as entries:
                for entry in entries:
                    self._take(entry)
        finally:
            roots.close()
        return self

    def _check(self, _: bytes) -> None:
        if self.cancelled:
            raise Cancelled
        check_count(len(self.nodes))

    def _take(self, entry: Walked) -> None:
        error = entry.error
        if error is None and entry.stat is not None:
            try:
                self.nodes.append(_node(entry, entry.stat))
            except OSError as failure:
                error = failure
        if error is not None and error.errno != errno.ENOENT:
            self.problems.append(Problem(entry.path, error.strerror or str(error)))


def _node(entry: Walked, found: os.stat_result) -> Node:
    target = None
    if stat.S_ISLNK(found.st_mode):
        target = os.readlink(entry.name, dir_fd=entry.directory)
    return Node(
        path=entry.path,
        kind=str(type_of(found.st_mode)),
        size=found.st_size,
        mode=stat.S_IMODE(found.st_mode),
        mtime_ns=found.st_mtime_ns,
        target=target,
    )


class Folder:
    """A directory here, and what is below it. Raises `OSError`; ELOOP or ENOTDIR where a link is
    on the way."""

    def __init__(self, top: str | bytes) -> None:
        """A link as the last name of `top` is followed: it is what the caller said."""
        self._top = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._top)

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def inside(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """The directory in which the last name of `path` is, and that name."""
        *way, name = path.split(b"/")
        with self.directory(way) as directory:
            yield directory, name

    @contextmanager
    def directory(self, names: list[bytes]) -> Iterator[int]:
        """The directory at the end of these names, for the length of a block."""
        found = self.enter(names)
        try:
            yield found
        finally:
            os.close(found)

    def enter(self, names: list[bytes]) -> int:
        """A descriptor of that directory, which is the caller's."""
        here = os.dup(self._top)
        try:
            for name in names:
                step = os.open(name, ENTER, dir_fd=here)
                os.close(here)
                here = step
        except BaseException:
            os.close(here)
            raise
        return here

    def read(self, path: bytes, most: int) -> tuple[bytes, os.stat_result]:
        """A small regular file, and what it is. EFBIG if it has more than `most` bytes."""
        with self.opened(path) as fd:
            found = os.fstat(fd)
            parts = []
            left = most + 1
            while left and (data := os.read(fd, left)):
                parts.append(data)
                left -= len(data)
            if not left:
                raise OSError(errno.EFBIG, "has grown while it was copied")
            return b"".join(parts), found

    @contextmanager
    def opened(self, path: bytes) -> Iterator[int]:
        fd = self.open(path)
        try:
            yield fd
        finally:
            os.close(fd)

    def open(self, path: bytes) -> int:
        """A descriptor of a regular file, for reading. A FIFO that took its place never blocks."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with self.inside(path) as (directory, name):
            fd = os.open(name, flags, dir_fd=directory)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "is no regular file any more")
        return fd

    def mark(self, token: bytes) -> None:
        """Note that this folder is not complete; seen by nobody who lists it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(marker_name(token), flags, 0o600, dir_fd=self._top))

    def unmark(self, token: bytes) -> None:
        with suppress(FileNotFoundError):
            os.unlink(marker_name(token), dir_fd=self._top)

    def is_marked(self, token: bytes) -> bool:
        try:
            os.stat(marker_name(token), dir_fd=self._top, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def identity(self) -> bytes:
        """Which folder of this machine it is."""
        found = os.fstat(self._top)
        return b"%d:%d:" % (found.st_dev, found.st_ino)

    def mode_and_time(self) -> tuple[int, int]:
        """Of the folder itself."""
        found = os.fstat(self._top)
        return found.st_mode & PERMISSIONS, found.st_mtime_ns

    # What a copy does --------------------------------------------------------------------

    def make_directory(self, path: bytes, mode: int) -> None:
        """Make it, or see that it is one; ours to write into until `settle`."""
        with self.inside(path) as (directory, name):
            try:
                os.mkdir(name, 0o700, dir_fd=directory)
                is_new = True
            except FileExistsError:
                is_new = False
            fd = os.open(name, ENTER, dir_fd=directory)
        try:
            kept = mode if is_new else os.fstat(fd).st_mode
            os.fchmod(fd, (kept & PERMISSIONS) | OWNER)
        finally:
            os.close(fd)

    def settle(self, path: bytes, mode: int, mtime_ns: int, *, is_ours: bool = False) -> None:
        """What a directory is like once all is in it. Unless we made it, it gives nobody more
        rights than it gave: the mode may come from a sandbox, which is not trusted."""
        with self.directory(path.split(b"/") if path else []) as fd:
            found = os.fstat(fd)
            os.utime(fd, ns=(found.st_atime_ns, mtime_ns))
            allowed = PERMISSIONS if is_ours else PERMISSIONS & (found.st_mode | OWNER)
            os.fchmod(fd, mode & allowed)

    def write(self, path: bytes, content: bytes, mode: int, mtime_ns: int) -> None:
        """Replace a file, in one step."""
        with self.inside(path) as (directory, name):
            part = part_name(name, secrets.token_bytes(6))
            fd = os.open(part, _CREATE, 0o600, dir_fd=directory)
            try:
                with open(fd, "wb", closefd=False) as file:
                    file.write(content)
                os.fchmod(fd, mode & PERMISSIONS)
                os.utime(fd, ns=(mtime_ns, mtime_ns))
                os.rename(part, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with suppress(OSError):
                    os.unlink(part, dir_fd=directory)
                raise
            finally:
                os.close(fd)

    def link(self, path: bytes, target: bytes, mtime_ns: int) -> None:
        """Replace a file or link by a link; what it says is not looked at."""
        with self.inside(path) as (directory, name):
            part = part_name(name, secrets.token_bytes(6))
            os.symlink(target, part, dir_fd=directory)
            try:
                os.utime(part, ns=(mtime_ns, mtime_ns), dir_fd=directory, follow_symlinks=False)
                os.rename(part, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with suppress(OSError):
                    os.unlink(part, dir_fd=directory)
                raise

    def chmod(self, path: bytes, mode: int) -> None:
        with self.opened(path) as fd:
            os.fchmod(fd, mode & PERMISSIONS)
