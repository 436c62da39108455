"""The journal on disk: a log of events, with the latest of them in memory.

    async with LogWriter() as writer:
        journal = await open_journal(folder / "journal", writer, clock, new_series=...)
        journal.announce(emit)
        ...
        await journal.aclose()

It needs no task of its own: the writer's threads come back to the event loop. Events can be read
once they are written. Those that the disk will not take are read from memory: the journal is then
not `durable`, says so with an event (`journal.degraded`), and with another one when it is again
(`journal.healed`). What memory has no room for meanwhile is a gap, `disk`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from sidecar.bell import Bell
from sidecar.clock import Clock
from sidecar.durable.disk import Disk
from sidecar.durable.found import Found
from sidecar.durable.log import Log
from sidecar.durable.notices import Notices
from sidecar.durable.recovery import Recovered, boot_id
from sidecar.durable.replay import Replay
from sidecar.durable.tail import Tail
from sidecar.durable.work import Fault
from sidecar.durable.writer import LogWriter
from sidecar.journal import Emit, Reader
from sidecar.protocol.ids import show
from sidecar.protocol.journal import Batch, Gap, GapReason, JournalProtocol, Kind, encode_gap
from sidecar.protocol.limits import (
    JOURNAL_BYTES,
    JOURNAL_EVENTS,
    KIB,
    MEMORY_JOURNAL_BYTES,
    MEMORY_JOURNAL_EVENTS,
    SEGMENT_BYTES,
    TAIL_BYTES,
)
from sidecar.protocol.segments import Heading
from sidecar.threads import in_thread

log = logging.getLogger(__name__)

REFILL_BYTES = 512 * KIB  # appended again in one turn of the event loop
EVENT_COST = 512  # an event counts for at least so much of it


class DiskJournal:
    """See `sidecar.journal.Journal`. Made by `open_journal`."""

    def __init__(
        self, *, max_bytes: int, max_events: int, tail_bytes: int, memory_bytes: int
    ) -> None:
        self._protocol = JournalProtocol(b"", max_bytes=max_bytes, max_events=max_events)
        self._log: Log
        self._replay: Replay
        self._tail = Tail()
        self._tail_bytes = tail_bytes
        self._memory_bytes = memory_bytes
        self._dropped_bytes = 0  # of the events between the disk's last and the tail's first
        self._lost_bytes = 0  # all that was dropped since the disk failed
        self._unkept = 0  # the first of the latest events that were not handed to the log
        self._refilling = 0  # the event that is being appended again
        self._fault: Fault | None = None
        self._notices = Notices()
        self._found = Found()
        self._grown = Bell()
        self._acked = Bell()

    # state --------------------------------------------------------------------------------

    @property
    def series(self) -> bytes:
        return self._protocol.series

    @property
    def durable(self) -> bool:
        return self._log.fault is None

    @property
    def first(self) -> int:
        return self._protocol.first

    @property
    def last(self) -> int:
        return self._protocol.last

    @property
    def written(self) -> int:
        return self._protocol.last if self._log.is_in_memory else self._log.written_number

    @property
    def synced(self) -> int:
        return self._log.synced_number

    @property
    def acked(self) -> int | None:
        return self._protocol.acked

    @property
    def lost(self) -> Gap | None:
        """What was evicted although a durable reader had not acked it."""
        return self._protocol.lost

    @property
    def degraded(self) -> str | None:
        """Why events live in memory only, as in "No space left on device"."""
        return None if self._log.fault is None else self._log.fault.reason

    def announce(self, emit: Emit) -> None:
        """Tell, as events, what befell the journal: since it was opened, and from now on."""
        self._notices.announce(emit)

    async def aclose(self) -> None:
        """Write and sync all. Shielded, and bounded. Nothing may be appended any more."""
        await self._log.aclose()

    # writing ------------------------------------------------------------------------------

    def append(self, encode: Callable[[int], bytes]) -> int:
        seq = self._protocol.last + 1
        record = encode(seq)
        self._protocol.check_size(len(record))
        self._hand_over(seq, record)
        self._protocol.appended(seq, len(record))
        self._trim_tail()
        if self._log.is_in_memory:
            self._grown.ring()
        return seq

    def _hand_over(self, seq: int, record: bytes) -> None:
        is_kept = self._log.is_in_memory or self._log.waiting_bytes <= self._memory_bytes
        if is_kept:
            self._tell_unkept()
            self._log.append(Kind.EVENT, record, seq)
        elif not self._unkept:
            log.error("the disk is too slow: events are dropped from %d on", seq)
            self._unkept = seq
        self._tail.append(record, is_kept=is_kept)

    def _tell_unkept(self) -> None:
        """The disk goes on: name what it was too slow for."""
        first, self._unkept = self._unkept, 0
        if first and not self._log.is_in_memory:
            self._append_gap(first)

    def _append_gap(self, first: int) -> int:
        """Let the log know of the events from `first` on that were not kept; the last of them."""
        last, size = self._tail.lost_from(first) or (first, 0)
        self._log.append(Kind.GAP, encode_gap(Gap(first, last, size, GapReason.DISK)), last)
        return last

    def _trim_tail(self) -> None:
        """Memory keeps what readers who have caught up want, and what the disk has not."""
        tail = self._tail
        while tail.size > self._tail_bytes and tail.first <= self._log.disk_number:
            tail.drop_first()
        while self._log.is_in_memory and (
            tail.size > self._memory_bytes or tail.last - tail.first >= MEMORY_JOURNAL_EVENTS
        ):
            before = tail.size
            tail.drop_first()
            if tail.first - 1 > self._log.disk_number:
                self._dropped_bytes += before - tail.size
                self._lost_bytes += before - tail.size

    def _retain(self) -> None:
        """Whole segments go, the oldest first."""
        while self._protocol.is_over and len(self._log.segments) > 1:
            oldest, following = self._log.segments[:2]
            if not self._log.trim(following.ordinal):
                return
            size = following.heading.bytes - oldest.heading.bytes
            self._protocol.evicted(following.heading.first - 1, size)
            while self._tail.first < self._protocol.first:
                self._tail.drop_first()
            if (lost := self._protocol.lost) is not None:
                log.warning("events %d to %s went unread", lost.from_seq, lost.to_seq)

    # the log's owner ----------------------------------------------------------------------

    async def open(self, journal_log: Log) -> None:
        """Once, before anything else."""
        self._log = journal_log
        self._replay = Replay(journal_log)
        await journal_log.recover(replay_all=False, on_frames=self._found.on_frames)

    def log_recovered(self, recovered: Recovered) -> None:
        self._protocol.series = self._log.series
        self._found.restore(self._protocol, recovered)
        self._tail = Tail(last=self._protocol.last, total_bytes=self._protocol.total_bytes)
        if recovered.damaged:
            self._notices.tell("journal.corrupt", {"files": recovered.damaged})
        if recovered.why_new is not None and recovered.series is not None:
            self._notices.tell(
                "journal.new_series", {"why": recovered.why_new, "before": show(recovered.series)}
            )

    def heading(self) -> Heading:
        if self._refilling:
            return Heading(self._refilling, self._refilling_bytes())
        return Heading(self._protocol.last + 1, self._protocol.total_bytes)

    def _refilling_bytes(self) -> int:
        known = max(self._refilling, self._tail.first) - 1
        return self._tail.offset_at(known) - self._dropped_bytes * (known >= self._refilling)

    def prologue(self) -> None:
        for name, durable in self._protocol.durable():
            self._log.append(Kind.READER, durable.encode(name))

    def refill(self) -> bool:
        """What is in memory, and the name of what is not; so much that nobody notices."""
        tail, done, room = self._tail, self._log.disk_number, REFILL_BYTES
        if tail.first - 1 > done:
            self._refilling = done + 1
            gap = Gap(done + 1, tail.first - 1, self._dropped_bytes, GapReason.DISK)
            self._log.append(Kind.GAP, encode_gap(gap), tail.first - 1)
        for seq, record in tail.records_after(done):
            if seq <= done:
                continue
            if room <= 0:
                break
            room -= len(record) + EVENT_COST
            self._refilling = seq
            if record:
                self._log.append(Kind.EVENT, record, seq)
                done = seq
            else:
                done = self._append_gap(seq)
        self._refilling = 0
        self._unkept = 0
        return room <= 0 and done < tail.last

    def log_changed(self) -> None:
        if self._log.series != self._protocol.series:
            # Nobody has seen the events that were not written yet: they belong to the new one.
            self._protocol.begin_series(self._log.series, upto=self._log.disk_number)
        if self._log.disk_number >= self._tail.first - 1:
            self._dropped_bytes = 0
        if self._log.fault is not self._fault:
            self._fault_changed()
        if self._log.waiting_bytes <= self._memory_bytes // 2:
            self._tell_unkept()
        self._trim_tail()
        if self._protocol.is_over:
            self._retain()
        self._grown.ring()

    def _fault_changed(self) -> None:
        before, self._fault = self._fault, self._log.fault
        if self._fault is None:
            lost, self._lost_bytes = self._lost_bytes, 0
            self._notices.tell("journal.healed", {"dropped_bytes": lost})
        elif before is None:
            self._notices.tell(
                "journal.degraded", {"error": self._fault.name, "reason": self._fault.reason}
            )

    # reading ------------------------------------------------------------------------------

    async def read(self, after: int, *, max_bytes: int, max_records: int) -> Batch:
        while True:
            self._protocol.check_cursor(after)
            gap = self._protocol.gap_after(after)
            start = max(after, self._protocol.first - 1)
            if start >= self.written:
                return Batch([], gap, start, more=False)
            hole = self._hole_after(start)
            if gap is not None and (hole is not None or start + 1 < self._tail.first):
                return Batch([], gap, start, more=True)
            if hole is not None:
                assert hole.to_seq is not None
                return Batch([], hole, hole.to_seq, more=hole.to_seq < self.written)
            if start + 1 >= self._tail.first:
                return self._read_tail(start, gap, max_bytes, max_records)
            upto = min(self.written, self._log.disk_number)
            try:
                batch = await self._replay.read(
                    start, upto=upto, max_bytes=max_bytes, max_records=max_records
                )
            except LookupError:
                continue  # it was evicted while it was sought
            return Batch(batch.records, batch.gap, batch.cursor, batch.cursor < self.written)

    def _read_tail(self, start: int, gap: Gap | None, max_bytes: int, max_records: int) -> Batch:
        upto = self.written
        records = self._tail.batch(
            start + 1, upto=upto, max_bytes=max_bytes, max_records=max_records
        )
        cursor = start + len(records)
        return Batch(list(enumerate(records, start + 1)), gap, cursor, more=cursor < upto)

    def _hole_after(self, start: int) -> Gap | None:
        """Events behind `start` that neither memory nor the disk could keep."""
        if start + 1 >= self._tail.first:
            lost = self._tail.lost_from(start + 1)
            return lost and Gap(start + 1, min(lost[0], self.written), lost[1], GapReason.DISK)
        if start >= self._log.disk_number:
            size = self._dropped_bytes if start == self._log.disk_number else None
            return Gap(start + 1, self._tail.first - 1, size, GapReason.DISK)
        return None

    # readers ------------------------------------------------------------------------------

    def open_reader(
        self, name: str | None, *, after: int | None, series: bytes | None = None
    ) -> Reader:
        cursor, gap = self._protocol.open_reader(name, after=after, series=series)
        if name is not None:
            self._save(name)
        return Reader(self, name, cursor=cursor, gap=gap)

    def _save(self, name: str) -> None:
        self._log.append(Kind.READER, self._protocol.ack_of(name).encode(name))

    def check_cursor(self, after: int) -> None:
        self._protocol.check_cursor(after)

    def gap_of(self, series: bytes, after: int) -> tuple[Gap, int]:
        return self._protocol.gap_of(series, after)

    def reader_closed(self) -> None:
        self._protocol.reader_closed()

    def ack(self, name: str, seq: int) -> None:
        self._protocol.check_ack(name, seq)
        if seq > self._protocol.ack_of(name).acked:
            self._protocol.ack(name, seq, offset=self._offset_at(seq))
            self._save(name)
            self._acked.ring()

    def _offset_at(self, seq: int) -> int | None:
        """The bytes appended up to the end of `seq`; None if memory does not know any more."""
        return None if seq < self._tail.first - 1 else self._tail.offset_at(seq)

    def forget(self, name: str) -> None:
        self._protocol.forget(name)
        self._log.append(Kind.FORGET, name.encode())
        self._acked.ring()

    async def wait(self, after: int) -> None:
        series = self.series
        while self.written <= after and self.series == series:
            await self._grown.wait()

    async def wait_synced(self, seq: int) -> None:
        """Return once `seq` survives a power cut."""
        if self.synced < seq:
            await self._log.wait_synced(self._log.appended)

    async def wait_acked(self, seq: int) -> None:
        while (acked := self._protocol.acked) is not None and acked < seq:
            await self._acked.wait()


async def open_journal(
    folder: Path,
    writer: LogWriter,
    clock: Clock,
    *,
    new_series: Callable[[], bytes],
    max_bytes: int = JOURNAL_BYTES,
    max_events: int = JOURNAL_EVENTS,
    segment_bytes: int = SEGMENT_BYTES,
    tail_bytes: int = TAIL_BYTES,
    memory_bytes: int = MEMORY_JOURNAL_BYTES,
    disk: Disk | None = None,
    boot: bytes | None = None,
) -> DiskJournal:
    """The journal in `folder`, which is made if needed. Close it before `writer`.

    Raises `StateUnusable` if a newer version wrote it, or if we may not read it.
    """
    if boot is None:
        boot = await in_thread(boot_id)
    journal = DiskJournal(
        max_bytes=max_bytes, max_events=max_events, tail_bytes=tail_bytes, memory_bytes=memory_bytes
    )
    await journal.open(
        Log(
            folder,
            writer,
            clock,
            journal,
            new_series=new_series,
            keeps=False,
            segment_bytes=segment_bytes,
            disk=disk or Disk(),
            boot=boot,
        )
    )
    return journal
