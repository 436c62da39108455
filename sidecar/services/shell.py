"""Shell sessions: a shell whose working directory and variables live from command to command.

A shell is a program as any other: `exec.list`, `attach`, `input`, `signal`, `kill` and the rest
work on it. Its terminal is plain: nothing is echoed, and what a command prints is passed on as
it is. Who attaches sees the marks around the output of each command (OSC 133), which terminals
do not show. `processes.shellscript` says how commands and their statuses get in and out.
"""

from __future__ import annotations

from typing import Any

import anyio

from sidecar.callrunner import INLINE_BYTES
from sidecar.context import CallContext, Handler, Resumer
from sidecar.errors import CallError, Code, Invalid, Started
from sidecar.hands.interface import Base, Limits, Program, Terminal
from sidecar.processes.commandoutput import CommandOutput
from sidecar.processes.process import KILL_SLACK, Process
from sidecar.processes.record import Spec, describe
from sidecar.processes.shellscript import OPENING, PROGRAM
from sidecar.processes.shellsession import Outcome, ShellSession
from sidecar.protocol.commands import ShellRun, ShellStart
from sidecar.protocol.streams import STDOUT

WORDS = 500  # bytes that are told of what a shell said which did not start
CWD_BYTES = 8192  # of a working directory that are told: what a path may have in arguments
SMALL = INLINE_BYTES - CWD_BYTES - 2048  # bytes of output that stand in the result


async def start(ctx: CallContext, arguments: ShellStart) -> dict[str, Any]:
    """See `ShellStart`."""
    processes = ctx.means.processes
    spec = Spec(_program_of(arguments))
    with processes.announced(ctx.id):
        await ctx.started(b"")
        process = await processes.start(spec, id=ctx.id, owner=ctx.controller)
    processes.adopt_supervision(process)
    return await _greet(ctx, process)


async def resume_start(ctx: CallContext, note: bytes) -> dict[str, Any]:
    """Go on with a shell that an earlier core had started: it is greeted again."""
    process = ctx.means.processes.find(ctx.id)
    await process.ends.linked()
    if process.control is None:  # it went with whoever had it
        raise process.unknown()
    return await _greet(ctx, process)


async def _greet(ctx: CallContext, process: Process) -> dict[str, Any]:
    try:
        session = _session_of(process, ctx)
        with session.turn():  # its id may be known to others already
            ready = await session.greet(OPENING)
    except CallError:
        raise await _failed(process, ctx) from None
    except BaseException as error:
        if not ctx.is_left_by(error):
            with anyio.CancelScope(shield=True):
                await process.kill(grace=0)
        raise
    return {"exec": process.id, "pid": process.pid, "shell": ready.shell}


async def run(ctx: CallContext, arguments: ShellRun) -> dict[str, Any]:
    """See `ShellRun`."""
    if "\0" in arguments.command:
        raise Invalid("a command cannot have NUL characters")
    process = await ctx.means.processes.look_up(arguments.exec)
    await process.ends.linked()
    session = _session_of(process, ctx)
    with session.turn():
        await session.greet()
        await ctx.started()
        command = session.command(arguments.command)
        sending = _Sending(ctx, arguments.live)
        output = CommandOutput(process.outputs[STDOUT], command.output, on_grown=sending.look)
        sending.begin(output)
        try:
            outcome = await session.run(command, timeout=arguments.timeout, grace=arguments.grace)
        finally:
            output.close()
        answer = _answer_of(outcome) | {"stdout": await output.answer(sending.end())}
    if outcome.timed_out:
        raise CallError(
            Code.TIMEOUT,
            f"the command ran longer than {arguments.timeout:g} s and was ended",
            started=Started.YES,
            which="total",
            **answer,
        )
    return answer


class _Sending:
    """Output becomes a stream at once with `live`, else when it outgrows the result."""

    def __init__(self, ctx: CallContext, is_live: bool) -> None:
        self._ctx = ctx
        self._size = 0 if is_live else SMALL + 1
        self._output: CommandOutput | None = None

    def begin(self, output: CommandOutput) -> None:
        self._output = output
        self.look()

    def look(self) -> None:
        output = self._output
        if output is None or output.is_streamed or output.size < self._size:
            return
        if self._ctx.credit:  # without it, it can be read by offset afterwards
            self._ctx.send(STDOUT, output.source())

    def end(self) -> int:
        """How many bytes may stand in the result, now that the command is over. Those that may
        not leave become a stream, too, which then ends with the reason."""
        output = self._output
        assert output is not None, "begin() comes first"
        if output.is_streamed or output.size > SMALL or self._ctx.egress.may_take(output.size):
            return SMALL
        if self._ctx.credit:
            self._ctx.send(STDOUT, output.source())
        return 0


def _session_of(process: Process, ctx: CallContext) -> ShellSession:
    """Also of a shell that another sidecar of this run had started."""
    if process.control is None:
        raise Invalid("this program is no shell session: start one with shell.start")
    if process.session is None:
        process.session = ShellSession(process, process.control, ctx.means.clock)
    return process.session


async def _failed(process: Process, ctx: CallContext) -> CallError:
    """A shell that never answered has at least left some words, where it has not ended."""
    await process.kill(grace=0)
    with anyio.move_on_after(KILL_SLACK):
        await process.settled()
    said = (await process.outputs[STDOUT].spool.read(0, WORDS)).data
    words = said.decode(errors="replace").strip() or "it said nothing"
    if not ctx.egress.may_take(len(said)):
        words = "what it said may not leave"
    return CallError(
        Code.UNSUPPORTED,
        f"the shell did not come to its prompt: {words}",
        started=Started.YES,
        **({} if process.ended is None else describe(process.ended)),
    )


def _program_of(arguments: ShellStart) -> Program:
    terminal, limits = arguments.terminal, arguments.limits
    return Program(
        argv=PROGRAM,
        cwd=arguments.cwd,
        env=arguments.env,
        unset=arguments.unset,
        base=Base(arguments.base),
        terminal=Terminal(terminal.rows, terminal.cols, terminal.term, plain=True),
        control=True,
        limits=None
        if limits is None
        else Limits(limits.memory, limits.processes, limits.files, limits.cpu),
    )


def _answer_of(outcome: Outcome) -> dict[str, Any]:
    exit = outcome.exit
    return {
        "status": outcome.status if exit is None else exit.status,
        "signal": None if exit is None else exit.signal,
        "cwd": _path(outcome.cwd),
        "shell": "alive" if exit is None else "ended",
        "duration": outcome.duration,
    }


def _path(cwd: bytes | None) -> str | bytes | None:
    """Text, or bytes where the name is not UTF-8."""
    if cwd is None or len(cwd) > CWD_BYTES:
        return None
    try:
        return cwd.decode()
    except UnicodeDecodeError:
        return cwd


HANDLERS: dict[str, Handler] = {"shell.start": start, "shell.run": run}
RESUMERS: dict[str, Resumer] = {"shell.start": resume_start}
