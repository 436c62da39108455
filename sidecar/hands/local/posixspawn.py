"""posix_spawn(3) of the C library: a working directory, a terminal, and nothing leaks.

It stops the calling thread until the child has called exec and copies no memory, so it costs the
same however large we are. Of what Python offers, `os.posix_spawn` cannot change the directory,
and `subprocess` cannot open a terminal as the leader of the new session, which is what makes it
the controlling one (open(2), O_NOCTTY), unless code of ours runs between fork and exec. Called
through ctypes, so other threads run meanwhile.

Sources: posix_spawn(3) of man-pages 6; spawn.h of glibc 2.36 and musl 1.2, which have the same
flags. What they keep behind their types is at most 336 bytes, on x86-64 and arm64 alike; it gets
1,024. Both do what a flag says before the first action, and the actions in their order.

Two actions are missing in an old library:

- addfchdir_np (glibc before 2.29): /bin/sh changes the directory, then execs the program. What
  exec refuses looks like a program that ends with 126 or 127, but for what can be seen before,
  the program finds PWD set, and variables whose name is no identifier may be gone.
- addclosefrom_np (glibc before 2.34, musl): what would be inherited is closed one by one.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

_SETSIGDEF, _SETSIGMASK, _SETSID = 0x04, 0x08, 0x80
_OPAQUE = 1024  # bytes
_FREE = 10  # the first number that no child is given; sources stay above, so none is overwritten
_THROUGH_SH = b'cd -P /proc/self/fd/%d && exec %d<&- && exec "$@"'

_libc = ctypes.CDLL(None)
_HAS_FCHDIR = hasattr(_libc, "posix_spawn_file_actions_addfchdir_np")
_HAS_CLOSEFROM = hasattr(_libc, "posix_spawn_file_actions_addclosefrom_np")

for _name, _types in {
    "posix_spawn": [ctypes.c_void_p, ctypes.c_char_p, *[ctypes.c_void_p] * 4],
    "posix_spawnattr_init": [ctypes.c_void_p],
    "posix_spawnattr_setflags": [ctypes.c_void_p, ctypes.c_short],
    "posix_spawnattr_setsigdefault": [ctypes.c_void_p] * 2,
    "posix_spawnattr_setsigmask": [ctypes.c_void_p] * 2,
    "posix_spawn_file_actions_init": [ctypes.c_void_p],
    "posix_spawn_file_actions_destroy": [ctypes.c_void_p],
    "posix_spawn_file_actions_addclose": [ctypes.c_void_p, ctypes.c_int],
    "posix_spawn_file_actions_addclosefrom_np": [ctypes.c_void_p, ctypes.c_int],
    "posix_spawn_file_actions_adddup2": [ctypes.c_void_p, ctypes.c_int, ctypes.c_int],
    "posix_spawn_file_actions_addfchdir_np": [ctypes.c_void_p, ctypes.c_int],
    "posix_spawn_file_actions_addopen": [
        *[ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p],
        *[ctypes.c_int, ctypes.c_uint],
    ],
    "sigemptyset": [ctypes.c_void_p],
    "sigfillset": [ctypes.c_void_p],
}.items():
    if hasattr(_libc, _name):
        getattr(_libc, _name).argtypes = _types


def posix_spawn(
    executable: bytes,
    argv: Sequence[bytes],
    environment: Mapping[bytes, bytes],
    *,
    directory: int,
    files: Sequence[int | bytes],
) -> int:
    """The pid of a new child that runs `executable` in `directory`, a session of its own.

    `files` are all that it has open: by its number a descriptor of ours, or a path that is
    opened to read and write; a path that stands there more than once is opened once. Its
    signals have their default actions and none is blocked. `executable` may be relative, to
    `directory`. Raises `OSError`, whose errno may come from any of the steps; then there is no
    child.
    """
    moved: list[int] = []  # what of ours stood in the way of the child's numbers
    actions = ctypes.create_string_buffer(_OPAQUE)
    _check(_libc.posix_spawn_file_actions_init(actions))
    try:
        if _HAS_FCHDIR:
            _check(_libc.posix_spawn_file_actions_addfchdir_np(actions, directory))
        else:
            executable, argv = _through_sh(executable, argv, directory, len(files))
            files = [*files, directory]
        _add_files(actions, files, moved)
        _add_closing(actions, len(files))
        pid = ctypes.c_int()
        strings = _vector(b"%b=%b" % item for item in environment.items())
        child = ctypes.byref(pid), executable, actions, _attributes, _vector(argv), strings
        _check(_libc.posix_spawn(*child))
        return pid.value
    finally:
        _libc.posix_spawn_file_actions_destroy(actions)
        for descriptor in moved:
            os.close(descriptor)


def _add_files(actions: object, files: Sequence[int | bytes], moved: list[int]) -> None:
    for number, source in enumerate(files):
        if isinstance(source, int):
            if source < _FREE:
                source = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _FREE)
                moved.append(source)
            _check(_libc.posix_spawn_file_actions_adddup2(actions, source, number))
        elif (first := files.index(source)) < number:
            _check(_libc.posix_spawn_file_actions_adddup2(actions, first, number))
        else:
            _check(_libc.posix_spawn_file_actions_addopen(actions, number, source, os.O_RDWR, 0))


def _add_closing(actions: object, first: int) -> None:
    """Close the rest, for what we have open is not all ours, nor all of it close-on-exec."""
    if _HAS_CLOSEFROM:
        _check(_libc.posix_spawn_file_actions_addclosefrom_np(actions, first))
        return
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # listdir's own is gone already
            if descriptor >= first and os.get_inheritable(descriptor):
                _check(_libc.posix_spawn_file_actions_addclose(actions, descriptor))


def _through_sh(
    executable: bytes, argv: Sequence[bytes], directory: int, number: int
) -> tuple[bytes, Sequence[bytes]]:
    """The same program, run by a shell that goes to the directory it has open as `number`."""
    is_directory = stat.S_ISDIR(os.stat(executable, dir_fd=directory).st_mode)
    if is_directory or not os.access(executable, os.X_OK, dir_fd=directory):
        raise _error(errno.EACCES)
    script = _THROUGH_SH % (number, number)
    return b"/bin/sh", [b"/bin/sh", b"-c", script, b"sh", executable, *argv[1:]]


def _vector(strings: Iterable[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    """`strings` as C has them; a NULL ends the array."""
    pointers = [*strings, None]
    return (ctypes.c_char_p * len(pointers))(*pointers)


def _attributes_of_all() -> ctypes.Array[ctypes.c_char]:
    signals = ctypes.create_string_buffer(_OPAQUE)
    attributes = ctypes.create_string_buffer(_OPAQUE)
    _check(_libc.posix_spawnattr_init(attributes))
    _check(_libc.posix_spawnattr_setflags(attributes, _SETSID | _SETSIGDEF | _SETSIGMASK))
    _libc.sigfillset(signals)
    _check(_libc.posix_spawnattr_setsigdefault(attributes, signals))
    _libc.sigemptyset(signals)
    _check(_libc.posix_spawnattr_setsigmask(attributes, signals))
    return attributes


def _check(number: int) -> None:
    """These functions answer with an errno instead of setting it."""
    if number:
        raise _error(number)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


_attributes = _attributes_of_all()
