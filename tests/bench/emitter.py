"""A sidecar with two commands more: `bench.emit` journals as many events as it is told,
`bench.tick` a thousand a second.

`python -m tests.bench.emitter`; with BENCH_RECORDS=1 each event is a hub message of its own.
"""

from __future__ import annotations

import os
import time
from typing import Any

import anyio
import anyio.lowlevel

from sidecar import catalogue, readers, runtime
from sidecar.context import Bound, CallContext
from sidecar.protocol import envelope as wire
from sidecar.protocol.effects import Effect
from sidecar.settings import load

RECORDS = "BENCH_RECORDS"
NAME, DATA = "bench.event", bytes(160)  # 200 bytes, encoded
TICK = "bench.tick"
TOGETHER = 64  # events appended before others get a turn

_bound_commands = catalogue.bound_commands


async def emit(ctx: CallContext, arguments: Any) -> dict[str, Any]:
    for number in range(arguments["count"]):
        ctx.means.emit(NAME, DATA)
        if number % TOGETHER == 0:
            await anyio.lowlevel.checkpoint()
    return {}


async def tick(ctx: CallContext, arguments: Any) -> None:
    """A thousand events a second, each with its time, until cancelled."""
    while True:
        ctx.means.emit(TICK, time.monotonic())
        await anyio.sleep(0.001)


def with_emit() -> dict[str, Bound]:
    more = {"bench.emit": emit, "bench.tick": tick}
    bound = {name: Bound(name, Effect.WRITE, wire.loads, work) for name, work in more.items()}
    return {**_bound_commands(), **bound}


if __name__ == "__main__":
    readers.RECORDS = int(os.environ.pop(RECORDS, readers.RECORDS))
    catalogue.bound_commands = with_emit
    anyio.run(runtime.run, load(os.environ))
