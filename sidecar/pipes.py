"""From a program's pipe into its spool, in the event loop.

One registered reader callback per pipe and one read per wake-up: that is half the CPU of a
stream reader with its own buffer. After a small read the pipe is left alone for a millisecond,
so that 400,000 short lines become hundreds of reads instead of tens of thousands; the first
byte after a silence is read at once. A spool without room is a pipe that is not read, and so a
program that waits.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import termios

import anyio

from sidecar.spool import Spool

READ_SIZE = 256 * 1024
SMALL_READ = 32 * 1024  # a read below this had nothing left behind it: wait for more
GATHER = 0.001  # seconds


class PipeReader:
    """Owns the descriptor. `finished` is set at its end; `stop` ends it early."""

    def __init__(self, fd: int, spool: Spool) -> None:
        self.finished = anyio.Event()
        self._fd = fd
        self._spool = spool
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_read = False
        self._is_discarding = False
        self._needs_room = anyio.Event()
        self._quiet_since: float = self._loop.time()
        self._listen()

    @property
    def quiet(self) -> float:
        """Seconds since something was last read."""
        return self._loop.time() - self._quiet_since

    async def run(self) -> None:
        """Waits for room whenever the spool has none. Until the end; cancelling stops."""
        try:
            while not self.finished.is_set() and not self._is_discarding:
                await self._needs_room.wait()
                self._needs_room = anyio.Event()
                if not self.finished.is_set() and not self._is_discarding:
                    await self._spool.wait_room()
                    self._listen()
        finally:
            if not self._is_discarding:
                self.stop()

    def stop(self) -> None:
        """Read no more and close the pipe. A second call is harmless."""
        if self.finished.is_set():
            return
        self._loop.remove_reader(self._fd)
        self._is_read = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        os.close(self._fd)
        self.finished.set()
        self._needs_room.set()

    def flush(self) -> None:
        """Read now what is there: the program has ended, nothing is worth gathering for."""
        if self._timer is not None:
            self._timer.cancel()
            self._listen()
        while not self.finished.is_set() and self._is_read and self._on_readable():
            pass

    @property
    def is_empty(self) -> bool:
        """Whether the pipe holds nothing that was not read."""
        if self.finished.is_set():
            return True
        waiting = bytearray(4)
        fcntl.ioctl(self._fd, termios.FIONREAD, waiting)
        return int.from_bytes(waiting, sys.byteorder) == 0

    def discard(self) -> None:
        """Go on reading, so that whoever still writes does not die of SIGPIPE, and keep nothing."""
        if self.finished.is_set() or self._is_discarding:
            return
        self._ignore()
        if self._timer is not None:
            self._timer.cancel()
        self._is_discarding = True
        self._loop.add_reader(self._fd, self._throw_away)
        self._needs_room.set()

    def _listen(self) -> None:
        self._timer = None
        if not (self._is_read or self._is_discarding or self.finished.is_set()):
            self._is_read = True
            self._loop.add_reader(self._fd, self._on_readable)

    def _ignore(self) -> None:
        if self._is_read:
            self._is_read = False
            self._loop.remove_reader(self._fd)

    def _on_readable(self) -> bool:
        """Whether there may be more at once."""
        room = self._spool.room
        if room == 0:
            self._ignore()
            self._needs_room.set()
            return False
        data = self._read(min(room, READ_SIZE))
        if not data:
            if data is not None:
                self.stop()
            return False
        self._quiet_since = self._loop.time()
        self._spool.write(data)
        if len(data) < SMALL_READ:
            self._ignore()
            self._timer = self._loop.call_later(GATHER, self._listen)
            return False
        return True

    def _throw_away(self) -> None:
        if self._read(READ_SIZE) == b"":
            self.stop()

    def _read(self, size: int) -> bytes | None:
        try:
            return os.read(self._fd, size)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:  # EIO: the other end of a terminal is gone
            return b""


class PipeWriter:
    """Feeds a program's standard input; closing it is the end of input."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    async def write(self, data: bytes) -> bool:
        """Write all of `data`, waiting as long as the program does not read. False once the
        program has closed its end: nobody wants the rest."""
        view = memoryview(data)
        while view and self._fd is not None:
            try:
                view = view[os.write(self._fd, view) :]
            except (BlockingIOError, InterruptedError):
                await anyio.wait_writable(self._fd)
            except BrokenPipeError:
                self.close()
        return self._fd is not None

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
