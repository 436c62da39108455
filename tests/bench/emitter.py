"""A sidecar with one command more: `bench.emit`, which journals as many events as it is told.

`python -m tests.bench.emitter`; with BENCH_RECORDS=1 each event is a hub message of its own.
"""

from __future__ import annotations

import os
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
TOGETHER = 64  # events appended before others get a turn

_bound_commands = catalogue.bound_commands


async def emit(ctx: CallContext, arguments: Any) -> dict[str, Any]:
    for number in range(arguments["count"]):
        ctx.means.emit(NAME, DATA)
        if number % TOGETHER == 0:
            await anyio.lowlevel.checkpoint()
    return {}


def with_emit() -> dict[str, Bound]:
    bound = Bound("bench.emit", Effect.WRITE, wire.loads, emit)
    return {**_bound_commands(), bound.name: bound}


if __name__ == "__main__":
    readers.RECORDS = int(os.environ.pop(RECORDS, readers.RECORDS))
    catalogue.bound_commands = with_emit
    anyio.run(runtime.run, load(os.environ))
