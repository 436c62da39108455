"""One entry that is copied: a file or a link, whole or not at all, under a name in a directory.

The bytes of a file go to a part beside its name (see `parts`). Where an old file is replaced they
are on the disk before: a power cut leaves either. Mode and times are kept, but for set-user-id
and set-group-id: the owner is another one.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from sidecar.errors import CallError, Code
from sidecar.hands.local.beneath import through_proc
from sidecar.hands.local.filecopy import Unreadable, copy_content
from sidecar.hands.local.parts import TOKEN_BYTES, Part, make_part
from sidecar.hands.names import part_name

PERMISSIONS = 0o777

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Spot:
    """Where the copy goes: a name in a directory. `is_new`: nobody had the directory before, so
    nothing has the name."""

    directory: int
    name: bytes
    replace: bool
    is_new: bool = False

    def look(self) -> os.stat_result | None:
        """What has the name now."""
        if self.is_new:
            return None
        try:
            return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return None


def copy_entry(found: int, spot: Spot, check: Callable[[], object]) -> int:
    """Copy what `found`, an O_PATH descriptor, names; the bytes of content. Raises `Unreadable`
    for what is wrong with that, and for what is neither a file nor a link; else `OSError` and
    `no_space`."""
    source, old = os.fstat(found), spot.look()
    if old is not None and not spot.replace:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    if old is not None and stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if stat.S_ISREG(source.st_mode):
        return _copy_file(found, source, spot, check, is_there=old is not None)
    if stat.S_ISLNK(source.st_mode):
        _copy_link(found, source, spot)
        return 0
    raise Unreadable(CallError(Code.UNSUPPORTED, "it is no file, directory or link"))


def _copy_file(
    found: int,
    source: os.stat_result,
    spot: Spot,
    check: Callable[[], object],
    *,
    is_there: bool,
) -> int:
    reader = _open(found)
    try:
        part = make_part(spot.directory, spot.name)
        try:
            copied = copy_content(reader, part.fd, check)
            _adopt(part, source)
            if is_there:
                os.fsync(part.fd)
            part.publish(spot.name, is_there=is_there, replace=spot.replace)
        except BaseException:
            part.drop()
            raise
        finally:
            os.close(part.fd)
    finally:
        os.close(reader)
    return copied


def _open(found: int) -> int:
    try:
        return os.open(through_proc(found), _READ)
    except OSError as error:
        raise Unreadable(error) from None


def _adopt(part: Part, source: os.stat_result) -> None:
    os.fchmod(part.fd, source.st_mode & PERMISSIONS)
    os.utime(part.fd, ns=(source.st_atime_ns, source.st_mtime_ns))


def _copy_link(found: int, source: os.stat_result, spot: Spot) -> None:
    """symlink(2) replaces nothing, so the link is made beside the name and renamed."""
    text = os.readlink(b"", dir_fd=found)
    name = part_name(spot.name, secrets.token_bytes(TOKEN_BYTES)) if spot.replace else spot.name
    directory = spot.directory
    os.symlink(text, name, dir_fd=directory)
    try:
        times = source.st_atime_ns, source.st_mtime_ns
        os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)
        if spot.replace:
            os.rename(name, spot.name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=directory)
        raise
