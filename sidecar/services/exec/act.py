"""What acts on programs: start one, feed it, resize its terminal, signal it, kill it."""

from __future__ import annotations

import signal
from typing import Any

import anyio

from sidecar.context import CallContext, Handler, Resumer
from sidecar.errors import CallError, Code, Invalid, Started
from sidecar.hands.interface import Target
from sidecar.processes.process import KILL_SLACK
from sidecar.protocol.commands import ExecInput, ExecKill, ExecResize, ExecSignal, ExecStart
from sidecar.services.exec import answers
from sidecar.services.exec.orders import spec_of
from sidecar.services.exec.resuming import taken_up


async def start(ctx: CallContext, arguments: ExecStart) -> dict[str, Any]:
    """See `ExecStart`."""
    processes = ctx.means.processes
    with processes.announced(ctx.id):
        await ctx.started(b"")
        process = await processes.start(spec_of(arguments), id=ctx.id, owner=ctx.controller)
    processes.adopt_supervision(process)
    return {"exec": process.id, "pid": process.pid}


async def resume_start(ctx: CallContext, note: bytes) -> dict[str, Any]:
    """It was started, if there is anything to be known of it."""
    process = await taken_up(ctx, ctx.id)
    if not process.pid:
        raise process.unknown()
    return {"exec": process.id, "pid": process.pid}


async def input(ctx: CallContext, arguments: ExecInput) -> dict[str, Any]:
    """See `ExecInput`."""
    process = await ctx.means.processes.look_up(arguments.exec)
    await process.ends.linked()
    if process.input is None:
        raise Invalid("the program was started without an input", which="none")
    await ctx.started()
    taken = await process.input.write(arguments.data)
    if arguments.end:
        await process.input.end()
    return {"taken": taken}


async def resize(ctx: CallContext, arguments: ExecResize) -> dict[str, Any]:
    """See `ExecResize`."""
    process = await ctx.means.processes.look_up(arguments.exec)
    await ctx.started()
    return {"offset": await process.resize(arguments.rows, arguments.cols)}


async def send_signal(ctx: CallContext, arguments: ExecSignal) -> dict[str, Any]:
    """See `ExecSignal`."""
    process = await ctx.means.processes.look_up(arguments.exec)
    number = signal_number(arguments.signal)
    await ctx.started()
    await process.signal(number, Target(arguments.to))
    return {"signal": number, "state": process.state}


async def kill(ctx: CallContext, arguments: ExecKill) -> dict[str, Any]:
    """See `ExecKill`."""
    process = await ctx.means.processes.look_up(arguments.exec)
    await ctx.started()
    await process.kill(arguments.grace)
    with anyio.move_on_after(KILL_SLACK):
        ended = await process.wait()
        if ended.exit is None:
            raise process.unknown()
        return answers.of_end(process, ended) | answers.of_outputs(process, {})
    raise CallError(
        Code.OUTCOME_UNKNOWN, "the program was killed and did not end", started=Started.YES
    )


def signal_number(wanted: str | int) -> int:
    """`TERM`, `SIGTERM`, `15` or 15. Raises `Invalid` for what is no signal here."""
    if isinstance(wanted, str):
        name = wanted.upper()
        number = (
            int(name)
            if name.isascii() and name.isdigit()
            else _NUMBERS.get(name, _NUMBERS.get(f"SIG{name}", 0))
        )
    else:
        number = wanted
    if number not in signal.valid_signals():
        raise Invalid(f"{wanted!r} is no signal: expected a name such as TERM, or a number")
    return number


_NUMBERS = {found.name: int(found) for found in signal.Signals}

HANDLERS: dict[str, Handler] = {
    "exec.start": start,
    "exec.input": input,
    "exec.resize": resize,
    "exec.signal": send_signal,
    "exec.kill": kill,
}
RESUMERS: dict[str, Resumer] = {"exec.start": resume_start}
