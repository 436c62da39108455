"""`events.forget`: a durable reader that will not come back lets go of what it holds.

A durable name is kept until it is forgotten, through restarts, for that is its use. So one that
was misspelt, or whose owner is gone, would make every end of the run wait for its acks, and 16 of
them would leave no place for another.
"""

from __future__ import annotations

from typing import Any

from sidecar.context import CallContext, Handler
from sidecar.protocol.commands import EventsForget


async def forget(ctx: CallContext, arguments: EventsForget) -> dict[str, Any]:
    """See `EventsForget`."""
    await ctx.started()
    ctx.means.forget_reader(arguments.reader)
    return {}


HANDLERS: dict[str, Handler] = {"events.forget": forget}
