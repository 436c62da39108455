"""`python -m tests.bench [NAME…]`: measure, print a table of ratios, write them as JSON.

Absolute times are shown, not required. A goal that is missed is told in the table and is no error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import anyio

from sidecar.allocator import tune_malloc
from tests.bench import (
    beside,
    container,
    contest,
    events,
    filecontest,
    files,
    journal,
    life,
    pauses,
    programs,
)
from tests.bench.measure import MIB, TINY, Scale
from tests.bench.report import Row, document, table

Benchmark = Callable[[Scale], Awaitable[list[Row]]]

BENCHMARKS: dict[str, Benchmark] = {
    "exec": programs.exec_true,
    "spawn": programs.spawn_inside,
    "output": programs.output,
    "programs": contest.programs,
    "files": files.transfer,
    "transfers": filecontest.contest,
    "memory": files.memory,
    "codecs": files.codecs,
    "events": events.small_events,
    "journal": journal.journal,
    "beside": beside.latency,
    "pauses": pauses.pauses,
    "heal": pauses.heal,
    "start": life.start,
    "idle": life.idle,
    "container": container.container,
}
LIMIT = 900.0  # seconds for one benchmark


async def measure(names: list[str], scale: Scale, rows: list[Row]) -> None:
    """Adds to `rows` after each benchmark, so that a failure costs only what comes after it."""
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        with anyio.fail_after(LIMIT):
            rows += await BENCHMARKS[name](scale)


def main() -> None:
    order = _parser().parse_args()
    if order.list:
        for name, benchmark in BENCHMARKS.items():
            print(f"{name:9} {(benchmark.__doc__ or '').strip()}")
        return
    scale = TINY if order.tiny else Scale()
    if order.rounds:
        scale = replace(scale, rounds=order.rounds, starts=order.rounds)
    if order.output:
        scale = replace(scale, output_bytes=(10 * MIB, order.output * MIB))
    tune_malloc()
    rows: list[Row] = []
    try:
        anyio.run(measure, order.names or list(BENCHMARKS), scale, rows)
    finally:
        print(table(rows))
        if order.json:
            order.json.write_text(document(rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    parser.add_argument("--rounds", type=int, metavar="N", help="7 unless told")
    parser.add_argument("--output", type=int, metavar="MIB", help="of a program; 256 unless told")
    parser.add_argument("--tiny", action="store_true", help="only see that everything works")
    parser.add_argument("--list", action="store_true", help="name the benchmarks")
    return parser


if __name__ == "__main__":
    main()
