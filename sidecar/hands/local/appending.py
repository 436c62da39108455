"""A file opened for writing at its end: who writes to it never touches what is there."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from sidecar.errors import CallError, Code, show_path
from sidecar.hands.fileinterface import Path
from sidecar.hands.local.beneath import Beneath, through_proc
from sidecar.hands.local.paths import check_mode
from sidecar.hands.local.targets import target_of

MAX_TRIES = 16  # while somebody else makes the file and removes it
_OPEN = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MAKE = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def open_end(root: Beneath, path: Path) -> int:
    """A descriptor of a regular file that is there."""
    with root.resolved(path) as found:
        mode = os.fstat(found).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise CallError(Code.UNSUPPORTED, f"{show_path(path)} is no regular file", path=path)
        return os.open(through_proc(found), _OPEN)


def make_end(root: Beneath, path: Path, mode: int) -> int:
    """The same; a file that is missing is made with exactly this mode."""
    check_mode(mode)
    for _ in range(MAX_TRIES):
        try:
            return open_end(root, path)
        except CallError as error:
            if error.code is not Code.NOT_FOUND:
                raise
        with target_of(root, path) as place, suppress(FileExistsError):
            return _make(place.directory, place.name, mode)
    raise CallError(Code.CONFLICT, f"{show_path(path)} comes and goes", path=path)


def _make(directory: int, name: bytes, mode: int) -> int:
    fd = os.open(name, _MAKE, 0o600, dir_fd=directory)
    try:
        os.fchmod(fd, mode)
    except BaseException:
        os.close(fd)
        raise
    return fd
