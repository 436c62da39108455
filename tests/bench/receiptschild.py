"""A process that fills a log of receipts and is gone, or opens one and says what memory that took.

`python -m tests.bench.receiptschild fill|open FOLDER COUNT`
"""

from __future__ import annotations

import gc
import os
import sys
import time
from itertools import count
from pathlib import Path

import anyio

from sidecar.allocator import tune_malloc
from sidecar.clock import SystemClock
from sidecar.durable.receipts import DiskReceipts, open_receipts
from sidecar.durable.writer import LogWriter
from sidecar.protocol.ids import uuid7
from sidecar.protocol.receipts import Terms
from tests.bench.measure import forget_peak, status

ANSWER = b"a" * 300
AT_ONCE = 64


async def fill(folder: Path, receipts: int) -> None:
    """As if it were killed after half as many calls again as are remembered."""
    made = await open_receipts(folder, LogWriter(), SystemClock(), max_receipts=receipts)
    numbers = count(int(time.time() * 1000) - 1_000_000)
    async with anyio.create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(_call, made, numbers, receipts * 3 // 2 // AT_ONCE)
    os._exit(0)


async def _call(made: DiskReceipts, numbers: count[int], times: int) -> None:
    for _ in range(times):
        id, wall = uuid7(millis=next(numbers), random=os.urandom(10)), time.time()
        terms = Terms("exec.run", wall, wall + 60, wall + 60, 1 << 20)
        await made.begin(id, os.urandom(32), now_wall=wall, terms=terms)
        await made.started(id)
        await made.end(id, ANSWER, now_wall=wall)
        await made.tidy()


async def open_it(folder: Path, receipts: int) -> None:
    clock = SystemClock()
    async with LogWriter() as writer:
        small = await open_receipts(folder.with_name("small"), writer, clock)
        await small.aclose()  # everything is loaded, and the threads run
        gc.collect()
        forget_peak(os.getpid())
        before = status(os.getpid(), "VmRSS")
        found = await open_receipts(folder, writer, clock, max_receipts=receipts)
        print(status(os.getpid(), "VmHWM") - before)
        await found.aclose()


if __name__ == "__main__":
    tune_malloc()
    work, folder, number = sys.argv[1:]
    anyio.run(fill if work == "fill" else open_it, Path(folder), int(number))
