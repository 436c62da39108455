"""What programs leave behind becomes our child, and is reaped when it ends.

Hands makes its process a subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)): what loses its parent
becomes a child of ours instead of PID 1's, so that it can be found, and stays as a zombie until
we wait for it. PID 1 is one without asking. `waitpid(-1)` would also take the exit statuses that
others wait for, so: on SIGCHLD see who has ended without taking it (WNOWAIT, waitid(2)), and take
it only if it is an orphan.

An orphan is told from a child that somebody in this process started (`subprocess`, asyncio):

- it is in a session that is neither ours nor its own. A child of ours was born in our session
  and can only have left it for its own;
- or it was seen in the tree of a program;
- or this process has no children but programs and orphans: its owner says so (`sole_parent`), or
  it is PID 1. Nothing else in the process may then start children of its own.

SIGCHLD is heard on the main thread only. Elsewhere orphans are reaped when a program ends.
All that is here runs on the event loop, and programs are started and reaped there as well, so
nothing is reaped between its start and its being known as a program.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Container
from contextlib import suppress

from sidecar.hands.proc import Process, read_children, read_process
from sidecar.hands.syscalls import is_subreaper, set_subreaper

_BATCH = 64  # zombies that are reaped before others get their turn on the event loop

_homes: list[Orphans] = []  # being a subreaper is a matter of the process, with all its hands


class Orphans:
    """The orphans of one hands. `is_program` knows the pids of programs that were not reaped."""

    def __init__(
        self,
        is_program: Callable[[int], bool],
        was_seen: Callable[[Process], bool],
        *,
        sole_parent: bool,
    ) -> None:
        self.is_program = is_program
        self.was_seen = was_seen
        self.is_sole_parent = sole_parent or os.getpid() == 1
        self._loop = asyncio.get_running_loop()
        self.adopts = _become_reaper()
        _homes.append(self)
        with suppress(ValueError, RuntimeError):  # not in the main thread
            self._loop.add_signal_handler(signal.SIGCHLD, self.reap)
        self.reap()

    def close(self) -> None:
        _homes.remove(self)
        others = [home for home in _homes if home._loop is self._loop]
        with suppress(ValueError, RuntimeError):
            if others:
                self._loop.add_signal_handler(signal.SIGCHLD, others[0].reap)
            else:
                self._loop.remove_signal_handler(signal.SIGCHLD)
        if not _homes and self.adopts and os.getpid() != 1:
            set_subreaper(False)

    def may_have_any(self, programs: Container[int]) -> bool:
        """Whether there may be a living orphan; False is certain.

        What a reaped program has left descends from an orphan of ours, as each process has a
        parent. So this is the cheap answer to whether anything was left: some 10 µs, in place
        of a look at all processes.
        """
        children = read_children() if self.adopts else None
        return children is None or any(pid not in programs for pid in children)

    def reap(self) -> None:
        """Take orphans that have ended. Never waits; costs 1 µs if there are none."""
        for _ in range(_BATCH):
            pid = _first_ended()
            if pid is None or _is_program(pid):
                return  # whoever reaps a program calls us again
            if not _is_orphan(pid):
                return _reap_behind()
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._loop.call_soon(self.reap)


def _become_reaper() -> bool:
    return os.getpid() == 1 or is_subreaper() or set_subreaper(True)


def _first_ended() -> int | None:
    """The first zombie among our children, which stays one."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found else None


def _reap_behind() -> None:
    """Orphans that the kernel names after a zombie that somebody else has to take."""
    for pid in read_children() or ():
        if _is_program(pid):
            continue
        with suppress(ChildProcessError):
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None and _is_orphan(pid):
                os.waitpid(pid, os.WNOHANG)


def _is_program(pid: int) -> bool:
    return any(home.is_program(pid) for home in _homes)


def _is_orphan(pid: int) -> bool:
    """Of a child that is no program."""
    if any(home.is_sole_parent for home in _homes):
        return True
    process = read_process(pid)
    if process is None:
        return False
    if process.session not in (os.getsid(0), pid):
        return True
    return any(home.was_seen(process) for home in _homes)
