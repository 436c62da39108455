"""What the programs that a sidecar runs do to the sidecar itself, when they behave badly.

Each is bounded so that the machine outlives it, even with a sidecar that reaps and kills nothing:
loops end with the one who started them, and where there are many processes; what eats memory has
a limit. Hub and controller share the machine with them here, which they do not in a sandbox.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from tests.bench.measure import MIB, Scale, ms, percentile, probe
from tests.bench.report import Row, at_most
from tests.bench.stage import Stage

CROWD = 4000  # threads of the machine, with zombies (proc(5), loadavg)
LASTS = "[ -d /proc/$PPID ]"  # the sidecar; asked without a process
ROOM = f"read -r _ _ _ tasks _ </proc/loadavg && [ ${{tasks#*/}} -lt {CROWD} ]"
FORKS = f"while {LASTS} && {ROOM}; do (/bin/true &); done"  # each child is an orphan at once
AT_ONCE = 4  # twice the cores of the machine that the goals are for
SETTLE = 0.3  # seconds until a neighbour does what it does


def _several(loop: str) -> str:
    return " ".join(f"({loop}) &" for _ in range(AT_ONCE)) + " wait"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A program, and what it is called in the report."""

    what: str
    shell: str


NEIGHBOURS = (
    Neighbour("nothing", "sleep 600"),
    Neighbour("output without end", "cat /dev/zero"),
    Neighbour("lines without end", f"while {LASTS}; do echo line; echo line >&2; done"),
    Neighbour("forks without end", _several(FORKS)),
    Neighbour(
        # Not by `limits`: they come right after the start, which is too late for the machine.
        "memory without end",
        f"ulimit -v {MIB}; while {LASTS}; do tail /dev/zero; done",  # KiB
    ),
    Neighbour("work without end", _several(f"while {LASTS}; do :; done")),
)


async def pings(here: Stage, scale: Scale) -> list[Row]:
    """Round trips beside each of them."""
    rows = []
    for neighbour in NEIGHBOURS:
        async with _running(here, neighbour):
            await anyio.sleep(min(SETTLE, scale.beside))
            taken = await probe(here.run.ping, scale.beside * scale.rounds)
        rows.append(
            Row(
                "beside",
                f"ping beside a program that makes {neighbour.what}, p99",
                percentile(taken, 0.99) * 1e3,
                at_most(15),
                "ms",
                sides={"p50": ms(taken), "samples": str(len(taken))},
            )
        )
    return rows


@asynccontextmanager
async def _running(here: Stage, neighbour: Neighbour) -> AsyncIterator[None]:
    program = await here.run.start(neighbour.shell)
    try:
        yield
        [state] = [one.state for one in await here.run.processes() if one.id == program.id]
        assert state == "running", f"{neighbour.what}: it has ended, so nothing was measured"
    finally:
        await program.kill(grace=0)
