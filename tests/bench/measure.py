"""How things are measured: interleaved rounds, medians, and what /proc says of a process.

Only ratios within one run mean anything on a shared machine. Both sides run in every round, the
order is turned round after each, and the reported ratio is the median of the rounds' ratios: what
disturbs one round disturbs both its sides.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio

KIB, MIB = 1024, 1024 * 1024

PAUSE = 0.005  # seconds between two probes

Side = Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything: enough to mean something, or little, to see that it works."""

    rounds: int = 7
    samples: int = 30  # of something short, in each round
    file_bytes: int = 100 * MIB
    contest_bytes: tuple[int, ...] = (KIB, MIB, 100 * MIB)  # of one file
    memory_bytes: tuple[int, ...] = (100 * MIB, 2048 * MIB)
    small_files: int = 10_000
    peer_files: int = 1_000  # of those, read or written one by one
    output_bytes: tuple[int, ...] = (10 * MIB, 256 * MIB)
    events: int = 5000
    journal: int = 20_000  # events, in each round
    recoveries: tuple[int, ...] = (100_000, 1_000_000)  # events that a start finds
    receipts: int = 16_384  # that a start finds: as many as are remembered
    starts: int = 9
    ballast: int = 250 * MIB
    idle: float = 10.0  # seconds of watching a process that does nothing
    beside: float = 3.0  # seconds of measuring latency, in each round
    at_once: int = 200  # programs
    settle: float = 10.5  # seconds that a link holds before it is struck
    token_life: float = 10.0
    away: tuple[float, ...] = (1.0, 10.0)  # seconds without the hub
    may_install: bool = True  # a peer to compare with, from the package index


TINY = Scale(
    rounds=1,
    samples=2,
    file_bytes=MIB,
    contest_bytes=(KIB, MIB),
    memory_bytes=(MIB,),
    small_files=30,
    peer_files=3,
    output_bytes=(MIB,),
    events=100,
    journal=256,
    recoveries=(500,),
    receipts=128,
    starts=1,
    ballast=MIB,
    idle=0.2,
    beside=0.1,
    at_once=4,
    settle=0.1,
    token_life=2.0,
    away=(0.2,),
    may_install=False,
)


async def interleave(rounds: int, sides: Mapping[str, Side]) -> dict[str, list[float]]:
    """What each side gave in each round."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for _ in range(rounds):
        for name in names:
            found[name].append(await sides[name]())
        names.reverse()
    return found


async def alternate(
    scale: Scale, works: Mapping[str, Callable[[], Awaitable[object]]]
) -> dict[str, list[float]]:
    """For what is short: the works take turns one by one, for a block of one kind finds caches and
    cores as it left them. What each took in each round, as the median of the round's samples."""
    sides = {name: partial(seconds, work) for name, work in works.items()}
    found = await interleave(scale.rounds * scale.samples, sides)
    step = scale.samples
    return {
        name: [statistics.median(taken[at : at + step]) for at in range(0, len(taken), step)]
        for name, taken in found.items()
    }


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


async def seconds(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def median_seconds(samples: int, work: Callable[[], Awaitable[object]]) -> float:
    return statistics.median([await seconds(work) for _ in range(samples)])


async def probe(work: Callable[[], Awaitable[object]], span: float) -> list[float]:
    """Seconds that each run of `work` took, for `span` seconds, at least one."""
    taken: list[float] = []
    end = time.perf_counter() + span
    while not taken or time.perf_counter() < end:
        began = time.perf_counter()
        await work()
        taken.append(time.perf_counter() - began)
        await anyio.sleep(PAUSE)
    return taken


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that `part` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def ms(values: Sequence[float]) -> str:
    return f"{statistics.median(values) * 1e3:.2f} ms"


def rate(size: int, values: Sequence[float]) -> str:
    return f"{size / statistics.median(values) / 1e6:.0f} MB/s"


# what /proc says (proc(5)) -----------------------------------------------------------------


def status(pid: int, name: str) -> int:
    """A field of /proc/PID/status: memory in bytes, anything else as it is."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * (KIB if value.endswith("kB") else 1)
    raise KeyError(name)


def forget_peak(pid: int) -> None:
    """Let VmHWM begin anew at what is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def wake_ups(pid: int) -> int:
    """How often the threads of a process went to sleep by themselves, so far."""
    return sum(
        int(line.split()[1])
        for task in Path(f"/proc/{pid}/task").iterdir()
        for line in (task / "status").read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )
