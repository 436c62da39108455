"""`sidecar.info` and `sidecar.ping`: who is here, and is anybody here."""

from __future__ import annotations

from typing import Any

from sidecar.context import CallContext, Handler
from sidecar.protocol.commands import Nothing, Ping


async def info(ctx: CallContext, arguments: Nothing) -> dict[str, Any]:
    """What this sidecar is, can do, and has done so far."""
    capabilities = await ctx.hands.capabilities()
    return {**ctx.means.facts(), "capabilities": dict(capabilities)}


async def ping(ctx: CallContext, arguments: Ping) -> dict[str, Any]:
    """A round trip through everything but the workspace."""
    return {"pong": arguments.payload, "time_ms": int(ctx.means.clock.wall() * 1000)}


HANDLERS: dict[str, Handler] = {"sidecar.info": info, "sidecar.ping": ping}
