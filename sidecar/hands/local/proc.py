"""What the kernel says of processes, in /proc (proc(5)).

A look at all of them takes some 10 µs each, so it is made in a thread, and only when needed.
A process is named by its pid *and* start time: a pid alone is given out again after its end.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

_DEAD = (b"Z", b"X")
_PF_EXITING = 0x4  # linux/sched.h
_STAT_SIZE = 1024  # bytes; the longest line has about 600
_LOOKS = 10  # at an environment that seems to be empty, with pauses between them:
_EXEC_TIME = 0.0003  # seconds
_PIECE = 65536  # bytes per read
_LONGEST = 4 << 20  # bytes of an environment that are looked at; execve(2) takes less


@dataclass(frozen=True, slots=True)
class Process:
    """A line of /proc/pid/stat; `start_time` is in clock ticks since boot."""

    pid: int
    name: bytes
    state: bytes
    parent: int
    group: int
    session: int
    flags: int
    threads: int
    start_time: int

    @property
    def id(self) -> tuple[int, int]:
        """No other process ever has the same."""
        return self.pid, self.start_time

    @property
    def is_alive(self) -> bool:
        """A first thread that has ended looks like a zombie while others run on."""
        return self.state not in _DEAD or self.threads > 1

    @property
    def is_ending(self) -> bool:
        """It has no memory any more, so no environment to be seen, but still has its children."""
        return self.is_alive and bool(self.flags & _PF_EXITING) and self.threads == 1


def read_process(pid: int) -> Process | None:
    """What the kernel says of `pid` now; None if there is no such process. Never waits long."""
    line = _read(f"/proc/{pid}/stat", _STAT_SIZE)
    if not line:
        return None
    # The name in parentheses may hold anything, also spaces and parentheses.
    begin, end = line.index(b"(") + 1, line.rindex(b")")
    state, parent, group, session, *rest = line[end + 1 :].split()
    return Process(
        pid=pid,
        name=line[begin:end],
        state=state,
        parent=int(parent),
        group=int(group),
        session=int(session),
        flags=int(rest[2]),
        threads=int(rest[13]),
        start_time=int(rest[15]),
    )


def read_all() -> dict[int, Process]:
    """Every process that we may see, zombies too, by pid."""
    return read_these(int(name) for name in os.listdir("/proc") if name.isdigit())


def read_these(pids: Iterable[int]) -> dict[int, Process]:
    """Those of `pids` that there are."""
    found = (read_process(pid) for pid in pids)
    return {process.pid: process for process in found if process}


def read_children() -> list[int] | None:
    """The pids of what this process started or adopted, zombies too; None without knowledge.

    What another thread than the first one started is missing. What was adopted is not: the
    kernel gives it to the first thread that lives, which in Python is the main thread.
    """
    content = _read(f"/proc/self/task/{os.getpid()}/children")
    return None if content is None else [int(word) for word in content.split()]


def is_there(process: Process) -> bool:
    """It lives and is not about to end, so what it does not show is not for us."""
    now = read_process(process.pid)
    return now is not None and now.id == process.id and now.is_alive and not now.is_ending


def read_variable(pid: int, name: bytes, *, looks: int = _LOOKS) -> bytes | None:
    """A variable of the environment that `pid` was started with, if it has not overwritten it.

    None as well for a zombie, which has no memory, and for what we may not trace (ptrace(2)).
    While a process calls exec it seems to have none for some 0.1 ms, so nothing is looked at
    again. With one look this never waits.
    """
    content = _read(f"/proc/{pid}/environ")
    while content == b"" and looks > 1:
        time.sleep(_EXEC_TIME)
        content = _read(f"/proc/{pid}/environ")
        looks -= 1
    if not content:
        return None
    prefix = name + b"="
    for entry in content.split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :]
    return None


def send(process: Process, *numbers: int) -> bool:
    """Send signals to this very process; False if it is gone or not ours to signal."""
    try:
        descriptor = _open_process(process.pid)
    except OSError:
        return False
    try:
        # The pid may have changed hands before it was opened; the descriptor cannot.
        now = read_process(process.pid)
        if now is None or now.start_time != process.start_time:
            return False
        for number in numbers:
            if descriptor is None:
                os.kill(process.pid, number)
            else:
                signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return True


def group_exists(group: int) -> bool:
    """Whether a process group has members, be they zombies."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def has_pidfds() -> bool:
    """Whether processes can be watched and signalled by descriptor (pidfd_open(2))."""
    descriptor = _open_process(os.getpid())
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None


def _open_process(pid: int) -> int | None:
    """A pidfd, or None where the kernel or its filter has none (Linux before 5.3)."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return None
        raise


def _read(path: str, size: int | None = None) -> bytes | None:
    """One read of `size` bytes, or all; None if there is no such file or it is not for us."""
    content = b""
    with suppress(OSError):
        # procfs makes the content up as we read, so it never waits for anybody.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if size is not None:
                return os.read(descriptor, size)
            while piece := os.read(descriptor, _PIECE):
                content += piece
                if len(content) > _LONGEST:
                    break
            return content
        finally:
            os.close(descriptor)
    return None
