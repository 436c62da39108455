"""Our ends of a program's pipes: its outputs, its input, the socket beside its terminal.

They are here from the start, or hands brings them for a program that began under an earlier core
(`connect`), or they went with whoever had them (`lose`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum

import anyio

from sidecar.bell import Bell
from sidecar.errors import CallError, Code, Invalid
from sidecar.hands.interface import Running
from sidecar.pipes import PipeReader
from sidecar.processes.control import Control
from sidecar.processes.input import Input
from sidecar.processes.output import Output
from sidecar.processes.record import Spec
from sidecar.processes.surroundings import Surroundings
from sidecar.protocol.streams import STDERR, STDOUT

LINK_TIME = 60.0  # seconds that a call waits for hands to say what became of a program


class Link(StrEnum):
    """Whether the pipes are here."""

    WAITING = "waiting"  # for hands, which may have them
    CONNECTED = "connected"
    LOST = "lost"


class Ends:
    """Of one program. `on_data` is called for each byte that goes in or out."""

    def __init__(
        self, id: bytes, spec: Spec, around: Surroundings, *, on_data: Callable[[], None]
    ) -> None:
        self.link = Link.WAITING
        self.has_spools = False  # on disk, once it was abandoned
        self.input: Input | None = None
        self.control: Control | None = None
        self._id = id
        self._has_terminal = spec.program.terminal is not None
        self._around = around
        self._on_data = on_data
        self._linked = Bell()
        numbers = (STDOUT,) if self._has_terminal else (STDOUT, STDERR)
        self.outputs = {n: self._output(n, spec) for n in numbers}

    def _output(self, n: int, spec: Spec) -> Output:
        around = self._around
        return Output(
            n,
            around.new_spool(self._id, n, spec.on_full),
            is_terminal=self._has_terminal,
            on_data=self._on_data,
            spawn=around.spawn,
            io=around.hands.pipe_io,
        )

    def connect(self, running: Running) -> None:
        """Read them from here on."""
        self.link = Link.CONNECTED
        self.control = None if running.control is None else Control(running.control)
        self.input = self._input(running)
        for n, fd in ((STDOUT, running.stdout), (STDERR, running.stderr)):
            if fd is not None and n in self.outputs:
                self.outputs[n].connect(fd)
            elif fd is not None:
                os.close(fd)
        self._lose_others()

    def _input(self, running: Running) -> Input | None:
        if running.stdin is None:
            return None
        return Input(
            running.stdin,
            is_terminal=self._has_terminal,
            end_copy=self._end_input_copy,
            on_data=self._on_data,
            io=self._around.hands.pipe_io,
        )

    async def _end_input_copy(self) -> None:
        await self._around.hands.end_input(self._id)

    def lose(self) -> list[int]:
        """Nobody has them any more. The outputs of which something may be missing by that: what
        was in the pipe, and what goes there from here on, nobody knows how much."""
        self.link = Link.LOST
        torn = [n for n, output in self.outputs.items() if not output.spool.has_ended]
        for n in torn:
            self.outputs[n].spool.note_gap()
        self._lose_others()
        return torn

    def _lose_others(self) -> None:
        for output in self.outputs.values():
            output.lose()
        self._linked.ring()

    async def linked(self) -> Link:
        """Until they are here, or known to be lost. Raises `hands_away` if hands, which has to
        say so, does not come in time."""
        with anyio.move_on_after(LINK_TIME):
            while self.link is Link.WAITING:
                await self._linked.wait()
            return self.link
        raise CallError(Code.HANDS_AWAY, "hands, which may have this program, is away")

    def write_at_once(self, data: bytes) -> bytes:
        """Input, as much as fits without waiting; the rest."""
        return b"" if self.input is None else self.input.write_at_once(data)

    async def feed(self, data: bytes) -> None:
        """The rest of its input, and the end of it."""
        if self.input is not None:
            with suppress(Invalid):  # it wanted no more
                await self.input.write(data)
            await self.end_feed()

    async def end_feed(self) -> None:
        """It has all of the input that came with its call."""
        self._around.store.note_fed(self._id)
        if self.input is not None and not self._has_terminal:
            await self.input.close()

    def settle(self) -> None:
        """What was printed until now is what readers who follow get."""
        for output in self.outputs.values():
            output.settle()

    def unsettle(self) -> None:
        for output in self.outputs.values():
            output.unsettle()

    def close_control(self) -> None:
        if self.control is not None:
            self.control.close()

    def close(self) -> None:
        """Nobody may use them any more; what is in the pipes stays there."""
        self._close_inputs()
        for output in self.outputs.values():
            output.close()

    def abandon(self) -> list[PipeReader]:
        """Nobody will want what is here again. Release all but the pipes that somebody still
        prints into: those are read on."""
        self.has_spools = any(not one.spool.is_untouched for one in self.outputs.values())
        self._close_inputs()
        readers = [output.abandon() for output in self.outputs.values()]
        return [reader for reader in readers if reader is not None]

    def _close_inputs(self) -> None:
        if self.input is not None:
            self.input.drop()
        self.close_control()
