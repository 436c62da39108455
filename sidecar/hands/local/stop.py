"""How a tool is told to stop, and how it reads and writes its pipe without missing that.

A tool runs in a thread, which nobody can end from outside. So whatever it waits for, it waits
for two things at once (poll(2)): that, and an eventfd that is set when it shall stop. Nobody
reading its pipe any more is the same wish.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Sequence


class Stopped(Exception):
    """A tool was told to stop, or nobody reads what it writes."""


class Stop:
    """One tool's; asked by its thread, set by anybody."""

    def __init__(self) -> None:
        self.requested = False
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()  # held for a few instructions only

    def fileno(self) -> int:
        """Readable from the moment when it shall stop; for poll(2). -1 after `close`."""
        return self._event

    def request(self) -> None:
        """Stop. From any thread; harmless when repeated, and after the end."""
        with self._lock:
            self.requested = True
            if self._event >= 0:
                os.eventfd_write(self._event, 1)

    def close(self) -> None:
        """The thread has ended."""
        with self._lock:
            if self._event >= 0:
                os.close(self._event)
                self._event = -1

    def check(self) -> None:
        """Raise `Stopped` if it shall stop. Costs nothing: to be asked once per entry."""
        if self.requested:
            raise Stopped

    def wait(
        self,
        readable: Sequence[int] = (),
        writable: Sequence[int] = (),
        *,
        timeout: float | None = None,
    ) -> set[int]:
        """Wait for any of these descriptors; which ones are ready, none after `timeout` seconds.
        One that has failed or was hung up counts as ready: who uses it will see."""
        poll = select.poll()
        poll.register(self._event, select.POLLIN)
        for descriptor in readable:
            poll.register(descriptor, select.POLLIN)
        for descriptor in writable:
            poll.register(descriptor, select.POLLOUT)
        found = poll.poll(None if timeout is None else max(0, round(timeout * 1000)))
        self.check()
        return {descriptor for descriptor, _ in found}

    def read(self, fd: int, size: int) -> bytes:
        """At most `size` bytes of a non-blocking descriptor, at least one; b"" at its end."""
        while True:
            self.check()
            try:
                return os.read(fd, size)
            except BlockingIOError:
                self.wait([fd])

    def write(self, fd: int, data: bytes | bytearray | memoryview) -> None:
        """All of `data` to a non-blocking descriptor, waiting as long as nobody reads it."""
        view = memoryview(data).cast("B")
        while view:
            self.check()
            try:
                view = view[os.write(fd, view) :]
            except BlockingIOError:
                self.wait(writable=[fd])
            except BrokenPipeError:
                raise Stopped from None
