"""`run.end`: the platform says that the run is over."""

from __future__ import annotations

from typing import Any

from sidecar.context import CallContext, Handler
from sidecar.protocol.commands import RunEnd


async def end(ctx: CallContext, arguments: RunEnd) -> dict[str, Any]:
    """See `RunEnd`. Once it is answered, the state folder knows of it: killed now, the sidecar
    goes on with ending when it is started again."""
    await ctx.started()
    return dict(await ctx.means.end_run(arguments.timeout))


HANDLERS: dict[str, Handler] = {"run.end": end}
