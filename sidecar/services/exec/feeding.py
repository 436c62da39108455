"""Stream 0 of a call into a program's input."""

from __future__ import annotations

from contextlib import suppress

import anyio

from sidecar.context import CallContext
from sidecar.errors import CallError, Code, Invalid, Started
from sidecar.processes.input import Input
from sidecar.protocol.streams import STDIN


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


def _closed() -> CallError:
    return CallError(Code.CANCELLED, "the program reads no more input", started=Started.YES)
