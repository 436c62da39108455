"""System calls that Python does not offer: openat2, renameat2, fstatfs, prctl, Landlock.

Sources: openat2(2), rename(2), fstatfs(2), prctl(2), landlock_create_ruleset(2) of man-pages 6;
linux/openat2.h, linux/magic.h, linux/prctl.h, linux/landlock.h. What raises raises `OSError` with
the kernel's errno, ENOSYS where the call is missing. Through ctypes a call costs 2 to 5 µs and
lets other threads run meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_BENEATH = 0x08
RENAME_NOREPLACE = 0x01
PROC_SUPER_MAGIC = 0x9FA0
CGROUP2_SUPER_MAGIC = 0x63677270
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37

_OPENAT2 = 437  # one number for every architecture (alpha, which differs, runs no Python 3.11)
_LANDLOCK_CREATE_RULESET = 444  # likewise
_LANDLOCK_CREATE_RULESET_VERSION = 1
_RENAMEAT2 = {"x86_64": 316, "aarch64": 276, "riscv64": 276, "ppc64le": 357, "s390x": 347}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = [
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    ]


def openat2(directory: int, path: bytes, flags: int, resolve: int) -> int:
    """A descriptor of `path` from `directory`; `flags` ought to have O_CLOEXEC."""
    how = _OpenHow(flags, 0, resolve)
    return _call(
        path,
        _OPENAT2,
        ctypes.c_int(directory),
        ctypes.c_char_p(path),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )


def renameat2(
    source_directory: int, source: bytes, target_directory: int, target: bytes, flags: int
) -> None:
    """rename(2) with flags. EINVAL also means that the file system knows no such flag."""
    number = _RENAMEAT2.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    _call(
        target,
        number,
        ctypes.c_int(source_directory),
        ctypes.c_char_p(source),
        ctypes.c_int(target_directory),
        ctypes.c_char_p(target),
        ctypes.c_uint(flags),
    )


def is_on_procfs(descriptor: int) -> bool:
    """Whether a descriptor (O_PATH is enough) lies on a proc file system."""
    return _file_system(descriptor) == PROC_SUPER_MAGIC


def is_on_cgroup2(descriptor: int) -> bool:
    """Whether a descriptor (O_PATH is enough) lies in a cgroup hierarchy of version 2."""
    return _file_system(descriptor) == CGROUP2_SUPER_MAGIC


def set_subreaper(wanted: bool) -> bool:
    """Adopt orphans among our descendants, or cease to; False if the kernel refuses."""
    zero = ctypes.c_ulong(0)
    flag = ctypes.c_ulong(wanted)
    return bool(_libc.prctl(PR_SET_CHILD_SUBREAPER, flag, zero, zero, zero) == 0)


def is_subreaper() -> bool:
    flag = ctypes.c_int(0)
    zero = ctypes.c_ulong(0)
    answer = _libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), zero, zero, zero)
    return answer == 0 and bool(flag.value)


def landlock_abi() -> int | None:
    """The version of Landlock that this kernel enforces; None if it enforces none."""
    try:
        return _call(
            None,
            _LANDLOCK_CREATE_RULESET,
            ctypes.c_void_p(None),
            ctypes.c_size_t(0),
            ctypes.c_uint(_LANDLOCK_CREATE_RULESET_VERSION),
        )
    except OSError:
        return None


def _file_system(descriptor: int) -> int:
    # `f_type` is the first word of struct statfs; the rest is 112 bytes on 64-bit Linux.
    answer = (ctypes.c_long * 64)()
    if _libc.fstatfs(ctypes.c_int(descriptor), ctypes.byref(answer)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(answer[0])


def _call(path: bytes | None, number: int, *arguments: object) -> int:
    while True:
        result = int(_libc.syscall(ctypes.c_long(number), *arguments))
        if result >= 0:
            return result
        failure = ctypes.get_errno()
        if failure != errno.EINTR:
            raise OSError(failure, os.strerror(failure), path)
