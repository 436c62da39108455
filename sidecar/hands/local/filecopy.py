"""The bytes of one file to another, between descriptors, by the kernel where it can.

In this order: the file system lets both share the bytes (FICLONE, ioctl_ficlone(2)), which takes
no time and no room; the kernel copies what is no hole (SEEK_DATA, lseek(2); copy_file_range(2));
we read and write. A hole stays one in all three.

Some files say that they have no bytes and have some (proc(5)); those are read until they end,
`UNSIZED_BYTES` at most, for a few never do. Others say more than they have (sysfs(5)): what they
have is all of it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable

from sidecar.errors import CallError, Code, LimitExceeded

STEP = 16 << 20  # bytes that the kernel copies at once: what a wish to stop waits for
BUFFER = 1 << 20
UNSIZED_BYTES = 4 << 20
_FICLONE = 0x40049409  # _IOW(0x94, 9, int), linux/fs.h
_NO_RANGE = {
    *(errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS),
    *(errno.EPERM, errno.EBADF, errno.EIO),  # filters; network file systems, by their man page
}

Check = Callable[[], object]


class Unreadable(Exception):
    """It is the source that cannot be copied; `error` says why."""

    def __init__(self, error: OSError | CallError) -> None:
        super().__init__(str(error))
        self.error = error


def copy_content(source: int, target: int, check: Check) -> int:
    """All bytes of `source` to the empty file `target`; how many.

    `check` is called often and may raise. Raises `Unreadable`, also for a file that changes
    meanwhile; `no_space`; and `OSError` for what is wrong with the target.
    """
    before = os.fstat(source)
    if before.st_size == 0:
        copied = _copy_unsized(source, target, check)
    elif _clone(source, target, before):
        copied = before.st_size
    else:
        _check_room(target, min(before.st_blocks * 512, before.st_size))
        copied = _copy_data(source, target, before.st_size, check)
    after = os.fstat(source)
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise Unreadable(CallError(Code.SOURCE_CHANGED, "it changed while it was copied"))
    return copied


def _clone(source: int, target: int, found: os.stat_result) -> bool:
    if os.fstat(target).st_dev != found.st_dev:
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # most file systems cannot; what is wrong otherwise shows when it is copied
        return False
    return True


def _check_room(target: int, needed: int) -> None:
    """Before the first byte: a disk that is filled to its end is everybody's trouble."""
    disk = os.fstatvfs(target)
    available = disk.f_bavail * disk.f_frsize
    if disk.f_blocks and needed > available:
        raise CallError(
            Code.NO_SPACE,
            f"{needed} bytes are needed, and {available} are free",
            needed=needed,
            available=available,
        )


def _copy_data(source: int, target: int, size: int, check: Check) -> int:
    """What is no hole; the size of the target is set first, so that one at the end stays."""
    os.ftruncate(target, size)
    at = 0
    while (extent := _next_data(source, at, size)) is not None:
        at, end = extent
        done = _copy_range(source, target, at, end, check)
        if done < end:
            os.ftruncate(target, done)
            return done
        at = end
    return size


def _next_data(source: int, at: int, size: int) -> tuple[int, int] | None:
    """Where bytes begin and end at `at` or after it; None: there are none up to `size`."""
    try:
        begin = os.lseek(source, at, os.SEEK_DATA)
        end = os.lseek(source, begin, os.SEEK_HOLE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        if error.errno != errno.EINVAL:  # a file system that knows no holes
            raise
        begin, end = at, size
    return (begin, min(end, size)) if begin < size else None


def _copy_range(source: int, target: int, at: int, end: int, check: Check) -> int:
    """Where it stopped: at `end`, or where the file ends sooner."""
    while at < end:
        check()
        count = min(end - at, STEP)
        try:
            done = os.copy_file_range(source, target, count, at, at)
        except OSError as error:
            if error.errno not in _NO_RANGE:
                raise
            done = 0
        if done == 0:  # also what some file systems answer to a question that they do not know
            return _copy_by_hand(source, target, at, end, check)
        at += done
    return at


def _copy_by_hand(source: int, target: int, at: int, end: int, check: Check) -> int:
    while at < end and (data := _read(source, min(end - at, BUFFER), at)):
        check()
        at += _write(target, data, at)
    return at


def _copy_unsized(source: int, target: int, check: Check) -> int:
    at = 0
    while data := _read(source, BUFFER, at):
        check()
        if at + len(data) > UNSIZED_BYTES:
            what = "bytes of a file that tells no size"
            raise Unreadable(LimitExceeded(what, size=at + len(data), limit=UNSIZED_BYTES))
        at += _write(target, data, at)
    return at


def _read(source: int, size: int, at: int) -> bytes:
    try:
        return os.pread(source, size, at)
    except OSError as error:
        raise Unreadable(error) from None


def _write(target: int, data: bytes, at: int) -> int:
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += os.pwrite(target, view[done:], at + done)
    return done
