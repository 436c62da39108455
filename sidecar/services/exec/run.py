"""`exec.run`: a program from start to end in one call, its output live.

The call ends with the *program*: a background child that still holds the pipe delays it by a
tenth of a second at most. Cancelling the call kills the program and all that it started; left
to the next sidecar it goes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any

import anyio

from sidecar.context import CallContext, Handler, Resumer
from sidecar.errors import CallError
from sidecar.processes.output import Output
from sidecar.processes.process import Process
from sidecar.processes.record import Ended
from sidecar.processes.source import SpoolSource
from sidecar.protocol.commands import ExecRun
from sidecar.protocol.envelope import dumps, loads
from sidecar.services.exec import answers
from sidecar.services.exec.feeding import feed, refusing_input
from sidecar.services.exec.orders import spec_of
from sidecar.services.exec.resuming import outcome, sent_before, taken_up


async def run(ctx: CallContext, arguments: ExecRun) -> dict[str, Any]:
    """See `ExecRun`."""
    # Without credit there will be no stream, so nobody who could make room.
    spec = spec_of(arguments, is_brief=True, may_hold=ctx.credit > 0)
    processes = ctx.means.processes
    with processes.announced(ctx.id):
        await ctx.started(dumps({"live": arguments.live, "input": arguments.stdin == "stream"}))
        process = await processes.start(spec, id=ctx.id, owner=ctx.controller)
    sources: dict[int, SpoolSource] = {}
    with _sending(ctx, process, sources, is_live=arguments.live):
        try:
            async with _feeding(ctx, arguments, process):
                ended = await process.supervise()
                # At once: as soon as others run, it may be forgotten with all that it printed.
                answer, lacking = await _answer_of(ctx, process, ended, sources)
        except BaseException as error:
            if not ctx.is_left_by(error):
                await process.abandon()
            raise
    return answers.enforce(process, ended, answer, lacking)


async def resume(ctx: CallContext, note: bytes) -> dict[str, Any]:
    """Go on with a call that an earlier core had begun: its program runs on, or has ended, or
    nobody will see how it ends; then what it printed until then is sent all the same."""
    found = loads(note)
    try:
        process = await taken_up(ctx, ctx.id)
    except anyio.get_cancelled_exc_class() as error:
        if not ctx.is_left_by(error):
            with suppress(CallError):  # it is not known at all
                await ctx.means.processes.find(ctx.id).abandon()
        raise
    sources: dict[int, SpoolSource] = {}
    with _sending(ctx, process, sources, is_live=found["live"]):
        try:
            async with refusing_input(ctx, is_expected=found["input"]):
                ended = await outcome(process)
                answer, lacking = await _answer_of(ctx, process, ended, sources)
        except BaseException as error:
            if not ctx.is_left_by(error):
                await process.abandon()
            raise
    return answers.enforce(process, ended, answer, lacking)


@contextmanager
def _sending(
    ctx: CallContext, process: Process, sources: dict[int, SpoolSource], *, is_live: bool
) -> Iterator[None]:
    """Within this block output becomes a stream: at once, or when it outgrows the result."""
    if not ctx.credit:
        yield
        return
    for output in process.outputs.values():
        if is_live:
            _send(ctx, process, output, sources)
        else:
            output.on_grown = partial(_outgrow, ctx, process, output, sources)
            _outgrow(ctx, process, output, sources)
    try:
        yield
    finally:
        for output in process.outputs.values():
            output.on_grown = None


@asynccontextmanager
async def _feeding(ctx: CallContext, arguments: ExecRun, process: Process) -> AsyncIterator[None]:
    """Stream 0 goes to the program within this block, if there is one."""
    if arguments.stdin != "stream" or process.input is None:
        yield
        return
    async with anyio.create_task_group() as group:
        group.start_soon(feed, ctx, process.input)
        yield
        group.cancel_scope.cancel()


async def _answer_of(
    ctx: CallContext, process: Process, ended: Ended, sources: dict[int, SpoolSource]
) -> tuple[dict[str, Any], CallError | None]:
    """How it ended and what it printed, and why some of that is missing, if it is. What may not
    leave becomes a stream where there can be one, which then ends with the reason."""
    answer = answers.of_end(process, ended)
    lacking: CallError | None = None
    for n, output in process.outputs.items():
        if n not in sources:
            answer[answers.NAMES[n]], error = await answers.with_data(output, ctx.egress)
            if error is not None and ctx.credit:
                _send(ctx, process, output, sources)
            else:
                lacking = lacking or error
        if n in sources:
            answer[answers.NAMES[n]] = output.describe(sources[n])
    return answer, lacking


def _outgrow(
    ctx: CallContext, process: Process, output: Output, sources: dict[int, SpoolSource]
) -> None:
    """Output that outgrows the result becomes a stream at once."""
    if output.size > answers.SMALL and output.n not in sources:
        _send(ctx, process, output, sources)


def _send(
    ctx: CallContext, process: Process, output: Output, sources: dict[int, SpoolSource]
) -> None:
    sources[output.n] = source = output.source(0, paces=True, remembers=True)
    ctx.send(output.n, source, sent=sent_before(ctx, process, output))


HANDLERS: dict[str, Handler] = {"exec.run": run}
RESUMERS: dict[str, Resumer] = {"exec.run": resume}
