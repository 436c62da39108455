"""One program starts, with pipes or a terminal, and a session of its own.

posix_spawn(3) stands still until the child has called exec (0.2 ms), which is less than moving
it to a thread would cost, so `start` runs on the event loop.

The working directory is a descriptor that was opened beneath the root, so no path is looked up a
second time.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass

from sidecar.hands.local.command import Command
from sidecar.hands.local.ends import Ends
from sidecar.hands.local.posixspawn import posix_spawn
from sidecar.hands.local.proc import read_process

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # nanoseconds
_MISSING = (errno.ENOENT, errno.ENOTDIR)


@dataclass(frozen=True, slots=True)
class Child:
    """A child nobody has waited for yet, and our ends of its files."""

    pid: int
    start_time: int
    ends: Ends


def start(command: Command, directory: int) -> Child:
    """Start it in `directory` (a descriptor). Nothing was started if it raises: `OSError`, or
    `CallError` where no terminal is to be had."""
    ends = Ends()
    try:
        if command.size is None:
            ends.open_pipes(with_stdin=command.stdin)
        else:
            ends.open_terminal(*command.size, plain=command.plain)
        if command.control:
            ends.open_control()
        before = _ticks()
        pid = _spawn(command, directory, ends)
    except BaseException:
        ends.close()
        raise
    after = _ticks()
    start_time = after if before == after else _start_time(pid, after)
    ends.close_theirs()
    ends.tune()
    return Child(pid, start_time, ends)


def _spawn(command: Command, directory: int, ends: Ends) -> int:
    """Try each place where the program may be, as execvp(3) does, but in the child's own PATH.

    A try that fails costs as much as a start, so what is not there is not tried. To look for it
    blocks no longer than the exec that would find it.
    """
    refusal = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for path in command.candidates():
        try:
            os.stat(path, dir_fd=directory)
            return posix_spawn(
                path, command.argv, command.environment, directory=directory, files=ends.files
            )
        except OSError as error:
            if error.errno not in (*_MISSING, errno.EACCES):
                raise
            if refusal.errno in _MISSING:
                refusal = error
    raise refusal


def _ticks() -> int:
    """The clock that dates processes, in the unit of proc(5) field 22.

    Read just before and after a start it usually says the same, 10 ms being a long time, and is
    then what the kernel wrote down. Reading /proc/pid/stat instead may keep us until the new
    program was loaded (exec_update_lock in Linux 6.18: 0.5 ms for `true`).
    """
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // _TICK


def _start_time(pid: int, otherwise: int) -> int:
    process = read_process(pid)
    return process.start_time if process else otherwise
