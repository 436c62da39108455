"""Stream 0 of a call into a program's input."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio

from sidecar.context import CallContext
from sidecar.errors import CallError, Code, Invalid, Started
from sidecar.processes.input import Input
from sidecar.protocol.streams import STDIN

LEAVE_TIME = 1.0  # seconds for what a leaving user has typed


async def feed(ctx: CallContext, input: Input) -> None:
    """Until the stream ends, which is the end of input; a stream that is broken off, or whose
    call is over, is not. The sender is told when the program reads no more."""
    receiver = ctx.receiver(STDIN)
    try:
        while chunk := await receiver.receive():
            if await input.write(chunk) < len(chunk):
                receiver.reset(_closed())
                return
    except CallError as error:
        receiver.reset(error)  # ours: else it is over already, and this changes nothing
        return
    except anyio.get_cancelled_exc_class():
        receiver.reset(_closed())
        raise
    with suppress(Invalid):  # ended by somebody else, or a terminal, which has no end of input
        await input.end()


async def feed_received(ctx: CallContext, input: Input) -> None:
    """What has come by now: it was acknowledged, so whoever sent it may leave. Shielded, and what
    the program does not read in a second is given up."""
    receiver = ctx.receiver(STDIN)
    with anyio.move_on_after(LEAVE_TIME, shield=True), suppress(CallError):
        while receiver.is_ready and (chunk := await receiver.receive()):
            await input.write(chunk)


@asynccontextmanager
async def refusing_input(ctx: CallContext, *, is_expected: bool) -> AsyncIterator[None]:
    """Within this block of a resumed call, stream 0 is broken off when more of it comes: how much
    of it the program got from an earlier core nobody knows, and none may come twice. The program
    goes on, and more input may be sent by its exec id."""
    if not is_expected:
        yield
        return
    async with anyio.create_task_group() as group:
        group.start_soon(_refuse, ctx)
        yield
        group.cancel_scope.cancel()


async def _refuse(ctx: CallContext) -> None:
    receiver = ctx.receiver(STDIN)
    with suppress(CallError):
        await receiver.receive()
        receiver.reset(
            CallError(
                Code.OUTCOME_UNKNOWN,
                "the sidecar was restarted, and how much of this input the program got is unknown",
                started=Started.YES,
            )
        )


def _closed() -> CallError:
    return CallError(Code.CANCELLED, "the program reads no more input", started=Started.YES)
