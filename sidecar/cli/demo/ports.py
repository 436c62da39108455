"""The sidecar listens on no network port.

The same look has to find the port of the hub in this process; otherwise it has seen nothing.
"""

from __future__ import annotations

import os

import anyio.to_thread

from sidecar.cli.demo.report import Line, first_problem
from sidecar.cli.demo.sockets import listeners_of
from sidecar.cli.demo.stage import Stage


async def look_for_ports(stage: Stage) -> list[Line]:
    """Look at the sidecar, and at ourselves to know that looking works."""
    promise = "the sidecar listens on no port"
    ours = await anyio.to_thread.run_sync(listeners_of, os.getpid())
    theirs = await anyio.to_thread.run_sync(listeners_of, stage.child.pid, stage.earlier)
    names = ", ".join(map(str, theirs)) or "none"
    stage.screen.say(f"listening sockets: sidecar {names}; hub {', '.join(map(str, ours))}")
    problem = first_problem(
        (stage.hub.port in [listener.port for listener in ours], "the hub's own port was not seen"),
        (not theirs, f"it listens on {names}"),
    )
    figure = f"{len(theirs)} listening sockets (the hub has {len(ours)})"
    return [Line("ports", promise, figure, problem)]
