"""What looks at programs: follow one's output, read some of it, wait, list them all."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import anyio

from sidecar.context import CallContext, Handler, Resumer
from sidecar.errors import CallError, Code, Invalid
from sidecar.hands.interface import Survivor
from sidecar.processes.listing import entry
from sidecar.processes.process import Process
from sidecar.processes.record import Ended
from sidecar.processes.source import SpoolSource
from sidecar.protocol.commands import Exec, ExecAttach, ExecRead, Nothing
from sidecar.protocol.envelope import dumps, loads
from sidecar.protocol.names import Scope
from sidecar.protocol.streams import STDERR, STDOUT
from sidecar.services.exec import answers
from sidecar.services.exec.feeding import feed, feed_received, refusing_input
from sidecar.services.exec.resuming import sent_before, taken_up


async def attach(ctx: CallContext, arguments: ExecAttach) -> dict[str, Any]:
    """See `ExecAttach`."""
    process = await ctx.means.processes.look_up(arguments.exec)
    if arguments.input:
        await process.ends.linked()
        _check_input(ctx, process)
    is_owner = ctx.scope is Scope.FULL and ctx.controller == process.owner is not None
    sources = _sources(ctx, process, arguments, is_owner=is_owner)
    try:
        if sources:
            await ctx.started(dumps([arguments.model_dump(), is_owner]))
        if not arguments.follow:
            return _now(process) | answers.of_outputs(process, sources)
        following = _follow(ctx, process, with_input=arguments.input)
        return await _see_out(ctx, process, sources, following)
    except anyio.get_cancelled_exc_class():
        if arguments.input and arguments.follow and process.input is not None:
            await feed_received(ctx, process.input)
        raise


async def resume_attach(ctx: CallContext, note: bytes) -> dict[str, Any]:
    """Go on where whoever reads it is."""
    found, is_owner = loads(note)
    arguments = ExecAttach.model_validate(found)
    process = await taken_up(ctx, arguments.exec)
    sources = _sources(ctx, process, arguments, is_owner=is_owner)
    if not arguments.follow:
        return _now(process) | answers.of_outputs(process, sources)
    async with refusing_input(ctx, is_expected=arguments.input):
        return await _see_out(ctx, process, sources, process.settled())


async def _see_out(
    ctx: CallContext,
    process: Process,
    sources: Mapping[int, SpoolSource],
    following: Awaitable[Ended],
) -> dict[str, Any]:
    """Until the program has ended, and how it did."""
    try:
        ended = await following
    except anyio.get_cancelled_exc_class() as error:
        if ctx.is_left_by(error):
            raise
        gone = CallError(Code.CANCELLED, "whoever followed this output has left")
        for sender in ctx.senders.values():
            sender.fail(gone)
        raise
    answer = answers.of_end(process, ended) | answers.of_outputs(process, sources)
    return answers.enforce(process, ended, answer)


def _check_input(ctx: CallContext, process: Process) -> None:
    if ctx.scope is not Scope.FULL:
        raise CallError(Code.FORBIDDEN, "writing to a program through a watch-only group")
    if process.input is None:
        raise Invalid("the program was started without an input", which="none")
    if (
        not process.has_exited
    ):  # else it ended before its user came: to see that, no input is needed
        process.input.check()


def _sources(
    ctx: CallContext, process: Process, arguments: ExecAttach, *, is_owner: bool
) -> dict[int, SpoolSource]:
    wanted = {STDOUT: arguments.stdout, STDERR: arguments.stderr}
    offsets = {n: at for n, at in wanted.items() if at is not None and n in process.outputs}
    if offsets:
        ctx.check_streams()
    for n, at in offsets.items():
        process.outputs[n].spool.check_offset(at)
    sources = {}
    for n, at in offsets.items():
        output = process.outputs[n]
        sources[n] = source = output.source(at, paces=is_owner, follow=arguments.follow)
        ctx.send(n, source, start=at, sent=sent_before(ctx, process, output, at))
    return sources


async def _follow(ctx: CallContext, process: Process, *, with_input: bool) -> Ended:
    if not with_input or process.input is None:
        return await process.settled()
    async with anyio.create_task_group() as group:
        group.start_soon(feed, ctx, process.input)
        ended = await process.settled()
        group.cancel_scope.cancel()
    return ended


def _now(process: Process) -> dict[str, Any]:
    """Its state, and how it ended if it did."""
    ended = process.ended
    found = answers.of_start(process) if ended is None else answers.of_end(process, ended)
    return found | {"state": process.state}


async def read(ctx: CallContext, arguments: ExecRead) -> dict[str, Any]:
    """See `ExecRead`."""
    process = await ctx.means.processes.look_up(arguments.exec)
    output = process.outputs.get(arguments.n)
    if output is None:
        raise Invalid(f"the program has no output {arguments.n}: a terminal has one only")
    try:
        piece = await output.spool.read(arguments.offset, arguments.length)
    except anyio.ClosedResourceError:
        raise CallError(Code.NOT_FOUND, "the program was forgotten meanwhile") from None
    ctx.egress.take(len(piece.data))
    return {
        "data": piece.data,
        "offset": piece.offset,
        "ended": piece.ended,
        "state": process.state,
        **output.describe(),
    }


async def wait(ctx: CallContext, arguments: Exec) -> dict[str, Any]:
    """How a program ended, once it has."""
    process = await ctx.means.processes.look_up(arguments.exec)
    await ctx.started(dumps(arguments.model_dump()))
    return await _wait(process)


async def resume_wait(ctx: CallContext, note: bytes) -> dict[str, Any]:
    """Wait on."""
    return await _wait(await taken_up(ctx, Exec.model_validate(loads(note)).exec))


async def _wait(process: Process) -> dict[str, Any]:
    ended = await process.wait()
    answer = answers.of_end(process, ended) | answers.of_outputs(process, {})
    return answers.enforce(process, ended, answer)


async def list_all(ctx: CallContext, arguments: Nothing) -> dict[str, Any]:
    """Every program that runs or is still known; see `processes.listing`."""
    survivors: Mapping[bytes, Sequence[Survivor]] = {}
    if ctx.hands.status()["state"] == "connected":
        with suppress(CallError):  # it has just left: what is known here is told all the same
            survivors = await ctx.hands.survivors()
    now = ctx.means.clock.now()
    return {
        "processes": [
            entry(process, survivors.get(process.id, ()), now=now)
            for process in ctx.means.processes.all()
        ]
    }


HANDLERS: dict[str, Handler] = {
    "exec.attach": attach,
    "exec.read": read,
    "exec.wait": wait,
    "exec.list": list_all,
}
RESUMERS: dict[str, Resumer] = {"exec.attach": resume_attach, "exec.wait": resume_wait}
