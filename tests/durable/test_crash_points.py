"""The process dies at every write and every sync of a journal's life, and the power goes there.

After a kill, everything that was *written* is there, under its number. After a power cut,
everything that was *synced*. Neither invents an event, and no number is given to a second one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from disks import MortalDisk

from sidecar.clock import SystemClock
from sidecar.durable import writing
from sidecar.durable.disk import Disk
from sidecar.durable.journal import DiskJournal, open_journal
from sidecar.durable.writer import LogWriter
from sidecar.identity import new_id
from sidecar.protocol.journal import GapReason
from sidecar.statefolder import StateUnusable

BOOT, OTHER_BOOT = b"b" * 16, b"o" * 16
EVENTS = 14


@dataclass
class Seen:
    """What anybody could know of the journal while it lived."""

    published: dict[bytes, int] = field(default_factory=dict)
    written: dict[bytes, int] = field(default_factory=dict)
    synced: dict[bytes, int] = field(default_factory=dict)
    had_room: bool = True

    def look(self, journal: DiskJournal, disk: MortalDisk) -> None:
        written, synced, durable = journal.written, journal.synced, journal.durable
        if disk.is_dead:
            return  # this is what the living would not have seen
        self.published[journal.series] = written
        if durable:
            self.written[journal.series] = written
            self.synced[journal.series] = synced


async def open_in(folder: Path, writer: LogWriter, disk: Disk, boot: bytes) -> DiskJournal:
    clock = SystemClock()
    return await open_journal(
        folder,
        writer,
        clock,
        new_series=lambda: new_id(clock),
        segment_bytes=300,
        tail_bytes=100,
        disk=disk,
        boot=boot,
    )


def event(seq: int) -> bytes:
    return f"event {seq} ".encode() * 4


async def live(folder: Path, disk: MortalDisk, seen: Seen, fills: bool) -> None:
    """A life of fourteen events, with a reader, until it dies or ends in order. If the disk
    `fills`, it has no room for some of them."""
    seen.had_room = not fills
    async with LogWriter(sync_delay=0.0) as writer:
        try:
            journal = await open_in(folder, writer, disk, BOOT)
        except StateUnusable:
            assert disk.is_dead
            disk.bury()
            return
        reader = journal.open_reader("platform", after=None)
        for number in range(EVENTS):
            if disk.is_dead:
                break
            disk.is_full = fills and 4 <= number < 10
            seq = journal.append(event)
            seen.look(journal, disk)
            if number % 3 == 2:
                with anyio.move_on_after(1):
                    await journal.wait(seq - 1)
                seen.look(journal, disk)
            if number % 5 == 4 and not disk.is_dead:
                batch = await reader.read(max_bytes=10_000, max_records=3)
                reader.ack(batch.cursor)
        with anyio.move_on_after(1):
            while not disk.is_dead and journal.synced < journal.last:
                await anyio.lowlevel.checkpoint()
        seen.look(journal, disk)
        if not disk.is_dead:
            await journal.aclose()
    disk.bury()


async def read_all(journal: DiskJournal, series: bytes) -> tuple[dict[int, bytes], set[int]]:
    """What a reader of `series` who has nothing yet is given, and the numbers it is told are
    gone. Together they are all."""
    reader = journal.open_reader(None, after=0, series=series)
    found: dict[int, bytes] = {}
    gone: set[int] = set()
    more = True
    while more:
        batch = await reader.read(max_bytes=1000, max_records=100)
        if batch.gap is not None and batch.gap.why is not GapReason.NEW_SERIES:
            assert batch.gap.to_seq is not None
            gone.update(range(batch.gap.from_seq, batch.gap.to_seq + 1))
        assert not found.keys() & {seq for seq, _ in batch.records}, "doubled"
        found.update(batch.records)
        more = batch.more
    reader.close()
    assert sorted([*found, *gone]) == list(range(1, journal.last + 1))
    return found, gone


async def check(folder: Path, seen: Seen, boot: bytes) -> None:
    async with LogWriter(sync_delay=0.0) as writer:
        journal = await open_in(folder, writer, Disk(), boot)
        for series, last in (seen.written if boot == BOOT else seen.synced).items():
            found, gone = await read_all(journal, series)
            assert not gone or boot != BOOT, "a kill damages nothing"
            for seq in range(1, last + 1):
                assert found[seq] == event(seq), "lost"
        if boot == BOOT and seen.had_room and any(seen.written.values()):
            assert journal.series in seen.written, "a kill needs no new series"
        for seq, record in (await read_all(journal, journal.series))[0].items():
            assert record == event(seq), "invented"
        assert seen.published.get(journal.series, 0) < journal.append(event), "a number twice"
        await journal.aclose()


def crashes(
    base: Path, *, lives_before: int = 0, part: float = 0.0, fills: bool = False
) -> Iterator[tuple[Path, MortalDisk, Seen]]:
    """A folder for each operation of a life, and a disk that dies there. Lives before it ended in
    order."""
    before = Seen()
    template, rehearsed = base / "template", base / "rehearsed"
    for _ in range(lives_before):
        anyio.run(live, template, MortalDisk(template), before, False)
    if lives_before:
        shutil.copytree(template, rehearsed)
    rehearsal = MortalDisk(rehearsed)
    anyio.run(live, rehearsed, rehearsal, Seen(), fills)
    for number in range(1, rehearsal.operations + 1):
        folder = base / f"life-{number}"
        if lives_before:
            shutil.copytree(template, folder)
        disk = MortalDisk(folder, dies_at=number, part=part)
        seen = deepcopy(before)
        anyio.run(live, folder, disk, seen, fills)
        yield folder, disk, seen


@pytest.mark.parametrize("part", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("lives_before", [0, 1])
def test_nothing_that_was_written_is_lost_by_a_kill_at_any_operation(
    tmp_path: Path, lives_before: int, part: float
) -> None:
    for folder, _, seen in crashes(tmp_path, lives_before=lives_before, part=part):
        anyio.run(check, folder, seen, BOOT)


@pytest.mark.parametrize("luck", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("lives_before", [0, 1])
def test_nothing_that_was_synced_is_lost_by_a_power_cut_at_any_operation(
    tmp_path: Path, lives_before: int, luck: float
) -> None:
    for folder, disk, seen in crashes(tmp_path, lives_before=lives_before):
        disk.cut_power(luck=luck)
        anyio.run(check, folder, seen, OTHER_BOOT)


@pytest.mark.parametrize("part", [0.0, 1.0])
@pytest.mark.parametrize(
    "boot", [pytest.param(BOOT, id="kill"), pytest.param(OTHER_BOOT, id="cut")]
)
def test_a_disk_that_was_full_meanwhile_makes_no_difference(
    tmp_path: Path, boot: bytes, part: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "RETRY_FIRST", 0.001)
    monkeypatch.setattr(writing, "RETRY_MOST", 0.001)
    for folder, disk, seen in crashes(tmp_path, lives_before=1, part=part, fills=True):
        if boot == OTHER_BOOT:
            disk.cut_power()
        anyio.run(check, folder, seen, boot)
