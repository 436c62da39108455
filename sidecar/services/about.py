"""`sidecar.info` and `sidecar.ping`: who is here, and is anybody here."""

from __future__ import annotations

from typing import Any

from sidecar.context import CallContext, Handler
from sidecar.protocol import envelope as wire
from sidecar.protocol.commands import Nothing, Ping


async def info(ctx: CallContext, arguments: Nothing) -> dict[str, Any]:
    """What this sidecar is, can do, and has done so far. What hands can do is left out while it
    is away, which `hands.state` says: who asks wants to know why nothing works."""
    found = dict(ctx.means.facts())
    if ctx.hands.status()["state"] == "connected":
        found["capabilities"] = {
            name: wire.sentence(value) if isinstance(value, str) else value  # maybe no UTF-8
            for name, value in (await ctx.hands.capabilities()).items()
        }
    return found


async def ping(ctx: CallContext, arguments: Ping) -> dict[str, Any]:
    """A round trip through everything but the workspace."""
    return {"pong": arguments.payload, "time_ms": int(ctx.means.clock.wall() * 1000)}


HANDLERS: dict[str, Handler] = {"sidecar.info": info, "sidecar.ping": ping}
