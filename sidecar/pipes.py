"""From a program's pipe into its spool, in the event loop.

One registered reader callback per pipe and one read per wake-up: that is half the CPU of a
stream reader with its own buffer. After a small read the pipe is left alone for a millisecond,
so that 400,000 short lines become hundreds of reads instead of tens of thousands; the first
byte after a silence is read at once. A spool without room is a pipe that is not read, and so a
program that waits.

Before each read the spool is told what may come, so that bytes which are lost because we are
killed are known to be missing. What is not read stays in the pipe, for whoever comes after us.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import termios
from collections.abc import Callable

import anyio

from sidecar.bell import Bell
from sidecar.hands.pipeio import DIRECT, PipeIO
from sidecar.spool import Spool

READ_SIZE = 256 * 1024
SMALL_READ = 32 * 1024  # a read below this had nothing left behind it: wait for more
SMALL_TERMINAL_READ = 4095  # the same of a terminal, which gives no more at once (n_tty.c)
GATHER = 0.001  # seconds


class PipeReader:
    """Owns the descriptor, and ends the spool with it; `stop` ends it early.

    The descriptor may come later (`connect`), or never (`lose`): the program began before us.

    A task is needed only while the spool is full: `on_full` asks for one to run `wait_room`.
    `on_data` is called when something went into the spool. Both must not raise.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        on_data: Callable[[], None],
        on_full: Callable[[], None],
        small: int = SMALL_READ,
        io: PipeIO = DIRECT,
    ) -> None:
        self.is_finished = False  # the pipe has ended, and is closed
        self.taken = 0  # bytes that went into the spool
        self.progress = Bell()  # rung when `taken` grows, and when reading ends
        self._fd: int | None = None
        self._spool = spool
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_read = False
        self._is_discarding = False
        self._small = small
        self._io = io
        self._on_data = on_data
        self._on_full = on_full

    @property
    def is_over(self) -> bool:
        """Whether nothing more will go into the spool."""
        return self._is_discarding or self.is_finished

    def connect(self, fd: int) -> None:
        """The pipe is here: read it from here on."""
        if self.is_finished:
            os.close(fd)
        elif self._is_discarding:
            self._fd = fd
            self._loop.add_reader(fd, self._throw_away)
        else:
            self._fd = fd
            self.listen()

    def lose(self) -> None:
        """There will be no pipe. Harmless when there is one."""
        if self._fd is None:
            self.stop()

    def listen(self) -> None:
        """Begin to read, or go on. Harmless when repeated."""
        self._timer = None
        if self._fd is not None and not (self._is_read or self.is_over):
            self._is_read = True
            self._loop.add_reader(self._fd, self._on_readable)

    async def wait_finished(self) -> None:
        """Until the end of the pipe."""
        while not self.is_finished:
            await self.progress.wait()

    async def wait_room(self) -> None:
        """Read on once the spool has room."""
        try:
            await self._spool.wait_room()
        except anyio.ClosedResourceError:
            self.discard()  # nobody wants it any more
        else:
            self.listen()

    def stop(self) -> None:
        """Read no more and close the pipe. A second call is harmless."""
        if self.is_finished:
            return
        if not self._is_discarding:
            self._spool.end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None
        self._is_read = False
        self.is_finished = True
        self.progress.ring()

    def flush(self) -> None:
        """Read now what the pipe holds, and no more: the program has ended, so nothing is worth
        gathering for, but a child of it may go on printing for ever."""
        if self._timer is not None:
            self._timer.cancel()
            self.listen()
        owed = self.waiting
        while self._is_read and owed >= 0:
            size = self._take()
            if not size:
                return
            owed -= size

    @property
    def waiting(self) -> int:
        """Bytes in the pipe that were not read."""
        if self._fd is None:
            return 0
        waiting = bytearray(4)
        fcntl.ioctl(self._fd, termios.FIONREAD, waiting)
        return int.from_bytes(waiting, sys.byteorder)

    def discard(self) -> None:
        """Go on reading, so that whoever still writes does not die of SIGPIPE, and keep nothing."""
        if self.is_over:
            return
        self._ignore()
        if self._timer is not None:
            self._timer.cancel()
        self._is_discarding = True
        self._spool.end()
        if self._fd is not None:
            self._loop.add_reader(self._fd, self._throw_away)
        self.progress.ring()

    def _ignore(self) -> None:
        if self._is_read and self._fd is not None:
            self._is_read = False
            self._loop.remove_reader(self._fd)

    def _on_readable(self) -> None:
        if 0 < self._take() < self._small:
            self._ignore()
            self._timer = self._loop.call_later(GATHER, self.listen)

    def _take(self) -> int:
        """Read once, as far as there is room; how many bytes came."""
        room = self._spool.room
        if room == 0:
            self._ignore()
            self._on_full()
            return 0
        data = self._read_marked(min(room, READ_SIZE))
        if not data:
            if data is not None:
                self.stop()
            return 0
        self._spool.write(data)
        self.taken += len(data)
        self._on_data()
        self.progress.ring()
        return len(data)

    def _read_marked(self, size: int) -> bytes | None:
        """Read, with a mark in the spool while the bytes are in neither place.

        The mark needs a file, which a program that prints nothing shall not cost: one that is
        readable and has no bytes has come to its end, and will have none.
        """
        if self._spool.is_untouched and not self.waiting:
            return self._read(size)
        self._spool.expect(size)
        data = self._read(size)
        if not data:
            self._spool.expect(0)
        return data

    def _throw_away(self) -> None:
        if self._read(READ_SIZE) == b"":
            self.stop()

    def _read(self, size: int) -> bytes | None:
        assert self._fd is not None, "what is read is connected"
        try:
            return self._io.read(self._fd, size)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:  # EIO: the other end of a terminal is gone
            return b""


class PipeWriter:
    """Feeds a program's input and owns the descriptor. One task writes at a time."""

    def __init__(self, fd: int, *, on_data: Callable[[], None], io: PipeIO = DIRECT) -> None:
        self._fd: int | None = fd
        self._io = io
        self._loop = asyncio.get_running_loop()
        self._ready = Bell()
        self._on_data = on_data

    @property
    def is_open(self) -> bool:
        """False once it was closed, here or by the program."""
        return self._fd is not None

    def write_at_once(self, data: bytes) -> bytes:
        """Write what the pipe takes without waiting; the rest, of which nobody may want any."""
        if self._fd is None:
            return data
        try:
            size = self._io.write(self._fd, data)
        except (BlockingIOError, InterruptedError):
            return data
        except OSError:  # EPIPE; of a terminal EIO
            self.close()
            return data
        self._on_data()
        return data[size:]

    async def write(self, data: bytes) -> int:
        """Write all of `data`, waiting as long as the program does not read; how many bytes went
        in before it was closed. Cancelling may leave a part written."""
        left = data
        while left:
            before = len(left)
            left = self.write_at_once(left)
            if self._fd is None:
                break
            if len(left) == before:
                await self._wait_room(self._fd)
        return len(data) - len(left)

    async def _wait_room(self, fd: int) -> None:
        self._loop.add_writer(fd, self._ready.ring)
        try:
            await self._ready.wait()
        finally:
            if self._fd is not None:  # else `close` did so, and the number may be another's
                self._loop.remove_writer(fd)

    def close(self) -> None:
        """The end of input. Who waits in `write` is told; harmless when repeated."""
        if self._fd is not None:
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = None
            self._ready.ring()
