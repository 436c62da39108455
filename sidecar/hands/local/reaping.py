"""How the end of a program is noticed.

It is reaped by pid as soon as its pidfd says that it ended (a thread waits for it where the
kernel has no pidfds), never with waitpid(-1), which would steal the children of others. An exit
is reported only if wait4(2) returned it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from resource import struct_rusage

from sidecar.hands.interface import Exit
from sidecar.hands.local.proc import group_exists
from sidecar.hands.local.record import Record


class Reaper:
    """Watches programs; `on_end` is called when one was reaped, before its waiters go on."""

    def __init__(self, on_end: Callable[[Record], None]) -> None:
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()

    def watch(self, record: Record) -> None:
        try:
            record.pidfd = os.pidfd_open(record.pid)
        except OSError:  # no such call here, or no descriptor left
            threading.Thread(target=self._wait_in_thread, args=[record], daemon=True).start()
        else:
            self._loop.add_reader(record.pidfd, self._reap, record)

    def release(self, record: Record) -> None:
        """Watch no more. Harmless when repeated."""
        if record.pidfd is not None:
            self._loop.remove_reader(record.pidfd)
        record.close()

    def _wait_in_thread(self, record: Record) -> None:
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, record.pid, os.WEXITED | os.WNOWAIT)
        with suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._reap, record)

    def _reap(self, record: Record) -> None:
        if record.was_reaped:
            return
        try:
            pid, status, usage = os.wait4(record.pid, os.WNOHANG)
        except ChildProcessError:
            pass  # reaped by somebody else: `exit` stays None
        else:
            if pid == 0:
                return
            record.exit = _exit_of(status, usage)
        # The id may be given out again from here on, unless somebody is left to use it.
        record.owns_session = group_exists(record.pid)
        self.release(record)
        self._on_end(record)
        record.ended.set()


def _exit_of(status: int, usage: struct_rusage) -> Exit:
    code = os.waitstatus_to_exitcode(status)
    return Exit(
        status=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        user_cpu=usage.ru_utime,
        system_cpu=usage.ru_stime,
        max_rss=usage.ru_maxrss * 1024,
    )
