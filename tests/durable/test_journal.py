"""The journal on disk: what it keeps, what it says when it cannot, and what a start finds."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from disks import FullDisk, MortalDisk
from journals import opened

from sidecar.clock import SystemClock
from sidecar.durable import writing
from sidecar.durable.disk import Disk
from sidecar.durable.journal import DiskJournal, open_journal
from sidecar.durable.writer import LogWriter
from sidecar.identity import new_id
from sidecar.journal import Journal
from sidecar.protocol.journal import Batch, Gap, GapReason
from sidecar.protocol.segments import HEADER_BYTES, scan
from sidecar.statefolder import StateUnusable

BOOT = b"b" * 16


def sized(size: int) -> Callable[[int], bytes]:
    return lambda seq: f"{seq}:".encode().ljust(size, b".")


async def fill(journal: DiskJournal, count: int, size: int = 100) -> None:
    for _ in range(count):
        journal.append(sized(size))
    await written(journal)


async def written(journal: DiskJournal) -> None:
    with anyio.fail_after(5):
        await journal.wait(journal.last - 1)


async def healed(journal: DiskJournal) -> None:
    with anyio.fail_after(5):
        while not journal.durable:  # noqa: ASYNC110 - it is told as an event, which comes later
            await anyio.sleep(0.001)


async def degraded(journal: DiskJournal) -> None:
    with anyio.fail_after(5):
        while journal.durable:  # noqa: ASYNC110
            await anyio.sleep(0.001)


async def read_all(journal: DiskJournal, after: int = 0) -> list[int | Gap]:
    """Numbers and gaps, as a reader is given them; the records are what they should be."""
    told: list[int | Gap] = []
    while True:
        batch = await journal.read(after, max_bytes=10_000, max_records=50)
        if batch.gap is not None:
            told.append(batch.gap)
        for seq, record in batch.records:
            assert record.startswith(f"{seq}:".encode())
            told.append(seq)
        after = batch.cursor
        if not batch.more:
            return told


@pytest.fixture
def fast_healing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "RETRY_FIRST", 0.005)
    monkeypatch.setattr(writing, "RETRY_MOST", 0.005)


def segments_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))


# as it should be ---------------------------------------------------------------------------


async def test_events_and_acks_outlive_the_process(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        plain: Journal = journal
        journal.open_reader("platform", after=None)
        await fill(journal, 5)
        journal.ack("platform", 3)
        assert (plain.durable, plain.first, plain.last, plain.written) == (True, 1, 5, 5)
        series = plain.series
    async with opened(tmp_path) as journal:
        assert journal.series == series
        assert (journal.first, journal.last, journal.acked) == (1, 5, 3)
        assert await read_all(journal) == [1, 2, 3, 4, 5]
        assert journal.open_reader("platform", after=None).cursor == 3
        journal.forget("platform")
    async with opened(tmp_path) as journal:
        assert journal.acked is None


async def test_an_event_is_read_once_it_is_written_and_not_before(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        journal.append(sized(10))
        assert await journal.read(0, max_bytes=99, max_records=9) == Batch([], None, 0, more=False)
        await journal.wait(0)
        batch = await journal.read(0, max_bytes=99, max_records=9)
        assert batch == Batch([(1, b"1:........")], None, 1, more=False)


async def test_written_events_are_synced_soon_after(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await fill(journal, 3)
        with anyio.fail_after(5):
            await journal.wait_synced(3)
        assert journal.synced == 3


async def test_what_memory_no_longer_has_is_read_from_disk(tmp_path: Path) -> None:
    async with opened(tmp_path, tail_bytes=300, segment_bytes=5000) as journal:
        await fill(journal, 500)
        assert len(segments_of(tmp_path)) > 5
        assert await read_all(journal) == list(range(1, 501))
        assert await read_all(journal, after=321) == list(range(322, 501))
        batch = await journal.read(7, max_bytes=1000, max_records=3)
        assert [seq for seq, _ in batch.records] == [8, 9, 10]
        assert batch.more
        batch = await journal.read(7, max_bytes=250, max_records=30)
        assert [seq for seq, _ in batch.records] == [8, 9]
        batch = await journal.read(7, max_bytes=50, max_records=30)
        assert batch == Batch([], None, 7, more=True)


async def test_at_its_bound_it_lets_whole_segments_go(tmp_path: Path) -> None:
    async with opened(tmp_path, tail_bytes=300, segment_bytes=2000, max_events=100) as journal:
        journal.open_reader("platform", after=None)
        await fill(journal, 50)
        journal.ack("platform", 49)
        assert journal.lost is None
        for _ in range(10):
            await fill(journal, 30)
        assert 80 < journal.last - journal.first <= 100
        gap = Gap(1, journal.first - 1, 100 * (journal.first - 1), GapReason.EVICTED)
        assert await read_all(journal) == [gap, *range(journal.first, 351)]
        lost_bytes = 100 * (journal.first - 1 - 49)
        assert journal.lost == Gap(50, journal.first - 1, lost_bytes, GapReason.EVICTED)
    async with opened(tmp_path) as again:
        assert again.first == journal.first
        assert (await read_all(again))[0] == gap


async def test_nothing_is_let_go_before_the_bound(tmp_path: Path) -> None:
    async with opened(tmp_path, segment_bytes=2000) as journal:
        journal.open_reader("platform", after=None)
        await fill(journal, 100)
        journal.ack("platform", 100)
        assert journal.first == 1


# a disk that fails -------------------------------------------------------------------------


async def test_a_full_disk_is_told_outlived_and_healed(tmp_path: Path, fast_healing: None) -> None:
    disk = FullDisk()
    async with opened(tmp_path, disk=disk) as journal:
        told: list[tuple[str, Any]] = []
        journal.announce(lambda name, data, *, call=None: told.append((name, data)) or 0)
        await fill(journal, 3)
        disk.room = 50
        await fill(journal, 3)
        assert not journal.durable
        assert journal.degraded == "No space left on device"
        assert told == [("journal.degraded", {"error": "ENOSPC", "reason": journal.degraded})]
        assert await read_all(journal) == [1, 2, 3, 4, 5, 6]
        disk.room = 10_000
        await healed(journal)
        assert told[1:] == [("journal.healed", {"dropped_bytes": 0})]
        frames = segments_of(tmp_path)[0].read_bytes()[HEADER_BYTES:]
        assert scan(frames).used == len(frames), "what did not fit was left there"
        await fill(journal, 1)
        series = journal.series
    async with opened(tmp_path) as journal:
        assert journal.series == series
        assert await read_all(journal) == [1, 2, 3, 4, 5, 6, 7]


async def test_what_memory_has_no_room_for_is_a_gap_now_and_for_ever(
    tmp_path: Path, fast_healing: None
) -> None:
    disk = FullDisk()
    async with opened(tmp_path, disk=disk, tail_bytes=200, memory_bytes=500) as journal:
        await fill(journal, 5)
        disk.room = 0
        await fill(journal, 1)
        for _ in range(20):
            await fill(journal, 1)
        gap = Gap(6, 21, 1600, GapReason.DISK)
        expected = [1, 2, 3, 4, 5, gap, 22, 23, 24, 25, 26]
        assert await read_all(journal) == expected
        disk.room = 100_000
        await healed(journal)
        assert await read_all(journal) == expected
        assert (await read_all(journal, after=9))[0] == Gap(10, 21, None, GapReason.DISK)
    async with opened(tmp_path) as journal:
        assert await read_all(journal) == expected


async def test_healing_a_long_backlog_lets_others_have_their_turn(
    tmp_path: Path, fast_healing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.durable.journal.REFILL_BYTES", 4000)
    disk = FullDisk()
    async with opened(tmp_path, disk=disk, tail_bytes=500) as journal:
        await fill(journal, 1)
        disk.room = 0
        for _ in range(100):
            await fill(journal, 1)
        disk.room = 100_000
        healing_began = journal.last
        while not journal.durable:
            await fill(journal, 1)  # in the middle of it
            assert await read_all(journal) == list(range(1, journal.last + 1))
            await anyio.sleep(0.001)
        assert journal.last > healing_began
        series = journal.series
    async with opened(tmp_path) as again:
        assert again.series == series
        assert await read_all(again) == list(range(1, journal.last + 1))


async def test_killed_while_the_disk_is_full_it_begins_a_new_series(tmp_path: Path) -> None:
    disk = FullDisk()
    async with LogWriter(sync_delay=0.0) as writer:
        clock = SystemClock()
        journal = await open_journal(
            tmp_path, writer, clock, new_series=lambda: new_id(clock), disk=disk, boot=BOOT
        )
        await fill(journal, 3)
        disk.room = 0
        await fill(journal, 2)
        series = journal.series
        disk.error = errno.EIO  # nothing of what it does from here on reaches the disk
        await journal.aclose()
    async with opened(tmp_path) as journal:
        assert journal.series != series
        reader = journal.open_reader(None, after=5, series=series)
        first = await reader.read(max_bytes=999, max_records=9)
        assert first.gap == Gap(4, None, None, GapReason.NEW_SERIES)
        await fill(journal, 1)
        assert (await reader.read(max_bytes=999, max_records=9)).records == [(4, sized(100)(4))]


async def test_a_disk_that_cannot_even_be_marked_changes_the_series_on_the_spot(
    tmp_path: Path, fast_healing: None
) -> None:
    disk = FullDisk()
    async with opened(tmp_path, disk=disk) as journal:
        before = journal.series
        reader = journal.open_reader(None, after=0)
        await fill(journal, 3)
        assert len((await reader.read(max_bytes=999, max_records=2)).records) == 2
        disk.error = errno.EROFS
        await fill(journal, 2)
        assert journal.degraded == "Read-only file system"
        assert journal.series != before
        change = await reader.read(max_bytes=999, max_records=9)
        assert change.gap == Gap(4, None, None, GapReason.NEW_SERIES)
        assert reader.series == journal.series
        rest = await reader.read(max_bytes=999, max_records=9)
        assert [seq for seq, _ in rest.records] == [3, 4, 5]
        disk.error = None
        await healed(journal)
        series = journal.series
    async with opened(tmp_path) as journal:
        assert journal.series == series
        assert await read_all(journal) == [1, 2, 3, 4, 5]


async def test_a_sync_that_fails_is_a_failing_disk(tmp_path: Path, fast_healing: None) -> None:
    disk = FullDisk()
    async with opened(tmp_path, disk=disk) as journal:
        await fill(journal, 1)
        disk.sync_error = errno.EIO
        await fill(journal, 1)
        await degraded(journal)
        assert journal.degraded == "Input/output error"
        disk.sync_error = None
        await healed(journal)
        assert await read_all(journal) == [1, 2]


async def test_a_disk_that_is_full_from_the_start_is_no_reason_not_to_start(
    tmp_path: Path, fast_healing: None
) -> None:
    disk = FullDisk(room=0)
    async with opened(tmp_path / "journal", disk=disk) as journal:
        await fill(journal, 2)
        assert not journal.durable
        assert await read_all(journal) == [1, 2]
        disk.room = 100_000
        await healed(journal)
    async with opened(tmp_path / "journal") as journal:
        assert await read_all(journal) == [1, 2]


class SlowDisk(Disk):
    """Writes when it is allowed to."""

    def __init__(self) -> None:
        self.may_write = threading.Event()

    def write(self, fd: int, data: bytes, offset: int) -> None:
        self.may_write.wait(10)
        super().write(fd, data, offset)


async def test_a_disk_that_hangs_costs_a_bounded_amount_of_memory(tmp_path: Path) -> None:
    disk = SlowDisk()
    disk.may_write.set()
    async with opened(tmp_path, disk=disk, memory_bytes=500) as journal:
        await fill(journal, 1)
        disk.may_write.clear()
        for _ in range(100):
            journal.append(sized(100))
            await anyio.lowlevel.checkpoint()
        assert journal.written == 1
        disk.may_write.set()
        await written(journal)
        await fill(journal, 1)
        told = await read_all(journal)
        [gap] = [item for item in told if isinstance(item, Gap)]
        assert gap.why is GapReason.DISK and gap.to_seq == 101
        assert gap.bytes == 100 * (gap.to_seq - gap.from_seq + 1)
        assert told == [*range(1, gap.from_seq), gap, 102]
    async with opened(tmp_path) as journal:
        assert await read_all(journal) == told


# what a start finds ------------------------------------------------------------------------


@asynccontextmanager
async def killed(folder: Path, **options: Any) -> AsyncIterator[DiskJournal]:
    """A journal whose process ends without a word."""
    clock = SystemClock()
    disk = MortalDisk(folder)
    async with LogWriter(sync_delay=0.0) as writer:
        options = {"boot": BOOT, "new_series": lambda: new_id(clock), "disk": disk, **options}
        yield await open_journal(folder, writer, clock, **options)
        disk.bury()


async def test_a_torn_end_is_cut(tmp_path: Path) -> None:
    async with killed(tmp_path) as journal:
        await fill(journal, 3)
        series = journal.series
    [segment] = segments_of(tmp_path)
    size = segment.stat().st_size
    with segment.open("ab") as file:
        file.write(b"torn")
    async with opened(tmp_path) as journal:
        assert journal.series == series
        assert segment.stat().st_size == size
        await fill(journal, 1)
        assert await read_all(journal) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "boot, goes_on", [(BOOT, True), (b"o" * 16, False)], ids=["killed", "rebooted"]
)
async def test_numbers_go_on_after_a_kill_and_have_a_new_series_after_a_power_cut(
    tmp_path: Path, boot: bytes, goes_on: bool
) -> None:
    async with killed(tmp_path) as journal:
        journal.open_reader("platform", after=None)
        await fill(journal, 3)
        series = journal.series
    async with opened(tmp_path, boot=boot) as journal:
        assert (journal.series == series) is goes_on
        await fill(journal, 1)
        assert await read_all(journal) == [1, 2, 3, 4]
        assert journal.acked == 0


async def test_numbers_go_on_after_a_reboot_in_order(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await fill(journal, 3)
        series = journal.series
    async with opened(tmp_path, boot=b"o" * 16) as journal:
        assert journal.series == series


async def test_a_cursor_knows_its_place_in_a_series_that_took_over(tmp_path: Path) -> None:
    async with killed(tmp_path) as journal:
        await fill(journal, 3)
        first = journal.series
    async with opened(tmp_path, boot=b"o" * 16) as journal:
        await fill(journal, 2)
    async with killed(tmp_path, boot=b"o" * 16) as journal:
        pass
    async with opened(tmp_path, boot=b"p" * 16) as journal:
        reader = journal.open_reader(None, after=1, series=first)
        told = await reader.read(max_bytes=999, max_records=9)
        assert told == Batch([], Gap(4, None, None, GapReason.NEW_SERIES), 1, more=True)
        assert (await reader.read(max_bytes=999, max_records=9)).records[0][0] == 2
        stranger = journal.open_reader(None, after=7, series=b"?" * 16)
        told = await stranger.read(max_bytes=999, max_records=9)
        assert told == Batch([], Gap(8, None, None, GapReason.NEW_SERIES), 0, more=True)


def damage(segment: Path, number: int) -> None:
    """Change a byte in the payload of event `number`."""
    data = bytearray(segment.read_bytes())
    data[data.index(f"{number}:...".encode()) + 20] ^= 1
    segment.write_bytes(data)


async def test_damage_of_one_event_costs_that_event(tmp_path: Path) -> None:
    async with opened(tmp_path, tail_bytes=100, segment_bytes=1000) as journal:
        await fill(journal, 30)
        series = journal.series
    damage(segments_of(tmp_path)[1], 12)
    async with opened(tmp_path) as journal:
        assert journal.series == series
        expected = [*range(1, 12), Gap(12, 12, None, GapReason.CORRUPT), *range(13, 31)]
        assert await read_all(journal) == expected
        assert [path.name for path in tmp_path.glob("*.corrupt")] == [
            "0000000000000002.log.corrupt"
        ]
        assert await read_all(journal) == expected
    async with opened(tmp_path) as journal:
        assert await read_all(journal) == expected


async def test_damage_that_hides_what_follows_costs_the_rest_of_its_segment(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, tail_bytes=100, segment_bytes=1000) as journal:
        await fill(journal, 30)
    segment = segments_of(tmp_path)[1]
    data = segment.read_bytes()
    at = data.index(b"12:..")
    segment.write_bytes(data[:at] + bytes(300) + data[at + 300 :])
    async with opened(tmp_path) as journal:
        told = await read_all(journal)
        [gap] = [item for item in told if isinstance(item, Gap)]
        assert (gap.from_seq, gap.why) == (12, GapReason.CORRUPT)
        assert gap.to_seq is not None and gap.to_seq < 20
        assert told == [*range(1, 12), gap, *range(gap.to_seq + 1, 31)]
        assert await read_all(journal) == told


async def test_a_segment_that_is_gone_is_a_gap(tmp_path: Path) -> None:
    async with opened(tmp_path, tail_bytes=100, segment_bytes=1000) as journal:
        await fill(journal, 30)
    segments_of(tmp_path)[1].unlink()
    async with opened(tmp_path) as journal:
        told = await read_all(journal)
        assert [item.why for item in told if isinstance(item, Gap)] == [GapReason.CORRUPT]


async def test_a_damaged_end_begins_a_new_series_and_keeps_what_is_before_it(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as journal:
        await fill(journal, 5)
        series = journal.series
    [segment] = segments_of(tmp_path)
    damage(segment, 5)
    told: list[tuple[str, Any]] = []
    async with opened(tmp_path) as journal:
        journal.announce(lambda name, data, *, call=None: told.append((name, data)) or 0)
        assert journal.series != series
        assert await read_all(journal) == [1, 2, 3, 4]
        await fill(journal, 1)
        assert await read_all(journal) == [1, 2, 3, 4, 5]
    assert [name for name, _ in told] == ["journal.corrupt", "journal.new_series"]
    assert told[1][1]["why"] == "its end is damaged"


async def test_only_the_latest_damaged_segments_are_kept(tmp_path: Path) -> None:
    for _ in range(6):
        async with opened(tmp_path) as journal:
            await fill(journal, 5)
        damage(segments_of(tmp_path)[-1], journal.last)
    async with opened(tmp_path) as journal:
        assert len(list(tmp_path.glob("*.corrupt"))) == 4
        assert await read_all(journal) == list(range(1, 25))


@pytest.mark.parametrize("name", ["mark", "0000000000000001.log"])
async def test_what_a_newer_version_wrote_is_refused_with_the_way_out(
    tmp_path: Path, name: str
) -> None:
    async with opened(tmp_path) as journal:
        await fill(journal, 1)
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    data[8] = 9
    path.write_bytes(data)
    with pytest.raises(StateUnusable, match="newer sidecar .format 9, this version reads up to 1"):
        async with opened(tmp_path):
            pass
    assert path.read_bytes() == data


# real processes and disks ------------------------------------------------------------------

APPENDER = """
import anyio, sys
from pathlib import Path
from sidecar.clock import SystemClock
from sidecar.durable.journal import open_journal
from sidecar.durable.writer import LogWriter
from sidecar.identity import new_id

async def main():
    clock = SystemClock()
    async with LogWriter() as writer:
        journal = await open_journal(
            Path(sys.argv[1]), writer, clock, new_series=lambda: new_id(clock), segment_bytes=20_000
        )
        while True:
            for _ in range(7):
                seq = journal.append(lambda seq: f"{seq}:".encode().ljust(100, b"."))
            await journal.wait(seq - 1)
            print(seq, journal.series.hex(), flush=True)

anyio.run(main)
"""


async def test_kill_9_in_the_middle_loses_nothing_that_was_written(tmp_path: Path) -> None:
    lines: list[str] = []
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process:
            lines += [process.stdout.readline() for _ in range(60)]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
    last, series = max((int(line.split()[0]), line.split()[1]) for line in lines if "\n" in line)
    async with opened(tmp_path, boot=None) as journal:
        assert journal.series.hex() == series
        assert journal.last >= last >= 4 * 60 * 7
        assert await read_all(journal) == list(range(1, journal.last + 1))


@pytest.mark.optional
async def test_a_small_file_system_that_fills_up_and_is_emptied(
    tmp_path: Path, fast_healing: None
) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if (await anyio.run_process(mount, check=False)).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        ballast = folder / "ballast"
        async with opened(folder / "journal") as journal:
            await fill(journal, 3)
            with ballast.open("wb", buffering=0) as file:
                with pytest.raises(OSError, match="No space left"):
                    while True:
                        file.write(bytes(4096))
            await fill(journal, 60)
            await degraded(journal)
            ballast.unlink()
            await healed(journal)
            await fill(journal, 1)
        async with opened(folder / "journal") as journal:
            assert await read_all(journal) == list(range(1, 65))
    finally:
        await anyio.run_process(["umount", str(folder)])
