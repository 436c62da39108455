"""The file that the bytes of a write go to, until it takes the place of its target.

rename(2) is atomic only within one file system, so a part lies beside its target. There are two:

- Of a plain write it has no name at all (O_TMPFILE, open(2)): killed in the middle, it is gone.
  linkat(2) gives it the name of its target if nothing is there; otherwise that of a part for the
  moment before the rename, since no system call puts a file without a name in another's place.
  Killed in that moment, a whole part stays, `.NAME.TOKEN.sidecar-part`. File systems without
  such files get a part with a name from the start.
- Of an upload with an id it is `.NAME.ID.sidecar-part`, and stays until it is committed or
  discarded. Whoever writes it holds its lock (flock(2)), which ends with the last descriptor,
  wherever that is. Only what nobody else can have prepared is taken up: a regular file of our
  own, with one name, that no link leads to.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from sidecar.errors import CallError, Code, show_path
from sidecar.hands.fileinterface import Path
from sidecar.hands.local.beneath import Place, through_proc
from sidecar.hands.local.syscalls import RENAME_NOREPLACE, renameat2
from sidecar.hands.names import SELF, part_name

TOKEN_BYTES = 6  # of the name of a part that is there for one call only
MAX_TRIES = 16  # of opening a part that somebody else makes and removes at the same moment
_OPEN = os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MAKE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_UNNAMED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS)  # EISDIR: Linux 3.10
_NO_LOCKS = (errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL)


class Part(Protocol):
    """An open file, `fd`, in a directory that is named by a descriptor."""

    fd: int
    size: int  # what was in it when it was opened

    def publish(self, name: bytes, *, is_there: bool, replace: bool) -> None:
        """Become `name` in its directory; `is_there`: something seems to have that name. Raises
        `FileExistsError` if something has, and `replace` is False."""
        ...

    def drop(self) -> None:
        """What becomes of it without that; `fd` stays the caller's to close."""
        ...


class UnnamedPart:
    """A file without a name."""

    size = 0

    def __init__(self, directory: int, target: bytes) -> None:
        self._directory = directory
        self._target = target
        self.fd = os.open(SELF, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)

    def publish(self, name: bytes, *, is_there: bool, replace: bool) -> None:
        """See `Part`."""
        if not (is_there and replace):
            try:
                self._link(name)
                return
            except FileExistsError:
                if not replace:
                    raise
        part = part_name(self._target, secrets.token_bytes(TOKEN_BYTES))
        self._link(part)
        try:
            _rename(self._directory, part, name)
        except BaseException:
            with suppress(OSError):
                os.unlink(part, dir_fd=self._directory)
            raise

    def drop(self) -> None:
        """It goes with its last descriptor."""

    def _link(self, name: bytes) -> None:
        # Given a dir_fd, this is linkat(2) with AT_SYMLINK_FOLLOW: a link to the file itself.
        os.link(through_proc(self.fd), name, dst_dir_fd=self._directory)


class NamedPart:
    """A file with a name, removed when it is dropped unless it is to be kept."""

    def __init__(self, directory: int, name: bytes, fd: int, *, keep: bool) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size
        self._directory = directory
        self._name = name
        self._keep = keep

    def publish(self, name: bytes, *, is_there: bool, replace: bool) -> None:
        """See `Part`."""
        if replace:
            _rename(self._directory, self._name, name)
            return
        try:
            renameat2(self._directory, self._name, self._directory, name, RENAME_NOREPLACE)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EINVAL):  # file systems without the flag
                raise
            os.link(self._name, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            os.unlink(self._name, dir_fd=self._directory)

    def drop(self) -> None:
        """See `Part`."""
        if not self._keep:
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._directory)


def make_part(directory: int, target: bytes) -> Part:
    """For one call, beside `target`."""
    try:
        return UnnamedPart(directory, target)
    except OSError as error:
        if error.errno not in _NO_UNNAMED:
            raise
    name = part_name(target, secrets.token_bytes(TOKEN_BYTES))
    return NamedPart(directory, name, os.open(name, _MAKE, 0o600, dir_fd=directory), keep=False)


def take_part(path: Path, directory: int, target: bytes, upload: bytes) -> Part:
    """That of an upload with an id, made if it is not there, and locked. Raises `conflict` if
    somebody else writes it, `exists` for what is not ours."""
    name = part_name(target, upload)
    for _ in range(MAX_TRIES):
        fd = _open_ours(path, directory, name)
        if fd is None:
            with suppress(FileExistsError):
                fd = os.open(name, _MAKE, 0o600, dir_fd=directory)
        if fd is None:
            continue
        try:
            if not _lock(fd):
                raise _is_written(path)
            if _is_still(fd, directory, name):
                return NamedPart(directory, name, fd, keep=True)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise _is_written(path)


def find_part(path: Path, place: Place, upload: bytes) -> os.stat_result | None:
    """The part of an upload, if it is there. Raises `exists` for what is not ours."""
    fd = _look_at_ours(path, place.directory, part_name(place.name, upload))
    if fd is None:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def discard_part(
    path: Path, place: Place, upload: bytes, is_due: Callable[[os.stat_result], bool]
) -> bool:
    """Remove the part of an upload that `is_due`, unless somebody writes it. Whether there is
    none any more. Raises `exists` for what is not ours."""
    name = part_name(place.name, upload)
    fd = _open_ours(path, place.directory, name)
    if fd is None:
        return True
    try:
        if not _lock(fd) or not is_due(os.fstat(fd)):
            return False
        if _is_still(fd, place.directory, name):
            os.unlink(name, dir_fd=place.directory)
        return True
    finally:
        os.close(fd)


def _open_ours(path: Path, directory: int, name: bytes) -> int | None:
    look = _look_at_ours(path, directory, name)
    if look is None:
        return None
    try:
        return os.open(through_proc(look), _OPEN)  # nothing else than what was looked at
    finally:
        os.close(look)


def _look_at_ours(path: Path, directory: int, name: bytes) -> int | None:
    """An O_PATH descriptor: whatever lies there is not opened before it is known."""
    try:
        look = os.open(name, _LOOK, dir_fd=directory)
    except FileNotFoundError:
        return None
    if _is_ours(os.fstat(look)):
        return look
    os.close(look)
    raise CallError(
        Code.EXISTS, f"what lies in the place of the part of {show_path(path)} is not ours"
    )


def _is_ours(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_nlink <= 1 and found.st_uid == os.geteuid()


def _is_still(fd: int, directory: int, name: bytes) -> bool:
    """Whether the name still leads to what was opened and is locked now."""
    try:
        named = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(fd)) and _is_ours(named)


def _lock(fd: int) -> bool:
    """Whether nobody else has it. A file system without locks has to do without."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _rename(directory: int, old: bytes, new: bytes) -> None:
    os.rename(old, new, src_dir_fd=directory, dst_dir_fd=directory)


def _is_written(path: Path) -> CallError:
    return CallError(Code.CONFLICT, f"somebody else writes the part of {show_path(path)}")
