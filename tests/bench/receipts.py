"""A start that finds a full log of receipts, against SQLite which is asked for the same ones.

Answers have 300 bytes. The log was left by a process that was killed, and holds what calls had to
write, those that are forgotten too; the table holds a row for each call that is remembered.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import sys
import time
from pathlib import Path

import anyio

from sidecar.clock import SystemClock
from sidecar.durable.receipts import open_receipts
from sidecar.durable.writer import LogWriter
from tests.bench.measure import MIB, Scale, interleave, ratio
from tests.bench.receiptschild import ANSWER
from tests.bench.report import Row, at_most

MEMORY = 16  # MiB, at the peak of a start

Found = dict[bytes, tuple[bytes, int, float, int]]


def _table(path: Path, count: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(
        "CREATE TABLE receipt (id BLOB PRIMARY KEY, digest BLOB, state INTEGER, wall REAL, x BLOB)"
    )
    connection.execute("BEGIN")
    for _ in range(count):
        row = (os.urandom(16), os.urandom(32), 3, time.time(), ANSWER)
        connection.execute("INSERT INTO receipt VALUES (?, ?, ?, ?, ?)", row)
    connection.execute("COMMIT")
    return connection


def _scan(table: sqlite3.Connection) -> Found:
    rows = table.execute("SELECT id, digest, state, wall, length(x) FROM receipt")
    return {id: (digest, state, wall, size) for id, digest, state, wall, size in rows}


async def reopening(scale: Scale, folder: Path) -> list[Row]:
    """Calls wait for this after each start; events and hello do not."""
    count, place = scale.receipts, folder / "receipts"
    table = _table(folder / "receipts.db", count)
    await _child("fill", place, count)

    async def open_log() -> float:
        async with LogWriter() as writer:
            began = time.perf_counter()
            found = await open_receipts(place, writer, SystemClock(), max_receipts=count)
            took = time.perf_counter() - began
            assert found.is_whole
            await found.aclose()
        return took

    async def scan() -> float:
        began = time.perf_counter()
        assert len(_scan(table)) == count
        return time.perf_counter() - began

    taken = await interleave(scale.rounds, {"receipts": open_log, "SQLite scan": scan})
    table.close()
    memory = int(await _child("open", place, count))
    return [
        Row(
            "journal",
            f"opening {count} receipts / SQLite scan",
            ratio(taken["receipts"], taken["SQLite scan"]),
            sides={n: f"{statistics.median(times) * 1e3:.1f} ms" for n, times in taken.items()},
            rounds=scale.rounds,
        ),
        Row("journal", f"memory of {count} receipts", memory / MIB, at_most(MEMORY), "MiB"),
    ]


async def _child(work: str, folder: Path, count: int) -> bytes:
    done = await anyio.run_process(
        [sys.executable, "-m", "tests.bench.receiptschild", work, folder, str(count)]
    )
    return done.stdout
