"""inotify(7): the kernel tells of changes in directories, each known by a *watch descriptor*.

A watch is set on what a descriptor names, through /proc/self/fd, never on a path: so it is on the
directory that was opened, whatever its name means by now. It belongs to the inode: the same
directory watched twice has one watch descriptor, and keeps it when it is renamed. A number is not
used again as long as the instance lives (until 2**31 of them were).

Sources: inotify(7), inotify_init(2), inotify_add_watch(2) of man-pages 6; linux/inotify.h.
Through ctypes a call costs 2 to 5 us and lets other threads run meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from contextlib import suppress
from typing import NamedTuple

from sidecar.errors import CallError, Code
from sidecar.hands.local.beneath import through_proc

MODIFY = 0x0000_0002
ATTRIB = 0x0000_0004
CLOSE_WRITE = 0x0000_0008
MOVED_FROM = 0x0000_0040
MOVED_TO = 0x0000_0080
CREATE = 0x0000_0100
DELETE = 0x0000_0200
DELETE_SELF = 0x0000_0400
MOVE_SELF = 0x0000_0800
UNMOUNT = 0x0000_2000
OVERFLOW = 0x0000_4000
IGNORED = 0x0000_8000
ISDIR = 0x4000_0000

_ONLYDIR = 0x0100_0000
_EXCL_UNLINK = 0x0400_0000  # nothing of files that have no name any more
_MASK_ADD = 0x2000_0000  # another reason to watch it takes nothing from the first

READ_SIZE = 64 * 1024  # bytes; some 2,000 events
_HEADER = struct.Struct("=iIII")  # wd, mask, cookie, length of the name with its padding
_LIMITS = {
    errno.ENOSPC: ("watches", "max_user_watches"),
    errno.EMFILE: ("instances", "max_user_instances"),
}

_libc = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """`name` is that of an entry of the directory, or b"" if it is about the directory itself.
    `wd` is -1 for an overflow."""

    wd: int
    mask: int
    name: bytes


class Inotify:
    """One instance. Raises `limit` where the kernel allows this user no more."""

    def __init__(self) -> None:
        self.fd = _checked(_libc.inotify_init1(ctypes.c_int(os.O_NONBLOCK | os.O_CLOEXEC)))

    def close(self) -> None:
        """All watches end with it. A second call is harmless."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def watch(self, directory: int, mask: int) -> int:
        """The watch descriptor of an open directory (O_PATH is enough). Raises `OSError`: EACCES
        if it may not be read."""
        path = through_proc(directory).encode()
        flags = mask | _ONLYDIR | _EXCL_UNLINK | _MASK_ADD
        call = _libc.inotify_add_watch
        return _checked(call(ctypes.c_int(self.fd), ctypes.c_char_p(path), ctypes.c_uint32(flags)))

    def unwatch(self, wd: int) -> None:
        """Harmless for one that went with its directory."""
        with suppress(OSError):
            _checked(_libc.inotify_rm_watch(ctypes.c_int(self.fd), ctypes.c_int(wd)))

    def read(self) -> list[Event]:
        """What has happened, as far as one read gives it; [] if nothing has."""
        try:
            data = os.read(self.fd, READ_SIZE)
        except BlockingIOError:
            return []
        events = []
        at = 0
        while at < len(data):
            wd, mask, _, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            events.append(Event(wd, mask, data[at : at + length].rstrip(b"\0")))
            at += length
        return events


def _checked(result: int) -> int:
    if result >= 0:
        return result
    number = ctypes.get_errno()
    limit = _LIMITS.get(number)
    if limit is None:
        raise OSError(number, os.strerror(number))
    what, setting = limit
    raise CallError(
        Code.LIMIT,
        f"this user has as many inotify {what} as fs.inotify.{setting} allows{_value(setting)}:"
        f" raise it (sysctl fs.inotify.{setting}=N, on the host of a container), end other"
        " watchers, or watch less: exclude folders, or one further down",
        errno=errno.errorcode[number],
        setting=f"fs.inotify.{setting}",
    )


def _value(setting: str) -> str:
    try:
        with open(f"/proc/sys/fs/inotify/{setting}") as file:
            return f" ({file.read().strip()})"
    except OSError:
        return ""
