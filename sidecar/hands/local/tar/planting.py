"""Files, directories and links that an archive brings, put beneath one directory.

Nothing here takes a path for the kernel to follow: each name of it is opened in the directory
above, and none of them may be a link (O_NOFOLLOW), whoever made it and when. So whatever the
archive says, and whatever is swapped meanwhile, nothing is made, replaced or changed but in
directories that were beneath the target when they were entered.

What has its name is whole: a file gets it when all of its bytes are there (see `parts`), and what
replaces something takes its place in one step. Directories can be written into until the end,
when `settle` gives them their modes and times.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Literal

from sidecar.errors import CallError, Code
from sidecar.hands.local.beneath import through_proc
from sidecar.hands.local.parts import TOKEN_BYTES, make_part
from sidecar.hands.local.walk.descent import ENTER, Descent, Lost
from sidecar.hands.local.walk.walking import LONGEST
from sidecar.hands.names import SELF, UP, is_part, part_name

Existing = Literal["replace", "keep", "refuse"]

OPEN = 0o700  # what a directory has until the end, for us to write into it
PERMISSIONS = 0o777  # the others (set-user-id, set-group-id, sticky) are dropped
MOST_FOLDERS = 200_000  # whose modes and times wait for the end; later ones get theirs at once
LOOK_FOR_SPACE = 1024 * 1024  # bytes of a file from which on it is asked whether there is room
NAME_MAX = 255  # bytes of one name (limits.h); longer ones no file system takes

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# Such an error another member would have, too.
_OF_ALL = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE),
    *(errno.ENOMEM, errno.ESTALE, errno.ENODEV, errno.ENXIO),
}


class Refused(Exception):
    """This entry is not made; the sentence says why."""


class Kept(Exception):
    """Something has the name already, and shall stay."""


def names_of(path: bytes, strip: int = 0) -> list[bytes]:
    """The names of a member's path, less the first `strip`; none: it is the target itself. Raises
    `Refused`."""
    if path.startswith(b"/"):
        raise Refused("its path is absolute")
    if b"\0" in path:
        raise Refused("its path holds a NUL byte")
    names = [name for name in path.split(b"/") if name not in (b"", SELF)]
    if UP in names:
        raise Refused("its path has a `..`")
    names = names[strip:]
    if sum(map(len, names)) + len(names) > LONGEST:
        raise Refused("its path is too long")
    if any(len(name) > NAME_MAX for name in names):
        raise Refused("a name in its path is too long")
    if any(map(is_part, names)):
        raise Refused("a name in its path is that of a part of an upload")
    return names


class Ground:
    """The directory `top`, whose descriptor this closes, and what is put beneath it."""

    def __init__(self, top: int, existing: Existing, *, depth: int | None) -> None:
        """`depth`: how many names lie between `top` and its root, which no link may lead above;
        None: links may lead anywhere."""
        self._descent = Descent(top)
        self._names: list[bytes] = []  # of where `_descent` is
        self._existing = existing
        self._depth = depth
        self._folders: dict[tuple[bytes, ...], tuple[int, int]] = {}  # mode and time

    def close(self) -> None:
        self._descent.close()

    def file(
        self, names: Sequence[bytes], mode: int, mtime_ns: int, size: int, content: Iterable[bytes]
    ) -> None:
        """`content` has `size` bytes, or raises. Raises `OSError` of the file system as a whole,
        `CallError`, `Refused` and `Kept`; nothing of the file is there then."""
        here, name = self._enter(names)
        is_there = self._look(here, name)
        _check_space(here, size)
        part = make_part(here, name)
        try:
            for piece in content:
                _write(part.fd, piece)
            os.fchmod(part.fd, mode & PERMISSIONS)
            os.utime(part.fd, ns=(mtime_ns, mtime_ns))
            part.publish(name, is_there=is_there, replace=self._existing == "replace")
        except BaseException as error:
            part.drop()
            if isinstance(error, FileExistsError):
                raise self._is_taken() from None
            raise
        finally:
            os.close(part.fd)

    def directory(self, names: Sequence[bytes], mode: int, mtime_ns: int) -> None:
        here, name = self._enter(names)
        mode &= PERMISSIONS
        try:
            os.mkdir(name, mode | OPEN, dir_fd=here)
        except FileExistsError:
            self._take_over(here, name)
        if len(self._folders) < MOST_FOLDERS:
            self._folders[tuple(names)] = mode, mtime_ns
        else:
            _settle(here, name, mode, mtime_ns)

    def symlink(self, names: Sequence[bytes], target: bytes, mtime_ns: int) -> None:
        self._check_target(names, target)

        def make(here: int, name: bytes) -> None:
            os.symlink(target, name, dir_fd=here)
            os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=here, follow_symlinks=False)

        self._place(names, make)

    def hard_link(self, names: Sequence[bytes], source: Sequence[bytes]) -> None:
        """Another name of the file `source`, which is beneath the target, too."""
        if not source:
            raise Refused("it is a link to a directory")
        above = self._open(source[:-1])
        try:
            if not stat.S_ISREG(_lstat(above, source[-1]).st_mode):
                raise Refused("it is a hard link to what is no regular file")

            def make(here: int, name: bytes) -> None:
                os.link(source[-1], name, src_dir_fd=above, dst_dir_fd=here, follow_symlinks=False)

            self._place(names, make)
        finally:
            os.close(above)

    def settle(self) -> None:
        """Give the directories their modes and times: what is below another goes first."""
        for names in sorted(self._folders, reverse=True):
            mode, mtime_ns = self._folders[names]
            with suppress(OSError, Refused):  # it is gone, or somebody else's by now
                here, name = self._enter(names)
                _settle(here, name, mode, mtime_ns)
        self._folders.clear()

    # Places -------------------------------------------------------------------------------

    def _enter(self, names: Sequence[bytes]) -> tuple[int, bytes]:
        """The directory that the last of `names` lies in, made if it is missing."""
        above = list(names[:-1])
        shared = 0
        while shared < min(len(above), len(self._names)) and above[shared] == self._names[shared]:
            shared += 1
        while len(self._names) > shared:
            self._go_up()
        for name in above[len(self._names) :]:
            self._descent.down(name, _entered(self._descent.here, name, make=True))
            self._names.append(name)
        return self._descent.here, names[-1]

    def _go_up(self) -> None:
        """One level, or more where a directory was moved meanwhile."""
        while True:
            self._names.pop()
            with suppress(Lost):
                self._descent.up()
                return

    def _open(self, names: Sequence[bytes]) -> int:
        """A directory beneath the target that is there."""
        here = self._descent.open_top()
        for name in names:
            try:
                below = _entered(here, name, make=False)
            finally:
                os.close(here)
            here = below
        return here

    def _look(self, here: int, name: bytes) -> bool:
        """Whether something is there that is to be replaced."""
        try:
            found = os.stat(name, dir_fd=here, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if self._existing != "replace":
            raise self._is_taken()
        if stat.S_ISDIR(found.st_mode):
            raise Refused("a directory has its name")
        return True

    def _is_taken(self) -> Exception:
        """Something has that name."""
        if self._existing == "keep":
            return Kept()
        if self._existing == "refuse":
            return CallError(Code.EXISTS, "it is there already")
        return Refused("something else has just got its name")

    def _place(self, names: Sequence[bytes], make: Callable[[int, bytes], None]) -> None:
        here, name = self._enter(names)
        if not self._look(here, name):
            try:
                make(here, name)
            except FileExistsError:
                raise self._is_taken() from None
            return
        part = part_name(name, secrets.token_bytes(TOKEN_BYTES))
        try:
            make(here, part)
            os.rename(part, name, src_dir_fd=here, dst_dir_fd=here)
        finally:
            with suppress(FileNotFoundError):  # still there if both were names of one file
                os.unlink(part, dir_fd=here)

    def _take_over(self, here: int, name: bytes) -> None:
        """A directory that is there: opened until the end, where it is ours to do that."""
        found = os.open(name, _LOOK, dir_fd=here)
        try:
            mode = os.fstat(found).st_mode
            if stat.S_ISLNK(mode):
                raise Refused("a link has its name")
            if not stat.S_ISDIR(mode):
                raise Refused("what is no directory has its name")
            if self._existing != "replace":
                raise Kept
            if mode & OPEN != OPEN:
                with suppress(PermissionError):
                    os.chmod(through_proc(found), mode & PERMISSIONS | OPEN)
        finally:
            os.close(found)

    def _check_target(self, names: Sequence[bytes], target: bytes) -> None:
        """Only a `..` at the beginning can be judged: behind a name it goes up from wherever that
        leads, if it is a link."""
        if not target or b"\0" in target:
            raise Refused("it is a link to no path")
        if self._depth is None:
            return
        if target.startswith(b"/"):
            raise Refused("it is a link that leads out: its target is absolute")
        steps = [step for step in target.split(b"/") if step not in (b"", SELF)]
        up = 0
        while up < len(steps) and steps[up] == UP:
            up += 1
        if up > self._depth + len(names) - 1:
            raise Refused("it is a link that leads out")
        if UP in steps[up:]:
            raise Refused("it is a link that may lead out: a `..` follows a name in its target")


def is_of_one(error: OSError) -> bool:
    """Whether `error` says something about one entry, and others may still be made."""
    return error.errno not in _OF_ALL


def _entered(here: int, name: bytes, *, make: bool) -> int:
    try:
        return os.open(name, ENTER, dir_fd=here)
    except FileNotFoundError:
        if not make:
            raise
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        is_link = stat.S_ISLNK(_lstat(here, name).st_mode)
        what = "a link" if is_link else "what is no directory"
        raise Refused(f"its path leads through {what}") from None
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=here)
    return os.open(name, ENTER, dir_fd=here)


def _settle(here: int, name: bytes, mode: int, mtime_ns: int) -> None:
    """Only of a directory: whatever else has its name by now stays as it is."""
    found = os.open(name, _LOOK, dir_fd=here)
    try:
        if stat.S_ISDIR(os.fstat(found).st_mode):
            os.chmod(through_proc(found), mode)
            os.utime(through_proc(found), ns=(mtime_ns, mtime_ns))
    finally:
        os.close(found)


def _lstat(here: int, name: bytes) -> os.stat_result:
    return os.stat(name, dir_fd=here, follow_symlinks=False)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _check_space(here: int, size: int) -> None:
    """Before the first byte: an archive of some KiB may hold a file of zeros of any size."""
    if size < LOOK_FOR_SPACE:
        return
    found = os.fstatvfs(here)
    available = found.f_bavail * found.f_frsize
    if size > available:
        raise CallError(
            Code.NO_SPACE,
            f"{size} bytes are needed, and {available} available",
            needed=size,
            available=available,
        )
