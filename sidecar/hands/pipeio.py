"""Reading and writing a program's pipes, in the two ways that core needs.

`DIRECT` is read(2) and write(2), for pipes whose open file description is ours alone.

`Splicing` is for pipes that came from a hands of its own, which has the same open file
description: it can clear O_NONBLOCK at any time, also between poll(2) and read(2), and core
would stand still in read. So core never reads such a pipe. It moves what is there into a pipe
of its own by splice(2) with SPLICE_F_NONBLOCK, which holds whatever the flags of the pipe say,
and reads that; and writes the other way round. It costs 1.5 us more. (preadv2(2) with
RWF_NOWAIT would be one call, but is not allowed on pipes by every kernel.)

What remains: a pipe has a lock, which a writer holds while its memory is paged in. An agent that
may use userfaultfd(2) on kernel faults, or mount FUSE, can draw that out.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import Protocol

SCRATCH_SIZE = 1 << 20  # bytes, where the user's allowance for pipes permits (pipe(7))


class PipeIO(Protocol):
    """How core reads and writes a pipe. Neither waits, whatever the mode of the descriptor."""

    def read(self, fd: int, size: int) -> bytes:
        """At most `size` bytes, none at the end. Raises `BlockingIOError` if there are none yet,
        or another `OSError`."""
        ...

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """How many bytes went. Raises `BlockingIOError` if there is no room, or `OSError`."""
        ...


class DirectIO:
    """For descriptors that are in non-blocking mode and stay so."""

    def read(self, fd: int, size: int) -> bytes:
        return os.read(fd, size)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return os.write(fd, data)


DIRECT = DirectIO()


class Splicing:
    """Through one pipe of our own, which is empty between calls: what stayed in it would be
    taken for the next program's. `close` ends it."""

    def __init__(self) -> None:
        self._out = self._in = -1
        self._open()

    def read(self, fd: int, size: int) -> bytes:
        moved = os.splice(fd, self._in, size, flags=os.SPLICE_F_NONBLOCK)
        content = b""
        try:
            # One read ends with a packet, if the program writes packets (O_DIRECT, pipe(2)).
            while len(content) < moved:
                content += os.read(self._out, moved - len(content))
        except OSError:  # a page of a file, spliced by the program, that cannot be had any more
            self.close()
            self._open()
            raise
        return content

    def write(self, fd: int, data: bytes | memoryview) -> int:
        filled = os.write(self._in, data)
        moved = 0
        try:
            while moved < filled:
                moved += os.splice(self._out, fd, filled - moved, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            if not moved:
                raise
        finally:
            if moved < filled:
                os.read(self._out, filled - moved)  # the caller still has it
        return moved

    def close(self) -> None:
        """A second call is harmless."""
        if self._in >= 0:
            os.close(self._in)
            os.close(self._out)
            self._in = self._out = -1

    def _open(self) -> None:
        self._out, self._in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        with suppress(OSError):  # EPERM: the allowance is used up
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, SCRATCH_SIZE)
