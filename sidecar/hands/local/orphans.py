"""What programs leave behind becomes our child, and is reaped when it ends.

A process that is hands, and nothing else that starts children, adopts: it becomes a subreaper
(PR_SET_CHILD_SUBREAPER, prctl(2); PID 1 is one without asking), so that what loses its parent
becomes a child of ours instead of PID 1's. There it is found again, and there it stays as a
zombie until we wait for it.

Each child that is no program is an orphan then, and is reaped. `waitpid(-1)` would also take the
exit statuses of programs, so: on SIGCHLD see who has ended without taking it (WNOWAIT, waitid(2)),
and take it only if it is no program. This is why to adopt has to be asked for: children that
somebody else in this process started (`subprocess`, asyncio) look just like orphans, and their
statuses would be lost. Without it, orphans go to an ancestor of ours; `tree` looks for them there.

SIGCHLD is heard on the main thread only. Elsewhere orphans are reaped when a program ends.
What reaps runs on the event loop, and programs are started and reaped there as well, so nothing is
reaped between its start and its being known as a program. A thread that starts a child of its own
(`child`) keeps orphans from being reaped as long as it takes until the child is known.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress

from sidecar.hands.local.proc import read_children
from sidecar.hands.local.syscalls import is_subreaper, set_subreaper

_BATCH = 64  # zombies that are reaped before others get their turn on the event loop
_AGAIN = 0.002  # seconds until the next try, when a thread is starting a child

_spared: set[int] = set()  # children of ours that somebody else waits for
_turn = threading.Lock()  # of whoever reaps, or starts or reaps a child that is to be spared
_homes: list[Orphans] = []  # a process may be several hands, and may adopt for one of them


class Orphans:
    """The orphans of one hands. `programs` are the pids of programs that were not reaped."""

    def __init__(self, programs: Container[int], *, adopt: bool) -> None:
        self._programs = programs
        self._loop = asyncio.get_running_loop()
        self._was_subreaper = is_subreaper()
        self.adopts = adopt and (os.getpid() == 1 or set_subreaper(True))
        self._is_listening = self.adopts and self._listen()
        _homes.append(self)
        self.reap()  # those that ended before

    def close(self) -> None:
        """Adopt no more, and leave no zombie that has ended by now."""
        if self.adopts and _turn.acquire(blocking=False):
            while _reap_some():
                pass
            _turn.release()
        _homes.remove(self)
        if self._is_listening:
            self._loop.remove_signal_handler(signal.SIGCHLD)
        if self.adopts and not self._was_subreaper:
            set_subreaper(False)

    def may_have_any(self) -> bool:
        """Whether there may be a living orphan; False is certain.

        What a reaped program has left descends from an orphan of ours, as each process has a
        parent. So this is the cheap answer to whether anything was left: some 10 µs, in place
        of a look at all processes.
        """
        children = read_children() if self.adopts else None
        return children is None or not all(map(_is_program, children))

    def pids(self) -> list[int]:
        """Our children that are no programs, zombies too; none if we do not adopt."""
        children = read_children() if self.adopts else None
        return [pid for pid in children or () if not _is_program(pid)]

    def reap(self) -> None:
        """Take orphans that have ended. Never waits; costs 1 µs if there are none."""
        if not any(home.adopts for home in _homes):
            return
        if not _turn.acquire(blocking=False):
            self._loop.call_later(_AGAIN, self.reap)
            return
        try:
            if _reap_some():
                self._loop.call_soon(self.reap)
        finally:
            _turn.release()

    def look_again(self) -> None:
        """From any thread: there may be orphans to take."""
        with suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self.reap)

    def _listen(self) -> bool:
        try:
            self._loop.add_signal_handler(signal.SIGCHLD, self.reap)
        except (ValueError, RuntimeError):  # not in the main thread
            return False
        # What forks and exits all the time fills the loop's pipe for signals. No harm is done, as
        # one SIGCHLD stands for any number; without this each one lost is a line on stderr.
        signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
        return True


def _reap_some() -> bool:
    """Whether there may be more."""
    for _ in range(_BATCH):
        pid = _first_ended()
        if pid is None or _is_program(pid):
            return False  # whoever reaps the program calls us again
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return True


def _first_ended() -> int | None:
    """The first zombie among our children, which stays one."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found else None


def spare(pid: int) -> None:
    """This child is never reaped here. To be said before the event loop goes on, or while
    `undisturbed`."""
    _spared.add(pid)


def unspare(pid: int) -> None:
    """It was reaped, so its number may be another's from here on. To be said while
    `undisturbed`, which was so when it was reaped; then `look_again`."""
    _spared.discard(pid)


@contextmanager
def undisturbed() -> Iterator[None]:
    """For a thread: no orphan is reaped in the block, which should be short."""
    with _turn:
        yield


def look_again() -> None:
    """For a thread that has reaped a child: a zombie that is spared hides those behind it."""
    for home in list(_homes):
        home.look_again()


def _is_program(pid: int) -> bool:
    return pid in _spared or any(pid in home._programs for home in _homes)
