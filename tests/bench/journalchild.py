"""A process that fills a journal and is gone, or opens one and says what memory that took.

`python -m tests.bench.journalchild fill|open FOLDER COUNT`
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import anyio

from sidecar.allocator import tune_malloc
from sidecar.clock import SystemClock
from sidecar.durable.journal import open_journal
from sidecar.durable.writer import LogWriter
from sidecar.identity import new_id
from tests.bench.measure import forget_peak, status

TOGETHER = 512


async def fill(folder: Path, count: int) -> None:
    """As if it were killed when all is written."""
    clock = SystemClock()
    event = b"e" * 200
    journal = await open_journal(folder, LogWriter(), clock, new_series=lambda: new_id(clock))
    for number in range(count):
        seq = journal.append(lambda seq: event)
        if number % TOGETHER == 0:
            await journal.wait(seq - 1)
    await journal.wait(journal.last - 1)
    os._exit(0)


async def open_it(folder: Path, count: int) -> None:
    clock = SystemClock()
    async with LogWriter() as writer:
        small = await open_journal(
            folder.with_name("small"), writer, clock, new_series=lambda: new_id(clock)
        )
        await small.aclose()  # everything is loaded, and the threads run
        gc.collect()
        forget_peak(os.getpid())
        before = status(os.getpid(), "VmRSS")
        journal = await open_journal(folder, writer, clock, new_series=lambda: new_id(clock))
        assert journal.last == count
        print(status(os.getpid(), "VmHWM") - before)
        await journal.aclose()


if __name__ == "__main__":
    tune_malloc()
    work, folder, count = sys.argv[1:]
    anyio.run(fill if work == "fill" else open_it, Path(folder), int(count))
