"""One program starts, with pipes and a session of its own.

`subprocess.Popen` with descriptors of our own. It vforks unless it is given `preexec_fn`,
`user=` or `group=`; with those it forks, which costs 3 to 10 times as much and grows with our
memory, so they are never used. Popen stands still until the child has called exec (0.2 ms),
which is less than moving it to a thread would cost, so `start` runs on the event loop.

The working directory is a descriptor that was opened beneath the root: the child changes to
/proc/self/fd/N before descriptors are closed, so no path is looked up a second time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import posixpath
import stat
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass

from sidecar.errors import CallError, Code, Invalid, from_os_error, show_path
from sidecar.hands.beneath import through_proc
from sidecar.hands.environment import DEFAULT_PATH
from sidecar.hands.interface import Program
from sidecar.hands.names import as_bytes
from sidecar.hands.sessions import read_member

PIPE_SIZE = 1 << 20  # bytes; lets core read late and in large pieces without slowing the program
_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # nanoseconds
_SHEBANG = 256  # bytes of a first line that the kernel looks at (execve(2))
_NO_SHELLS = (b"nologin", b"false")


@dataclass(frozen=True, slots=True)
class Command:
    """A `Program` as the kernel takes it."""

    argv: tuple[bytes, ...]
    environment: dict[bytes, bytes]
    stdin: bool


@dataclass(frozen=True, slots=True)
class Child:
    """A child nobody has waited for yet, and our ends of its pipes (non-blocking)."""

    pid: int
    start_time: int
    stdin: int | None
    stdout: int
    stderr: int


def command_of(program: Program, base: dict[bytes, bytes]) -> Command:
    """Check `program` and put it on top of the base environment; raises `Invalid`."""
    environment = _environment(program, base)
    if (program.argv is None) == (program.shell is None):
        raise Invalid("a program has either argv or shell")
    if program.shell is not None:
        argv = [_shell(environment), b"-c", as_bytes(program.shell, "shell")]
    else:
        argv = [as_bytes(word, "argument") for word in program.argv or ()]
    if not argv or not argv[0]:
        raise Invalid("argv needs at least the name of a program")
    return Command(tuple(argv), environment, program.stdin)


def start(command: Command, directory: int) -> Child:
    """Start it in `directory` (a descriptor). Raises `OSError`; then nothing was started."""
    pipes: list[tuple[int, int]] = []  # (read end, write end): stdout, stderr, perhaps stdin
    try:
        for _ in range(3 if command.stdin else 2):
            pipes.append(os.pipe2(os.O_CLOEXEC))
        before = _ticks()
        child = subprocess.Popen(
            command.argv,
            stdin=pipes[2][0] if command.stdin else subprocess.DEVNULL,
            stdout=pipes[0][1],
            stderr=pipes[1][1],
            cwd=through_proc(directory),
            env=command.environment,
            start_new_session=True,
            close_fds=True,
        )
    except BaseException:
        for pipe in pipes:
            _close(*pipe)
        raise
    after = _ticks()
    # The pid is ours to wait for. Left to itself, Popen would do so when it is collected,
    # by which time another process may have the number.
    child.returncode = 0
    start_time = after if before == after else _start_time(child.pid, after)
    (stdout, to_stdout), (stderr, to_stderr), *rest = pipes
    _close(to_stdout, to_stderr)
    _tune(stdout)
    _tune(stderr)
    if not rest:
        return Child(child.pid, start_time, None, stdout, stderr)
    from_stdin, stdin = rest[0]
    _close(from_stdin)
    os.set_blocking(stdin, False)
    return Child(child.pid, start_time, stdin, stdout, stderr)


def explain(error: OSError, command: Command, directory: int) -> CallError:
    """Why `start` failed, in words a caller can act upon. Looks at files, so it blocks."""
    name = command.argv[0]
    if error.filename == through_proc(directory):
        return from_os_error(error, "working directory")
    if error.errno == errno.ENOEXEC:
        return CallError(
            Code.PERMISSION_DENIED,
            f"{show_path(name)} is neither a program of this machine nor begins with #!",
            errno="ENOEXEC",
            path=name,
        )
    if error.errno not in (errno.ENOENT, errno.EACCES, errno.ENOTDIR):
        return from_os_error(error, name)
    for candidate in _candidates(command):
        with suppress(OSError):
            mode = os.stat(candidate, dir_fd=directory).st_mode
            if stat.S_ISDIR(mode):
                return from_os_error(_os_error(errno.EISDIR), name)
            if stat.S_ISREG(mode):
                return _explain_file(error, name, candidate, directory)
    return from_os_error(error, name)


def _explain_file(error: OSError, name: bytes, path: bytes, directory: int) -> CallError:
    if error.errno != errno.ENOENT:
        return from_os_error(error, name)
    interpreter = _interpreter(path, directory)
    what = "its loader" if interpreter is None else f"its interpreter {show_path(interpreter)}"
    return CallError(
        Code.NOT_FOUND,
        f"{show_path(name)} is there, but {what} is not",
        errno="ENOENT",
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


def _candidates(command: Command) -> list[bytes]:
    name = command.argv[0]
    if b"/" in name:
        return [name]
    path = command.environment.get(b"PATH", DEFAULT_PATH)
    return [posixpath.join(folder, name) for folder in path.split(b":")]


def _environment(program: Program, base: dict[bytes, bytes]) -> dict[bytes, bytes]:
    environment = dict(base)
    for name in program.unset:
        environment.pop(as_bytes(name, "variable"), None)
    for name, value in (program.env or {}).items():
        encoded = as_bytes(name, "variable")
        if not encoded or b"=" in encoded:
            raise Invalid(f"variable {name!r}: a name is not empty and holds no '='")
        environment[encoded] = as_bytes(value, f"value of {name}")
    return environment


def _shell(environment: dict[bytes, bytes]) -> bytes:
    """$SHELL, unless it is one that only refuses a login."""
    shell = environment.get(b"SHELL", b"")
    is_usable = shell.startswith(b"/") and posixpath.basename(shell) not in _NO_SHELLS
    return shell if is_usable else b"/bin/sh"


def _ticks() -> int:
    """The clock that dates processes, in the unit of proc(5) field 22.

    Read just before and after a start it usually says the same, 10 ms being a long time, and is
    then what the kernel wrote down. Reading /proc/pid/stat instead may keep us until the new
    program was loaded (exec_update_lock in Linux 6.18: 0.5 ms for `true`).
    """
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // _TICK


def _start_time(pid: int, otherwise: int) -> int:
    member = read_member(pid)
    return member.start_time if member else otherwise


def _tune(reader: int) -> None:
    """After the start, so that it costs no time while the program is being loaded."""
    os.set_blocking(reader, False)
    with suppress(OSError):  # EPERM: the user's pages for pipes are used up (pipe(7))
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE_SIZE)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
