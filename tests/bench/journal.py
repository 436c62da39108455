"""The journal on disk against SQLite, on the same disk and in the same process.

Events have 200 bytes. The journal is told of each alone, and groups by itself what comes in one
turn of the event loop; so it is measured in two forms: in bursts of 64 a turn, as a busy run has
them, and one a turn, where each turn costs us as much as the event. SQLite has a table of (number,
bytes) in WAL mode: NORMAL, which like our *written* survives the death of the process, and FULL,
which like *synced* survives a power cut. A start after a kill reads the last segment; SQLite is
asked for all it has, as a reader would. The other log that a start opens, that of the receipts, is
measured beside it.
"""

from __future__ import annotations

import gc
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel

from sidecar.clock import SystemClock
from sidecar.durable.journal import DiskJournal, open_journal
from sidecar.durable.writer import LogWriter
from sidecar.identity import new_id
from tests.bench import receipts
from tests.bench.measure import MIB, Scale, Side, interleave, percentile, ratio, seconds
from tests.bench.report import Row, at_least, at_most

EVENT = b"e" * 200
GROUP = 64
BATCH = 64 * 1024


async def journal(scale: Scale) -> list[Row]:
    """Events to disk: appended, synced in groups, found again, replayed; against SQLite."""
    with tempfile.TemporaryDirectory(prefix="bench-journal-") as folder:
        writing = await _writing(scale, Path(folder))
        latency = await _latency(scale, Path(folder))
        found = [await _recovery(scale, Path(folder), count) for count in scale.recoveries]
        found.append(await receipts.reopening(scale, Path(folder)))
    return [*writing, *latency, *(row for rows in found for row in rows)]


async def _open(folder: Path, writer: LogWriter) -> DiskJournal:
    clock = SystemClock()
    return await open_journal(folder, writer, clock, new_series=lambda: new_id(clock))


class Table:
    """What SQLite does for the same events."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute(f"PRAGMA synchronous={synchronous}")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS event (seq INTEGER PRIMARY KEY, x BLOB)"
        )

    def insert(self, count: int) -> None:
        execute = self._connection.execute
        execute("BEGIN")
        for _ in range(count):
            execute("INSERT INTO event (x) VALUES (?)", (EVENT,))
        execute("COMMIT")

    def scan(self) -> int:
        return sum(1 for _ in self._connection.execute("SELECT seq, x FROM event ORDER BY seq"))

    def close(self) -> None:
        self._connection.close()


async def _writing(scale: Scale, folder: Path) -> list[Row]:
    count = scale.journal - scale.journal % GROUP
    normal, full = Table(folder / "normal.db", "NORMAL"), Table(folder / "full.db", "FULL")
    async with LogWriter(sync_delay=0.0) as eager, LogWriter() as lazy:
        synced = await _open(folder / "synced", eager)
        written = await _open(folder / "written", lazy)

        async def append(a_turn: int) -> None:
            for number in range(count):
                written.append(lambda seq: EVENT)
                if number % a_turn == 0:
                    await anyio.lowlevel.cancel_shielded_checkpoint()
            await written.wait(written.last - 1)

        async def append_groups() -> None:
            for _ in range(count // GROUP):
                for _ in range(GROUP):
                    synced.append(lambda seq: EVENT)
                await synced.wait_synced(synced.last)

        async def insert() -> None:
            for _ in range(count):
                normal.insert(1)

        async def insert_together() -> None:
            for _ in range(count // GROUP):
                normal.insert(GROUP)

        async def insert_groups() -> None:
            for _ in range(count // GROUP):
                full.insert(GROUP)

        sides: dict[str, Callable[[], Awaitable[None]]] = {
            "journal, bursts": partial(append, GROUP),
            "journal, one a turn": partial(append, 1),
            "SQLite NORMAL": insert,
            "SQLite NORMAL, groups": insert_together,
            "journal, synced": append_groups,
            "SQLite FULL": insert_groups,
        }
        taken = await interleave(scale.rounds, {name: _timed(work) for name, work in sides.items()})
        await written.aclose()
        await synced.aclose()
    normal.close()
    full.close()
    speeds = {name: f"{count / statistics.median(times):.0f}/s" for name, times in taken.items()}
    together, alone = "journal, bursts", "journal, one a turn"

    def row(what: str, theirs: str, ours: str, goal: float | None) -> Row:
        return Row(
            "journal",
            what,
            ratio(taken[theirs], taken[ours]),
            None if goal is None else at_least(goal),
            sides={name: speeds[name] for name in (ours, theirs)},
            rounds=scale.rounds,
        )

    burst = f"append, {GROUP} a turn"
    return [
        row(f"{burst} / SQLite NORMAL", "SQLite NORMAL", together, 4),
        row("append, one a turn / SQLite NORMAL", "SQLite NORMAL", alone, 4),
        row(f"{burst} / SQLite NORMAL, as many", "SQLite NORMAL, groups", together, None),
        row(f"groups of {GROUP}, synced / SQLite FULL", "SQLite FULL", "journal, synced", 1.3),
    ]


def _timed(work: Callable[[], Awaitable[None]]) -> Side:
    async def run() -> float:
        gc.collect()
        return await seconds(work)

    return run


async def _latency(scale: Scale, folder: Path) -> list[Row]:
    """One event at a time, as they come from a run that is not busy."""
    written: list[float] = []
    synced: list[float] = []
    async with LogWriter() as writer:
        events = await _open(folder / "latency", writer)
        for _ in range(scale.rounds * scale.samples * 5):
            began = time.perf_counter()
            seq = events.append(lambda seq: EVENT)
            await events.wait(seq - 1)
            written.append(time.perf_counter() - began)
            await events.wait_synced(seq)
            synced.append(time.perf_counter() - began)
        await events.aclose()
    return [
        Row(
            "journal",
            f"append until {name}, p99",
            percentile(taken, 0.99) * 1e3,
            unit="ms",
            sides={"p50": f"{statistics.median(taken) * 1e3:.3f} ms"},
            rounds=len(taken),
        )
        for name, taken in (("written", written), ("synced", synced))
    ]


async def _recovery(scale: Scale, folder: Path, count: int) -> list[Row]:
    place = folder / f"of-{count}"
    table = Table(folder / f"of-{count}.db", "NORMAL")
    for _ in range(0, count, 10_000):
        table.insert(min(count, 10_000))
    await anyio.run_process(
        [sys.executable, "-m", "tests.bench.journalchild", "fill", place, str(count)]
    )
    replayed: list[float] = []

    async def recover() -> float:
        async with LogWriter() as writer:
            began = time.perf_counter()
            events = await _open(place, writer)
            took = time.perf_counter() - began
            assert events.last == count
            replayed.append(await seconds(lambda: _replay(events)))
            await events.aclose()
        return took

    async def scan() -> float:
        began = time.perf_counter()
        assert table.scan() == count
        return time.perf_counter() - began

    taken = await interleave(scale.rounds, {"journal": recover, "SQLite scan": scan})
    table.close()
    child = await anyio.run_process(
        [sys.executable, "-m", "tests.bench.journalchild", "open", place, str(count)]
    )
    sides = {name: f"{statistics.median(times) * 1e3:.1f} ms" for name, times in taken.items()}
    return [
        Row(
            "journal",
            f"recovery of {count} / SQLite scan",
            ratio(taken["journal"], taken["SQLite scan"]),
            at_most(1.3),
            sides=sides,
            rounds=scale.rounds,
        ),
        Row(
            "journal",
            f"memory of the recovery of {count}",
            int(child.stdout) / MIB,
            at_most(8),
            unit="MiB",
        ),
        Row(
            "journal",
            f"replay of {count} / SQLite scan",
            ratio(replayed, taken["SQLite scan"]),
            sides={"events": f"{count / statistics.median(replayed):.0f}/s"},
            rounds=scale.rounds,
        ),
    ]


async def _replay(events: DiskJournal) -> None:
    reader = events.open_reader(None, after=0)
    while reader.cursor < events.last:
        batch = await reader.read(max_bytes=BATCH, max_records=512)
        assert batch.gap is None and batch.records
        await anyio.lowlevel.cancel_shielded_checkpoint()
    reader.close()
