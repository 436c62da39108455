"""A shell that runs one command after the other. `shellscript` has the words, here they are said.

Nobody listens between commands: what the shell says then is found, and ignored, by the next.
Times are seconds.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import anyio

from sidecar.clock import Clock
from sidecar.errors import CallError, Code
from sidecar.hands.interface import Exit, Target
from sidecar.processes.control import Control
from sidecar.processes.process import KILL_SLACK, Process
from sidecar.processes.shellscript import INTRODUCE, CommandProtocol, Messages, Ready, ready_of
from sidecar.protocol.streams import STDOUT

READY_TIME = 10.0  # until a shell that does not answer is given up
SEND_TIME = 10.0  # for a command to go into the shell
ASK_AFTER = 0.2  # until the report of a command that has begun is asked for, doubled up to:
ASK_SOON = 0.02  # the same while the command is being ended
MAX_ASK_AFTER = 60.0
INTERRUPT_EVERY = 0.5  # while a shell is being brought back to its prompt
OVERTIME = 3.0  # beyond the grace, until a shell that does not come back is killed
QUIET_TIME = 1.0  # that the terminal has been silent, when the mark behind the output is missing


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command. `exit` is how the shell ended, if it did; then there is neither
    a status of the command nor a working directory."""

    status: int | None
    cwd: bytes | None
    exit: Exit | None
    timed_out: bool
    duration: float


class ShellSession:
    """The shell is `process`, which was started with a control socket."""

    def __init__(self, process: Process, control: Control, clock: Clock) -> None:
        self.process = process
        self._control = control
        self._clock = clock
        self._messages = Messages()
        self._ready: Ready | None = None
        self._status = 0  # what `$?` was after the command before
        self._is_busy = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One command at a time. Raises `CallError`: `conflict` while another runs, or if the
        shell has ended."""
        if self._is_busy:
            raise CallError(Code.CONFLICT, "another command runs in this shell")
        if not self.process.running:
            raise CallError(Code.CONFLICT, "the shell has ended")
        self._is_busy = True
        try:
            yield
        finally:
            self._is_busy = False

    async def greet(self, opening: bytes = b"") -> Ready:
        """Wait until the shell answers; once it has, it need not again."""
        if self._ready is None:
            with anyio.move_on_after(READY_TIME):
                if await self._send(opening + INTRODUCE):
                    self._ready = await self._hear_ready()
        if self._ready is None:
            raise CallError(
                Code.CONFLICT, "the shell does not answer: it is busy, or another program by now"
            )
        return self._ready

    async def _hear_ready(self) -> Ready | None:
        while data := await self._control.receive():
            for message in self._messages.receive(data):
                if (ready := ready_of(message)) is not None:
                    return ready
        return None

    def command(self, text: str) -> CommandProtocol:
        """The next command, not yet said. The shell was greeted before."""
        assert self._ready is not None, "greet() comes first"
        return CommandProtocol(
            text,
            nonce=os.urandom(8).hex(),
            terminal=self._ready.terminal,
            status=self._status,
            offset=self.process.outputs[STDOUT].size,
        )

    async def run(
        self, command: CommandProtocol, *, timeout: float | None, grace: float
    ) -> Outcome:
        """Until it is over, and what it printed is in the spool. With the timeout, and with
        being cancelled, it is ended, and only if nothing else helps the shell is, too."""
        began = self._clock.now()
        try:
            with anyio.move_on_after(timeout) as limit:
                await self._carry_out(command)
        except BaseException:
            await self._stop(command, began, grace)
            raise
        if limit.cancelled_caught:
            await self._stop(command, began, grace)
        duration = self._clock.now() - began
        if command.done is not None:
            await self._drain(command)
            self._status = command.done.status
            status, cwd = command.done.status, command.done.cwd
            return Outcome(status, cwd, None, limit.cancelled_caught, duration)
        ended = self.process.ended
        if ended is None or ended.exit is None:
            raise self.process.unknown()
        return Outcome(None, None, ended.exit, limit.cancelled_caught, duration)

    async def _carry_out(self, command: CommandProtocol) -> None:
        if await self._send(command.order()):
            await self._hear(command)
        else:
            await self.process.settled()

    async def _send(self, data: bytes) -> bool:
        """All of it; False if the shell is gone. One that reads no more is killed: nobody could
        say what it makes of a half."""
        with anyio.move_on_after(SEND_TIME, shield=True):
            return await self._control.send(data)
        with anyio.CancelScope(shield=True):
            await self._kill()
        return False

    async def _hear(self, command: CommandProtocol, ask_after: float = ASK_AFTER) -> None:
        """Until the shell has reported, or has ended. May be cancelled, and called again.

        A report that was lost (see `shellscript`) is asked for. A shell whose socket is closed
        may have become another program (`exec`): then this is about the end of that.
        """
        while command.done is None:
            with anyio.move_on_after(ask_after if command.has_begun else None) as patience:
                data = await self._control.receive()
            if patience.cancelled_caught:
                ask_after = min(2 * ask_after, MAX_ASK_AFTER)
                await self._send(command.question())
            elif data:
                for message in self._messages.receive(data):
                    command.receive(message)
            else:
                await self.process.settled()
                return

    async def _drain(self, command: CommandProtocol) -> None:
        """The mark behind the output may still be on its way through the terminal. If a program
        has swallowed it, silence has to do."""
        output = self.process.outputs[STDOUT]
        output.flush()
        while command.output.end is None and not output.reader.is_over:
            with anyio.move_on_after(QUIET_TIME) as quiet:
                await output.reader.progress.wait()
            if quiet.cancelled_caught and not output.reader.waiting:
                return

    # Ending a command ------------------------------------------------------------------------

    async def _stop(self, command: CommandProtocol, began: float, grace: float) -> None:
        """TERM, then KILL, to all that the command started, and SIGINT to the shell, which may
        be in a loop of its own. A shell that does not come back by that is killed."""
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(grace + OVERTIME):
                async with anyio.create_task_group() as interrupting:
                    interrupting.start_soon(self._interrupt, grace)
                    async with anyio.create_task_group() as both:
                        both.start_soon(self._kill_since, began, grace)
                        both.start_soon(self._hear, command, ASK_SOON)
                    interrupting.cancel_scope.cancel()
            if command.done is None and self.process.running:
                await self._kill()

    async def _interrupt(self, grace: float) -> None:
        """First only the shell: a program that is being ended may be cleaning up."""
        polite_until = self._clock.now() + grace
        while True:
            is_polite = self._clock.now() < polite_until
            to = Target.PROGRAM if is_polite else Target.FOREGROUND
            with suppress(CallError):  # hands is away, or it is another's program by now
                await self.process.signal(signal.SIGINT, to)
            await anyio.sleep(INTERRUPT_EVERY)

    async def _kill_since(self, began: float, grace: float) -> None:
        with suppress(CallError):
            await self.process.kill_since(began, grace)

    async def _kill(self) -> None:
        with suppress(CallError):
            await self.process.kill(grace=0)
        with anyio.move_on_after(KILL_SLACK):
            await self.process.settled()
