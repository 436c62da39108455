"""`exec.run`: a program from start to end in one call, its output live.

The call ends with the *program*: a background child that still holds the pipe delays it by a
tenth of a second at most. Cancelling the call kills the program and all that it started.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio

from sidecar.context import CallContext, Handler
from sidecar.processes.output import Output
from sidecar.processes.process import Process
from sidecar.processes.record import Ended
from sidecar.processes.source import SpoolSource
from sidecar.protocol.commands import ExecRun
from sidecar.services.exec import answers
from sidecar.services.exec.feeding import feed
from sidecar.services.exec.orders import spec_of


async def run(ctx: CallContext, arguments: ExecRun) -> dict[str, Any]:
    """See `ExecRun`."""
    # Without credit there will be no stream, so nobody who could make room.
    spec = spec_of(arguments, is_brief=True, may_hold=ctx.credit > 0)
    await ctx.started()
    process = await ctx.means.processes.start(spec, id=ctx.id, owner=ctx.controller)
    sources: dict[int, SpoolSource] = {}
    if ctx.credit:
        for output in process.outputs.values():
            if arguments.live:
                _send(ctx, output, sources)
            else:
                output.on_grown = partial(_outgrow, ctx, output, sources)
    try:
        async with _feeding(ctx, arguments, process):
            ended = await process.supervise()
            # At once: as soon as others run, it may be forgotten with all that it printed.
            answer, is_whole = await _answer_of(process, ended, sources)
    except BaseException:
        await process.abandon()
        raise
    finally:
        for output in process.outputs.values():
            output.on_grown = None
    return answers.enforce(process, ended, answer, is_whole=is_whole)


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
    process: Process, ended: Ended, sources: Mapping[int, SpoolSource]
) -> tuple[dict[str, Any], bool]:
    """How it ended and what it printed, and whether no output is missing."""
    answer = answers.of_end(process, ended)
    is_whole = True
    for n, output in process.outputs.items():
        found = output.describe(sources[n]) if n in sources else await answers.with_data(output)
        is_whole = is_whole and (n in sources or "data" in found)
        answer[answers.NAMES[n]] = found
    return answer, is_whole


def _outgrow(ctx: CallContext, output: Output, sources: dict[int, SpoolSource]) -> None:
    """Output that outgrows the result becomes a stream at once."""
    if output.size > answers.SMALL and output.n not in sources:
        _send(ctx, output, sources)


def _send(ctx: CallContext, output: Output, sources: dict[int, SpoolSource]) -> None:
    sources[output.n] = source = output.source(0, paces=True)
    ctx.send(output.n, source)


HANDLERS: dict[str, Handler] = {"exec.run": run}
