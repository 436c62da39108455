"""Who lives in a program's session, and how to reach them without hitting a stranger.

Each program leads a session of its own (setsid(2)), so its session id is its pid. The kernel
gives a pid out again only when nobody uses it as a process, group or session id any more:
while one member lives, the id is this session's. Source: proc(5), /proc/pid/stat.
"""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_DEAD = (b"Z", b"X")
_STAT_SIZE = 1024  # bytes; the longest line has about 600


@dataclass(frozen=True, slots=True)
class Member:
    """A line of /proc/pid/stat; `start_time` is in clock ticks since boot."""

    pid: int
    state: bytes
    group: int
    session: int
    start_time: int


def read_member(pid: int) -> Member | None:
    """What the kernel says of `pid` now; None if there is no such process."""
    try:
        # Never waits: procfs makes the line up as we read.
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        line = os.read(descriptor, _STAT_SIZE)
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)
    # The name in parentheses may hold anything, also spaces and parentheses.
    fields = line[line.rfind(b")") + 1 :].split()
    return Member(pid, fields[0], int(fields[2]), int(fields[3]), int(fields[19]))


def members(session: int, *, leader_reaped: bool) -> list[Member]:
    """The living processes of a session. Reads all of /proc: some 20 µs a process.

    If its leader was reaped and a process has that pid again, the id was free in between and
    the session of that name is a stranger's.
    """
    if leader_reaped and read_member(session) is not None:
        return []
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    found = (read_member(pid) for pid in pids)
    return [m for m in found if m and m.session == session and m.state not in _DEAD]


def signal_members(session: int, numbers: tuple[int, ...], *, leader_reaped: bool) -> None:
    """Send signals to those members of a session that killpg(2) on the leader does not reach.

    While the leader was not reaped, that are the jobs of a shell with job control, each of them
    a group of its own; afterwards, all that are left.
    """
    for member in members(session, leader_reaped=leader_reaped):
        if leader_reaped or member.group != session:
            with suppress(OSError):
                _signal_member(member, numbers)


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
    process = _open_process(os.getpid())
    if process is not None:
        os.close(process)
    return process is not None


def _signal_member(member: Member, numbers: tuple[int, ...]) -> None:
    process = _open_process(member.pid)
    try:
        # The pid may have changed hands before it was opened; the descriptor cannot.
        if not _is_same(member):
            return
        for number in numbers:
            if process is None:
                os.kill(member.pid, number)
            else:
                signal.pidfd_send_signal(process, number)
    finally:
        if process is not None:
            os.close(process)


def _open_process(pid: int) -> int | None:
    """A pidfd, or None where the kernel or its filter has none (Linux before 5.3)."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return None
        raise


def _is_same(member: Member) -> bool:
    now = read_member(member.pid)
    return now is not None and now.start_time == member.start_time
