"""What is done to paths: look, list, make, rename, link, change.

Each operation resolves once (`beneath`) and then acts on descriptors and last names with the
*at system calls, so a path that changes in between leads to an error, not somewhere else. All
functions block and run in a worker thread. Errors are `CallError`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque

from sidecar.errors import CallError, Code, Invalid, show_path
from sidecar.hands.interface import FileStat, Path, stat_of
from sidecar.hands.local.beneath import Beneath, Place, coded, through_proc
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.syscalls import RENAME_NOREPLACE, renameat2
from sidecar.hands.names import SELF, UP, parent_and_name

_LOOK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Paths:
    """The path operations of all roots."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots

    def open_file(self, path: Path) -> int:
        """A descriptor for reading; only of a regular file, for nothing else ends."""
        with self._roots.resolved(path) as found:
            mode = os.fstat(found).st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(mode):
                raise CallError(Code.UNSUPPORTED, f"{show_path(path)} is no regular file")
            # O_NONBLOCK: who holds a lease on a file (fcntl(2)) would keep us waiting for 45 s.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            return os.open(through_proc(found), flags)

    def open_directory(self, path: Path) -> int:
        """An O_PATH descriptor of a directory, good for chdir and *at calls."""
        with self._roots.resolved(path) as found:
            return os.open(SELF, _LOOK, dir_fd=found)

    def stat(self, path: Path, *, follow: bool) -> FileStat:
        with self._roots.resolved(path, follow=follow) as found:
            result = os.fstat(found)
            is_link = stat.S_ISLNK(result.st_mode)
            return stat_of(result, os.readlink(b"", dir_fd=found) if is_link else None)

    def mkdir(self, path: Path, *, parents: bool, exist_ok: bool, mode: int) -> None:
        check_mode(mode)
        if exist_ok and self._is_directory(path):
            return
        if parents:
            self.make_parents(path)
        try:
            with self._roots.parent(path) as place:
                os.mkdir(place.name, mode, dir_fd=place.directory)
        except CallError as error:
            lost_a_race = exist_ok and error.code is Code.EXISTS and self._is_directory(path)
            if not lost_a_race:
                raise

    def make_parents(self, path: Path) -> None:
        """Make the missing directories above `path`'s last name (mode 0o777 less the umask)."""
        root = self._roots.of(path, write=True)
        here, missing = _deepest(root, parent_and_name(root.relative(path))[0], path)
        try:
            with coded(path):
                for name in missing:
                    try:
                        os.mkdir(name, dir_fd=here)
                    except FileExistsError:
                        pass  # somebody else made it; whatever it is, it is not followed
                    below = os.open(name, _LOOK, dir_fd=here)
                    os.close(here)
                    here = below
        finally:
            os.close(here)

    def rename(self, source: Path, target: Path, *, replace: bool) -> None:
        root = self._roots.of_both(source, target)
        with root.parent(source) as old, root.parent(target) as new:
            with coded(source):
                found = old.lstat()
            if new.has_slash and not stat.S_ISDIR(found.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if replace:
                os.rename(old.name, new.name, src_dir_fd=old.directory, dst_dir_fd=new.directory)
            else:
                _rename_to_free_name(old, new, is_directory=stat.S_ISDIR(found.st_mode))

    def chmod(self, path: Path, mode: int) -> None:
        check_mode(mode)
        with self._roots.resolved(path, follow=False, write=True) as found:
            if stat.S_ISLNK(os.fstat(found).st_mode):
                raise CallError(
                    Code.UNSUPPORTED, f"{show_path(path)} is a link, and Linux keeps no mode for it"
                )
            os.chmod(through_proc(found), mode)

    def utimes(self, path: Path, *, atime_ns: int, mtime_ns: int) -> None:
        """Set both times, also of a symbolic link itself."""
        check_time(atime_ns)
        check_time(mtime_ns)
        with self._roots.resolved(path, follow=False, write=True) as found:
            os.utime(through_proc(found), ns=(atime_ns, mtime_ns))

    def _is_directory(self, path: Path) -> bool:
        try:
            with self._roots.resolved(path) as found:
                return stat.S_ISDIR(os.fstat(found).st_mode)
        except CallError as error:
            if error.code is Code.NOT_FOUND:
                return False
            raise


def check_mode(mode: int) -> None:
    """Raise `Invalid` unless these are permission bits."""
    if not 0 <= mode <= 0o7777:
        raise Invalid(f"mode {mode:#o}: between 0 and 0o7777 allowed")


def check_time(nanoseconds: int) -> None:
    """Raise `Invalid` for a time before 1677 or after 2262, which 64 bits do not hold."""
    if not -(2**63) <= nanoseconds < 2**63:
        raise Invalid(f"a time of {nanoseconds} nanoseconds: 64 bits do not hold it")


def _rename_to_free_name(old: Place, new: Place, *, is_directory: bool) -> None:
    try:
        renameat2(old.directory, old.name, new.directory, new.name, RENAME_NOREPLACE)
    except OSError as error:
        # EINVAL: the flag is unknown to this file system, or a directory goes below itself.
        is_flag = error.errno == errno.EINVAL and not is_directory
        if error.errno != errno.ENOSYS and not is_flag:
            raise
        raise CallError(
            Code.UNSUPPORTED, "this file system cannot rename without replacing"
        ) from None


def _deepest(root: Beneath, directory: bytes, path: Path) -> tuple[int, deque[bytes]]:
    """A descriptor of the deepest part of `directory` that exists, and the names below it."""
    names = directory.split(b"/")
    missing: deque[bytes] = deque()
    while True:
        try:
            found = root.resolve(b"/".join(names) or SELF, about=path)
        except CallError as error:
            # `..` below something that is missing: mkdirat would take it, and leave the root.
            if error.code is not Code.NOT_FOUND or not names or UP in (*missing, names[-1]):
                raise
            missing.appendleft(names.pop())
        else:
            return found, missing
