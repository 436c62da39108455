"""From a path to a descriptor, never outside the root.

Two forms with one contract, tested side by side:

- `KernelForm`: openat2(2) with RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS (Linux 5.6).
- `WalkForm`: name by name with O_PATH | O_NOFOLLOW, for kernels and seccomp filters that refuse
  openat2. It reads links itself, so the kernel never follows one for us.

The contract: a symbolic link is followed if what it says stays beneath the root at each step;
one that is absolute leaves it, even where it would lead back in; so does a `..` at the root;
both are EXDEV. Over 40 links, and a link of procfs that is no path ("magic", proc(5)), are
ELOOP. The answer is always an O_PATH descriptor: nothing is opened in earnest before its type is
known, so a FIFO's writer never meets a reader and no device notices us.

What a descriptor names may be moved outside by someone who may write there; that needs rights
we neither have nor can take away. Everything else that changes meanwhile is harmless: a path
leads to something that was beneath the root, or to an error.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from sidecar.errors import CallError, Code, Invalid, Outside, from_os_error, show_path
from sidecar.hands.interface import Path
from sidecar.hands.local.syscalls import (
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    is_on_procfs,
    openat2,
)
from sidecar.hands.names import SELF, UP, as_bytes, parent_and_name, relative

MAX_LINKS = 40  # the kernel's own bound (path_resolution(7))
MAX_STEPS = 65_536  # of one walk: "a/.." repeated inside links would take seconds otherwise
MAX_RETRIES = 64  # of openat2 while somebody renames directories (EAGAIN), then we walk

_LOOK = os.O_PATH | os.O_CLOEXEC
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
# /proc/self, /proc/mounts and the like say where they lead; all other links there are magic.
_PLAIN_PROC_LINK = re.compile(rb"[0-9a-z][0-9a-z/_-]*")


class Form(Protocol):
    """One way to resolve; `path` is relative as `names` defines it. Raises `OSError`."""

    def resolve(self, path: bytes, *, follow: bool) -> int: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry is or will be: a directory's descriptor and one name in it.

    System calls that take both (mkdirat(2), renameat(2), unlinkat(2)) never follow a link in
    that name, so what is true of the directory is true of them.
    """

    directory: int
    name: bytes
    has_slash: bool

    def lstat(self) -> os.stat_result:
        """ENOTDIR if the path ended in a slash and this is no directory."""
        found = os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        if self.has_slash and not stat.S_ISDIR(found.st_mode):
            raise _error(errno.ENOTDIR)
        return found


class Beneath:
    """The root, and the one way to anything below it."""

    def __init__(self, root: Path, *, use_openat2: bool | None = None) -> None:
        """Open `root`. `use_openat2`: None asks the kernel, True requires it, False walks."""
        name = as_bytes(root, "root")
        with coded(root):
            self.root = os.open(name, _LOOK | os.O_DIRECTORY)
        try:
            self.path = _real_name(self.root)
            self.has_openat2 = _choose(self.root, use_openat2)
        except BaseException:
            os.close(self.root)
            raise
        self.names = (os.path.abspath(name), self.path)  # as it was given, and its real one
        self._form: Form = KernelForm(self.root) if self.has_openat2 else WalkForm(self.root)
        self._lock = threading.Lock()  # held for a few instructions only
        self._users = 1  # calls that use `root` now, and ourselves until `close`
        self._is_closed = False

    def close(self) -> None:
        """Release the root; descriptors that were handed out stay good."""
        self._is_closed = True
        self._leave()

    def relative(self, path: Path) -> bytes:
        return relative(path, self.names)

    def resolve(self, path: Path, *, follow: bool = True, about: Path | None = None) -> int:
        """An O_PATH descriptor; with `follow=False` of the last name itself if it is a link.

        `about`: what the caller wrote, if `path` was made from that; errors say it.
        """
        name, about = self.relative(path), path if about is None else about
        self._enter()
        try:
            return self._form.resolve(name, follow=follow)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise Outside(about) from None
            raise from_os_error(error, about) from None
        finally:
            self._leave()

    @contextmanager
    def resolved(self, path: Path, *, follow: bool = True) -> Iterator[int]:
        """`resolve` for the length of a block, in which an `OSError` is about `path`."""
        descriptor = self.resolve(path, follow=follow)
        try:
            with coded(path):
                yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def parent(self, path: Path, *, about: Path | None = None) -> Iterator[Place]:
        """The place of `path`'s last name, which need not exist; `Invalid` for the root."""
        about = path if about is None else about
        directory, name, has_slash = parent_and_name(self.relative(path))
        if name in (SELF, UP):
            raise Invalid(f"{show_path(about)} names no entry of a directory", path=about)
        descriptor = self.resolve(directory, about=about)
        try:
            with coded(about):
                yield Place(descriptor, name, has_slash)
        finally:
            os.close(descriptor)

    def _enter(self) -> None:
        """Keep the root open: once closed its number may be another directory's, and a thread
        that nobody waits for any more would resolve beneath that."""
        with self._lock:
            if self._is_closed:
                raise CallError(Code.HANDS_AWAY, "hands is closing")
            self._users += 1

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                os.close(self.root)


class KernelForm:
    """The kernel keeps the promise, in one call."""

    def __init__(self, root: int) -> None:
        self._root = root

    def resolve(self, path: bytes, *, follow: bool) -> int:
        flags = _LOOK if follow else _LOOK | os.O_NOFOLLOW
        for _ in range(MAX_RETRIES):
            # EAGAIN: a `..` crossed a rename somewhere on this machine and cannot be judged.
            with suppress(BlockingIOError):
                return openat2(self._root, path, flags, _RESOLVE)
        return WalkForm(self._root).resolve(path, follow=follow)


class WalkForm:
    """We keep the promise, one name at a time."""

    def __init__(self, root: int) -> None:
        self._root = root

    def resolve(self, path: bytes, *, follow: bool) -> int:
        walk = _Walk(self._root)
        try:
            return walk.run(path, follow=follow)
        except BaseException:
            os.close(walk.here)
            raise


class _Walk:
    """One walk: where it is (`here`, a descriptor), how it came, and what it may still spend."""

    def __init__(self, root: int) -> None:
        self._root = root
        self.here = os.dup(root)
        self._done: list[bytes] = []  # names from the root to `here`, none of them a link
        self._links = 0

    def run(self, path: bytes, *, follow: bool) -> int:
        todo = deque(path.split(b"/"))
        for _ in range(MAX_STEPS):
            if not todo:
                return self.here
            name = todo.popleft()
            if name == UP:
                self._go_up(todo)
            elif name != SELF:  # `here` is a directory while names are left
                self._enter(name, todo, follow=follow)
        raise _error(errno.ELOOP)

    def _go_up(self, todo: deque[bytes]) -> None:
        """Start again at the root, one name shorter: that cannot end above it, and it holds one
        descriptor where a stack of them would meet the limit in a deep tree."""
        if not self._done:
            raise _error(errno.EXDEV)
        todo.extendleft(reversed(self._done[:-1]))
        self._done.clear()
        self._move_to(os.dup(self._root))

    def _enter(self, name: bytes, todo: deque[bytes], *, follow: bool) -> None:
        step = os.open(name, _LOOK | os.O_NOFOLLOW, dir_fd=self.here)
        try:
            mode = os.fstat(step).st_mode
            if stat.S_ISLNK(mode) and (follow or todo):
                todo.extendleft(reversed(self._read_link(step)))
                os.close(step)
                return
            if todo and not stat.S_ISDIR(mode):
                raise _error(errno.ENOTDIR)
        except BaseException:
            os.close(step)
            raise
        self._done.append(name)
        self._move_to(step)

    def _read_link(self, link: int) -> list[bytes]:
        self._links += 1
        if self._links > MAX_LINKS:
            raise _error(errno.ELOOP)
        # Read from the descriptor: whatever the name means by now, this is the link we met.
        target = os.readlink(b"", dir_fd=link)
        if is_on_procfs(link) and not _PLAIN_PROC_LINK.fullmatch(target):
            raise _error(errno.ELOOP)
        if target.startswith(b"/"):
            raise _error(errno.EXDEV)
        names = [name for name in target.split(b"/") if name]
        return [*names, SELF] if target.endswith(b"/") else names

    def _move_to(self, descriptor: int) -> None:
        os.close(self.here)
        self.here = descriptor


@contextmanager
def coded(what: Path) -> Iterator[None]:
    """An `OSError` inside becomes a `CallError` about `what`, as the caller wrote it."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, what) from None


def through_proc(descriptor: int) -> str:
    """A path that leads to exactly what an O_PATH descriptor names, for calls that want a path."""
    return f"/proc/self/fd/{descriptor}"


def _real_name(root: int) -> bytes:
    try:
        return os.readlink(through_proc(root).encode())
    except FileNotFoundError:
        # Reading, chmod and a program's working directory all go through /proc/self/fd.
        raise CallError(Code.UNSUPPORTED, "hands needs /proc, and it is not mounted") from None


def _choose(root: int, use_openat2: bool | None) -> bool:
    if use_openat2 is False:
        return False
    try:
        os.close(openat2(root, SELF, _LOOK, _RESOLVE))
    except OSError as error:
        # Old seccomp filters answer EPERM for a system call they do not know.
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        if use_openat2:
            raise CallError(Code.UNSUPPORTED, "this kernel or its filter has no openat2") from None
        return False
    return True


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
