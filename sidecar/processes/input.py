"""What a program reads: standard input or a terminal, from any number of writers.

Chunks of several writers interleave, none is cut by another's. The end of input is a
half-close: a pipe is closed, here and where hands keeps a copy. A terminal has no end of
input; its end-of-file character does that (Ctrl-D, termios(3)).

Why nothing more can be written is told by `which`: `none` (it never had an input), `ended`
(half-closed before) or `closed` (the program reads no more).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio

from sidecar.errors import CallError, Invalid
from sidecar.hands.pipeio import DIRECT, PipeIO
from sidecar.pipes import PipeWriter


class Input:
    """Owns the descriptor. `end_copy` closes the one that hands keeps."""

    def __init__(
        self,
        fd: int,
        *,
        is_terminal: bool,
        end_copy: Callable[[], Awaitable[None]],
        on_data: Callable[[], None],
        io: PipeIO = DIRECT,
    ) -> None:
        self.taken = 0  # bytes that went into the pipe
        self.has_ended = False
        self._writer = PipeWriter(fd, on_data=on_data, io=io)
        self._is_terminal = is_terminal
        self._end_copy = end_copy
        self._turn = anyio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the program may still read something."""
        return not self.has_ended and self._writer.is_open

    def write_at_once(self, data: bytes) -> bytes:
        """Write what fits without waiting; the rest."""
        rest = self._writer.write_at_once(data)
        self.taken += len(data) - len(rest)
        return rest

    async def write(self, data: bytes) -> int:
        """Write all of `data`, waiting as long as the program does not read; how many bytes went
        in before it closed its end. Raises `Invalid` if it was closed before."""
        self.check()
        async with self._turn:
            self.check()
            size = await self._writer.write(data)
        self.taken += size
        if data and not size:
            self.check()
        return size

    async def end(self) -> None:
        """The end of input, behind what is being written. Raises `Invalid` for a terminal."""
        if self._is_terminal:
            raise Invalid("a terminal has no end of input: send its Ctrl-D", which="terminal")
        self._check_ended()
        async with self._turn:
            self._check_ended()
            await self._end_copy()  # first: if hands is away, it can be tried again
            self.has_ended = True
            self._writer.close()

    async def close(self) -> None:
        """Nothing more can be written; who waits to write is told. Harmless when repeated."""
        if self.has_ended:
            return
        self.has_ended = True
        self._writer.close()
        if not self._is_terminal:
            with suppress(CallError):  # hands is away, and its copy with it
                await self._end_copy()

    def drop(self) -> None:
        """Close our end only. Harmless when repeated."""
        self._writer.close()

    def _check_ended(self) -> None:
        if self.has_ended:
            raise Invalid("the program's input has ended", which="ended")

    def check(self) -> None:
        self._check_ended()
        if not self._writer.is_open:
            raise Invalid("the program reads no more input", which="closed")
