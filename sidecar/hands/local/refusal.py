"""Why a program was not started, in words a caller can act upon.

execve(2) answers with a number that says neither which file it means nor what of it. So after a
refusal we look at the files ourselves, which blocks; what we see may have changed meanwhile, and
only the words depend on it. Nothing was started in any of these cases.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
from contextlib import suppress

from sidecar.errors import CallError, Code, LimitExceeded, from_os_error, show_path
from sidecar.hands.local.command import Command

_SHEBANG = 256  # bytes of a first line that the kernel looks at (execve(2))
_MAX_STRING = 32 * os.sysconf("SC_PAGE_SIZE")  # bytes of one argument (MAX_ARG_STRLEN)
_MAX_STRINGS = 6 << 20  # bytes of all of them, whatever the stack may be (execve(2))
_POINTER = 8  # bytes; each argument and variable costs one, too


def explain(error: OSError, command: Command, directory: int) -> CallError:
    """What `error`, from `spawn.start` in `directory`, means."""
    name = command.argv[0]
    match error.errno:
        case errno.ENOEXEC:
            return CallError(
                Code.PERMISSION_DENIED,
                f"{show_path(name)} is neither a program of this machine nor begins with #!",
                errno="ENOEXEC",
                path=name,
            )
        case errno.E2BIG:
            return _too_big(command)
        case errno.ENOENT | errno.EACCES | errno.ENOTDIR:
            return _explain_place(error, command, directory)
    return from_os_error(error, name)


def _too_big(command: Command) -> CallError:
    strings = [*command.argv, *(b"%b=%b" % item for item in command.environment.items())]
    longest = max(len(string) for string in strings) + 1
    if longest > _MAX_STRING:
        what = "bytes of one argument or variable"
        return LimitExceeded(what, size=longest, limit=_MAX_STRING, errno="E2BIG")
    size = sum(len(string) + 1 + _POINTER for string in strings)
    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    limit = _MAX_STRINGS if stack == resource.RLIM_INFINITY else min(stack // 4, _MAX_STRINGS)
    what = "bytes of arguments and environment"
    return LimitExceeded(what, size=size, limit=limit, errno="E2BIG")


def _explain_place(error: OSError, command: Command, directory: int) -> CallError:
    name = command.argv[0]
    try:
        os.stat(b".", dir_fd=directory)  # needs the same right as to enter it
    except OSError as barred:
        return from_os_error(barred, "working directory")
    for path in command.candidates():
        with suppress(OSError):
            mode = os.stat(path, dir_fd=directory).st_mode
            if stat.S_ISDIR(mode):
                return from_os_error(OSError(errno.EISDIR, os.strerror(errno.EISDIR)), name)
            if stat.S_ISREG(mode):
                return _explain_file(error, name, path, directory)
    return from_os_error(error, name)


def _explain_file(error: OSError, name: bytes, path: bytes, directory: int) -> CallError:
    """A file is there; what is not, or may not be run, can be what it needs in turn."""
    is_barred = error.errno == errno.EACCES
    interpreter = _interpreter(path, directory)
    if is_barred and (interpreter is None or not os.access(path, os.X_OK, dir_fd=directory)):
        return from_os_error(error, name)
    what = "its loader" if interpreter is None else f"its interpreter {show_path(interpreter)}"
    return CallError(
        Code.PERMISSION_DENIED if is_barred else Code.NOT_FOUND,
        f"{show_path(name)} is there, but {what} {'may not be run' if is_barred else 'is not'}",
        errno=errno.errorcode.get(error.errno or 0, ""),
        path=name,
    )


def _interpreter(path: bytes, directory: int) -> bytes | None:
    """What a script's first line names; None for a file that is no script."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, dir_fd=directory)
    try:
        line = os.read(descriptor, _SHEBANG).partition(b"\n")[0]
    finally:
        os.close(descriptor)
    words = line[2:].split()
    return words[0] if line.startswith(b"#!") and words else None
