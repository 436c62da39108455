"""Programs of calls that an earlier core had begun."""

from __future__ import annotations

from sidecar.context import CallContext
from sidecar.errors import CallError, Code, Started
from sidecar.processes.ends import Link
from sidecar.processes.output import Output
from sidecar.processes.process import Process
from sidecar.processes.record import Ended
from sidecar.protocol.ids import show


async def taken_up(ctx: CallContext, exec: bytes) -> Process:
    """The program, once it is known what became of it. Raises `outcome_unknown`."""
    try:
        process = ctx.means.processes.find(exec)
        await process.ends.linked()
    except CallError as error:
        raise CallError(
            Code.OUTCOME_UNKNOWN,
            f"the sidecar was restarted, and what became of program {show(exec)} is unknown:"
            f" {error.message}",
            started=Started.YES,
        ) from None
    return process


def sent_before(ctx: CallContext, process: Process, output: Output, start: int = 0) -> int | None:
    """How far an earlier core may have sent this output from `start` on; None: this one is the
    first. Of a program that was unknown offsets count anew: they are no place in what an earlier
    core has sent, and whoever has any of that cannot go on."""
    if not ctx.is_resumed:
        return None
    return start if process.is_adopted else output.size


async def outcome(process: Process) -> Ended:
    """How it ended and has printed all, once it has. Of one whose pipes are gone nobody will
    ever know: that is said at once, whether it still runs or not."""
    if process.ended is None and process.ends.link is Link.LOST:
        why = "its sidecar was killed, and its pipes are gone"
        return Ended(None, process.age, why=why)
    return await process.settled()
