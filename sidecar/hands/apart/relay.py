"""A terminal as two pipes, for a core in another process.

The master side of a terminal cannot be handed to core: it would have to read it, and hands,
which shares its open file description, could make that block (see `pipeio`; a terminal cannot
be spliced). So hands reads and writes the terminal itself and core gets pipes. A pipe that is
full is not written, and then the terminal is not read: the program waits, as it would for a
slow terminal. When hands ends, the terminal ends with it, and its programs get SIGHUP.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import suppress

from sidecar.hands.local.ends import PIPE_SIZE

PIECE = 64 * 1024  # bytes; the kernel holds no more of a terminal's output (tty_buffer.c)
TURN = 2 * PIECE  # bytes that are moved until others get their turn on the event loop


class Relay:
    """Two pipes; `begin` joins them to a terminal. `output` and `input` are core's ends, which
    are its maker's to close."""

    def __init__(self) -> None:
        """Before the program starts: without descriptors it had better not. Raises `OSError`."""
        self.output, self._to_core = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._from_core, self.input = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            os.close(self.output)
            os.close(self._to_core)
            raise
        with suppress(OSError):  # EPERM: the user's pages for pipes are used up (pipe(7))
            fcntl.fcntl(self._to_core, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        self._flows: list[_Flow] = []

    def begin(self, master_out: int, master_in: int) -> None:
        """Both descriptors of the master are the relay's from here on."""
        self._flows = [_Flow(master_out, self._to_core), _Flow(self._from_core, master_in)]

    def flush(self) -> None:
        """The program has ended: move what it printed, as far as there is room, so that core
        finds it in the pipe when it is told."""
        self._flows[0].move()

    def cancel(self) -> None:
        """In place of `begin`: the program did not start."""
        for descriptor in (self.output, self._to_core, self._from_core, self.input):
            os.close(descriptor)

    def close(self) -> None:
        """Both flows end, and with them the terminal. Core's ends of the pipes stay."""
        for flow in self._flows:
            flow.close()


class _Flow:
    """From one descriptor to another, one piece at a time, until either end is gone."""

    def __init__(self, source: int, target: int) -> None:
        self._source = source
        self._target = target
        self._piece = memoryview(b"")
        self._loop = asyncio.get_running_loop()
        self._is_open = True
        self._loop.add_reader(source, self.move)

    def move(self) -> None:
        """Move what can be moved now, up to a `TURN`: a program may print as fast as core reads,
        without end."""
        moved = 0
        while self._is_open and moved < TURN:
            if not self._piece and not self._read():
                return
            moved += len(self._piece)
            if not self._write():
                return

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._source)
            self._loop.remove_writer(self._target)
            os.close(self._source)
            os.close(self._target)

    def _read(self) -> bool:
        try:
            self._piece = memoryview(os.read(self._source, PIECE))
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:  # EIO: nobody has the terminal open any more
            self._piece = memoryview(b"")
        if not self._piece:
            self.close()
        return bool(self._piece)

    def _write(self) -> bool:
        """Whether the piece is gone; if not, the source has to wait."""
        try:
            self._piece = self._piece[os.write(self._target, self._piece) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:  # EPIPE: nobody reads; EIO: the terminal is gone
            self.close()
            return False
        if not self._piece:
            self._loop.remove_writer(self._target)
            self._loop.add_reader(self._source, self.move)
            return True
        self._loop.remove_reader(self._source)
        self._loop.add_writer(self._target, self.move)
        return False
