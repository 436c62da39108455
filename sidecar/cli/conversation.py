"""A terminal of the sandbox and ours, tied together until the program ends or we leave.

Keys go to the program as they are typed, but for the detach keys. Its output goes to our
terminal, and a slow one holds the stream up by its credit, not by a queue here. Sizes are sent
one at a time: of those that a window goes through while it is dragged, the latest counts.

Leaving, by the keys, by a signal or by a lost connection, ends nothing there. Our terminal is put
back in any case; unless the program ended by itself, it is also told to leave whatever the
program had switched on (ECMA-48 and xterm's private modes), as nobody else will.
"""

from __future__ import annotations

import math
import os
import signal
from contextlib import suppress
from functools import partial

import anyio
import anyio.to_thread

from sidecar.bell import Bell
from sidecar.cli.detachkeys import HELD, KeyWatch
from sidecar.cli.ending import Outcome
from sidecar.cli.loop import SIGNALS, beside
from sidecar.cli.piping import CHUNK, OwnOutput, pass_on, write_all
from sidecar.cli.tty import RawTerminal, size_of
from sidecar.client import CallError, Process, RemoteProcess

HEEDED = (*SIGNALS, signal.SIGQUIT, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
CREDIT = 256 * 1024  # bytes on their way: so much is still shown after Ctrl-C
REDRAW = 0.05  # seconds between two sizes, or a program may see only the second
LAST_WORDS = 0.5  # seconds that our terminal has to take the reset, and the program our last keys
# Alternate screen, hidden cursor, mouse reports, bracketed paste, application keys, colours.
RESET = b"\x1b[?1047l\x1b[?25h\x1b[?1000;1002;1003;1006;1004;2004;1l\x1b>\x1b[0m\r\n"


class Conversation:
    """One time at a program's terminal. `heed` runs from the start, `hold` while attached."""

    def __init__(self, keys: bytes) -> None:
        self.outcome = Outcome()
        self._raw = RawTerminal(0)
        self._keys = KeyWatch(keys)
        self._size_changed = Bell()
        self._must_repaint = False

    async def heed(self, block: anyio.CancelScope) -> None:
        """Signals: an end is an end of ours, not the program's."""
        with anyio.open_signal_receiver(*HEEDED) as signals:
            async for number in signals:
                if number == signal.SIGTSTP:
                    self._raw.stop()
                elif number == signal.SIGCONT:
                    self._raw.resume()
                    self._must_repaint = True
                elif number != signal.SIGWINCH:
                    self.outcome.signal = number
                    block.cancel()
                self._size_changed.ring()

    async def hold(self, process: Process, size: tuple[int, int]) -> None:
        """Until the program ends or we leave; `size` is what its terminal has now."""
        try:
            with self._raw:
                try:
                    async with (
                        beside(partial(self._type, process)),
                        beside(partial(self._follow_size, process.remote, size)),
                    ):
                        await pass_on(process, OwnOutput(), self.outcome)
                finally:
                    if not self.outcome.is_known:
                        await self._reset()
        except OSError as error:
            self.outcome.failure = error

    async def _type(self, process: Process, block: anyio.CancelScope) -> None:
        """What is typed, to the program."""
        try:
            while not self._keys.has_left:
                await process.write(await self._typed())
        except anyio.BrokenResourceError:
            return  # it reads no more; its end is told by the output
        except OSError:  # our terminal is gone, which tells as SIGHUP does
            self.outcome.signal = signal.SIGHUP
        else:
            with anyio.move_on_after(LAST_WORDS):
                await process.leave_stdin()  # no end for a terminal, only for us
            self.outcome.has_left = True
        block.cancel()

    async def _typed(self) -> bytes:
        """The next bytes for the program. Raises `OSError` when there is no terminal any more."""
        with anyio.move_on_after(HELD if self._keys.is_holding else math.inf) as waiting:
            await anyio.wait_readable(0)
        if waiting.cancelled_caught:
            return self._keys.release()
        # Somebody else may have read it meanwhile: then this waits, and is left behind.
        data = await anyio.to_thread.run_sync(os.read, 0, CHUNK, abandon_on_cancel=True)
        if not data:
            raise OSError("the terminal hung up")
        return self._keys.receive(data)

    async def _follow_size(
        self, remote: RemoteProcess, sent: tuple[int, int], _: anyio.CancelScope
    ) -> None:
        while True:
            size = size_of(0)
            if size == sent and not self._must_repaint:
                await self._size_changed.wait()
                continue
            change = repaint if self._must_repaint else RemoteProcess.resize
            self._must_repaint = False
            with suppress(CallError):  # it has ended, or its hands are away for a moment
                await change(remote, *size)
            sent = size

    async def _reset(self) -> None:
        if not os.isatty(1):
            return
        with anyio.move_on_after(LAST_WORDS, shield=True), suppress(OSError):
            await write_all(1, RESET)


async def repaint(remote: RemoteProcess, rows: int, cols: int) -> int:
    """Make a full-screen program draw everything again: it does so for a new size only. The
    offset of its output before that."""
    offset = await remote.resize(rows + 1 if rows == 1 else rows - 1, cols)
    await anyio.sleep(REDRAW)
    await remote.resize(rows, cols)
    return offset
