"""A log: records appended in memory, then written, then synced; and what it does when it cannot.

    log = Log(folder, writer, clock, owner, ...)
    await log.recover(replay_all=False, on_frame=owner.on_frame)
    place = log.append(KIND, payload)        # at once; never waits
    await log.wait_written(place.ticket)     # it now survives `kill -9`
    await log.aclose()                       # before the writer is closed

*Written* and *synced* are tickets: the count of records appended since the log was opened.

A disk that is full, read-only or broken makes the log *degraded*: the mark is put down first,
then `fault` says why, the records live in the memory of the owner alone, and `written` keeps up
with what is appended, for nothing better can be promised. Every 1 to 5 s it tries to heal: it
begins a new segment and has its owner append again (`refill`) what the disk lacks. If not even
the mark could be put down (`fault.is_marked` is False), this start's later records could be
forgotten without a trace, so the log takes a new series on the spot.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import anyio
import anyio.to_thread

from sidecar.bell import Bell
from sidecar.clock import Clock
from sidecar.durable.disk import Disk
from sidecar.durable.markfile import MarkFile, try_mark
from sidecar.durable.recovery import MARK_NAME, OnFrame, Recovered, recover
from sidecar.durable.segment import Segment
from sidecar.durable.work import Fault, Run, joined, remove, renew, sync, write
from sidecar.durable.writer import CLOSE_TIME, Finish, LogWriter, Work
from sidecar.protocol.mark import Mark
from sidecar.protocol.segments import (
    FRAME_BYTES,
    Header,
    Heading,
    encode_frame,
    encode_header,
    scan,
)
from sidecar.timer import Timer

log = logging.getLogger(__name__)

RETRY_FIRST, RETRY_MOST = 1.0, 5.0  # seconds between two tries to heal


class Place(NamedTuple):
    """Where a record lies. In a degraded log it lies nowhere: `segment` is 0."""

    ticket: int
    segment: int
    offset: int
    size: int


NOWHERE = 0


class Upto(NamedTuple):
    """How far: a ticket, and the latest number that an owner gave up to it."""

    ticket: int = 0
    number: int = 0


class LogOwner(Protocol):
    """What a log asks of the one it belongs to, always in the event loop."""

    def heading(self) -> Heading:
        """The facts for the head of a segment that begins before the next record."""
        ...

    def log_recovered(self, recovered: Recovered) -> None:
        """The frames of the folder were given to `on_frame`, in a thread. `log.series` is known;
        nothing may be appended yet."""
        ...

    def prologue(self) -> None:
        """Append what every segment begins with, so that older ones can go. Little."""
        ...

    def refill(self) -> None:
        """Append everything that the disk may lack: it begins anew, or was away."""
        ...

    def log_changed(self) -> None:
        """`written`, `synced`, `fault` or `series` changed."""
        ...


class Log:
    """One folder of segments, for one event loop. `recover` comes first.

    `keeps`: records of an older series stay, because their numbers do not matter.
    """

    def __init__(
        self,
        folder: Path,
        writer: LogWriter,
        clock: Clock,
        owner: LogOwner,
        *,
        new_series: Callable[[], bytes],
        keeps: bool,
        segment_bytes: int,
        disk: Disk,
        boot: bytes,
    ) -> None:
        self.folder = folder
        self.series = b""
        self.segments: list[Segment] = []  # the last one is written to
        self.fault: Fault | None = None
        self.disk = disk
        self._writer = writer
        self._owner = owner
        self._new_series = new_series
        self._keeps = keeps
        self._segment_bytes = segment_bytes
        self._boot = boot
        self._mark_file = MarkFile(folder / MARK_NAME, disk)
        self._queue: list[Run] = []
        self._appended = self._written = self._synced = Upto()
        self._promised = Upto()  # what was said to be written, and is or will be before the mark
        self.waiting_bytes = 0  # laid out and not written yet
        self._next_ordinal = 1
        self._is_heal_due = False
        self._is_renewing = False  # what is appended meanwhile is laid out already
        self._is_beginning = False  # the next record begins a segment
        self._is_heading = False  # the prologue of a segment is being appended
        self._sync_error: OSError | None = None
        self._stale: list[Segment] = []  # of an older series; they go when the new one is marked
        self._garbage: list[Segment] = []  # trimmed, to be unlinked
        self._retry = Timer(clock, self._heal)
        self._clock = clock
        self._delay = RETRY_FIRST
        self._changed = Bell()
        self._is_closed = anyio.Event()

    async def recover(self, *, replay_all: bool, on_frame: OnFrame) -> None:
        """Once, before anything else.

        `on_frame` is given what is there, in a thread: the frames of the last segment, or with
        `replay_all` of all. If what was written may be missing, a new segment begins with
        `refill`, and without `keeps` the older ones go. A disk that is full or read-only gives a
        degraded log; only the format of a newer version, or a folder that we may not read,
        raises `StateUnusable`.
        """
        find = partial(
            recover, self.folder, self.disk, boot=self._boot, keeps=self._keeps,
            replay_all=replay_all, on_frame=on_frame,
        )  # fmt: skip
        recovered = await anyio.to_thread.run_sync(find)
        self.segments = recovered.segments
        self._next_ordinal = recovered.next_ordinal
        self.series = recovered.series or self._new_series()
        if recovered.why_new is not None:
            self._begin_series()
        self._owner.log_recovered(recovered)
        last = Upto(0, max(0, self._owner.heading().first - 1))
        self._appended = self._written = self._synced = self._promised = last
        work = self._resume if recovered.why_new is None else self._take_renewal()
        finish = await anyio.to_thread.run_sync(work)
        finish()

    def _resume(self) -> Finish:
        """Before the first record: a mark that says "closed in order" is not true any more."""
        try:
            self._mark_file.put(Mark(self.series, self._boot))
        except OSError as error:
            return partial(self._degrade, Fault(error, is_marked=False))
        return self._tell

    async def aclose(self) -> None:
        """Write and sync all, and say in the mark that it was closed in order. Shielded, bounded.

        A degraded log tries once more to heal. Nothing may be appended any more.
        """
        self._retry.cancel()
        with anyio.move_on_after(CLOSE_TIME, shield=True):
            if self.fault is not None:
                self._heal()
                await self._changed.wait()
            while self.fault is None and self._synced.ticket < self._appended.ticket:
                await self._changed.wait()
            self._is_closed = anyio.Event()
            self._writer.syncs.request(self._take_close)
            await self._is_closed.wait()
        self._retry.cancel()

    def _take_close(self) -> Work:
        mark = None
        if self.fault is None:
            last = self.segments[-1] if self.segments else None
            end = (last.ordinal, last.written) if last else (0, 0)
            mark = Mark(self.series, self._boot, is_clean=True, end=end)
        return partial(self._close, mark, self.segments + self._stale, self._garbage)

    def _close(self, mark: Mark | None, segments: list[Segment], unlinked: list[Segment]) -> Finish:
        """In the thread that syncs, for it may still have the files in hand."""
        if mark is not None:
            try_mark(self._mark_file, mark)
        self._mark_file.close()
        for segment in unlinked:
            remove(self.disk, segment)
        for segment in segments:
            segment.close(self.disk)
        return self._is_closed.set

    # state --------------------------------------------------------------------------------

    @property
    def appended(self) -> int:
        """The latest ticket."""
        return self._appended.ticket

    @property
    def written(self) -> int:
        """Up to this ticket records survive `kill -9`, or all that can be promised is kept."""
        return self._safe.ticket

    @property
    def _safe(self) -> Upto:
        return self._appended if self.is_in_memory else self._promised

    @property
    def synced(self) -> int:
        """Up to this ticket records survive a power cut."""
        return self._synced.ticket

    @property
    def written_number(self) -> int:
        """The number that belongs to `written`."""
        return self._safe.number

    @property
    def disk_number(self) -> int:
        """The latest number that lies on disk."""
        return self._written.number

    @property
    def synced_number(self) -> int:
        return self._synced.number

    @property
    def is_in_memory(self) -> bool:
        """Whether what is appended now is not even on its way to the disk."""
        return self.fault is not None and not self._is_renewing

    @property
    def size(self) -> int:
        """Bytes in all segments."""
        return sum(segment.size for segment in self.segments)

    async def wait_written(self, ticket: int) -> None:
        """Return once `written` is there: without suspending if it is. Cancelling loses nothing."""
        while self.written < ticket:
            await self._changed.wait()

    async def wait_synced(self, ticket: int) -> None:
        """Return once `synced` is there. In a degraded log that lasts until it heals."""
        while self.synced < ticket:
            await self._changed.wait()

    # appending ----------------------------------------------------------------------------

    def append(self, kind: int, payload: bytes, number: int = 0) -> Place:
        """Take a record; it is written at the end of this turn of the event loop."""
        ticket = self._appended.ticket + 1
        self._appended = Upto(ticket, number or self._appended.number)
        size = FRAME_BYTES + len(payload)
        if self.is_in_memory:
            return Place(ticket, NOWHERE, 0, size)
        segment = self._segment_for(size)
        place = Place(ticket, segment.ordinal, segment.size, size)
        self._lay(segment, encode_frame(kind, number, payload))
        if self.fault is None:
            self._writer.writes.request(self._take_write)
        return place

    def _segment_for(self, size: int) -> Segment:
        last = self.segments[-1] if self.segments else None
        if last is not None and not self._is_beginning:
            if self._is_heading or last.size + size <= self._segment_bytes:
                return last
        return self.begin_segment()

    def begin_segment(self) -> Segment:
        """Let what is appended from now on lie in a new segment, so that older ones can go."""
        self._is_beginning = False
        header = Header(self.series, self._next_ordinal, self._owner.heading())
        self._next_ordinal += 1
        segment = Segment(self.folder, header)
        self.segments.append(segment)
        self._lay(segment, encode_header(header))
        self._is_heading = True
        self._owner.prologue()
        self._is_heading = False
        return segment

    def _lay(self, segment: Segment, data: bytes) -> None:
        segment.size += len(data)
        self.waiting_bytes += len(data)
        self._queue.append((segment, data))

    def trim(self, before: int) -> bool:
        """Let the segments below the ordinal `before` go, but not the last one, and none that is
        still to be written: then False."""
        while self.segments[0].ordinal < before:
            if len(self.segments) == 1 or self.segments[0].written < self.segments[0].size:
                return False
            self._garbage.append(self.segments.pop(0))
            self._writer.syncs.request(self._take_sync)
        return True

    def replace(self, segment: Segment, copy: tuple[int, int]) -> None:
        """`segment` was copied: its name is the copy's, whose descriptor and size these are."""
        old = segment.fd
        segment.become(*copy)
        self._writer.syncs.request(lambda: partial(self._close_old, old))

    def _close_old(self, fd: int) -> Finish:
        """In the thread that syncs, for it may have the file in hand."""
        self.disk.close(fd)
        return self._changed.ring

    # reading ------------------------------------------------------------------------------

    async def read(self, place: Place) -> bytes | None:
        """The payload that lies at `place`, once it is written; None if it is gone or damaged."""
        segment = self.find(place.segment)
        if segment is None or segment.written < place.offset + place.size:
            return None
        try:
            data = await self.read_segment(segment, place.offset, place.size)
        except OSError as error:
            log.error("%s: %s", segment.path, error)
            return None
        frames = scan(data).frames
        return frames[0].payload if frames else None

    def find(self, ordinal: int) -> Segment | None:
        for segment in self.segments:
            if segment.ordinal == ordinal:
                return segment
        return None

    async def read_segment(self, segment: Segment, offset: int, size: int) -> bytes:
        """At most `size` of the written bytes from `offset`. Raises `OSError`."""
        with segment.in_use():
            try:
                data = b""
                while len(data) < size and (
                    piece := await segment.read(self.disk, offset + len(data), size - len(data))
                ):
                    data += piece
                return data
            finally:
                if segment in self._garbage:
                    self._writer.syncs.request(self._take_sync)

    # the threads --------------------------------------------------------------------------

    def _take_write(self) -> Work | None:
        if self.fault is not None:
            return self._take_renewal() if self._is_heal_due else None
        if self._sync_error is not None:
            error, self._sync_error = self._sync_error, None
            return partial(self._give_up, error)
        if not self._queue:
            return None
        runs, self._queue = joined(self._queue), []
        return partial(self._write, runs, self._appended)

    def _write(self, runs: list[Run], upto: Upto) -> Finish:
        try:
            write(self.disk, runs)
        except OSError as error:
            return self._give_up(error)
        return partial(self._on_written, runs, upto)

    def _give_up(self, error: OSError) -> Finish:
        """The mark comes first: see the module's head."""
        is_marked = try_mark(self._mark_file, Mark(self.series, self._boot, is_degraded=True))
        return partial(self._degrade, Fault(error, is_marked))

    def _on_written(self, runs: list[Run], upto: Upto) -> None:
        for segment, data in runs:
            segment.written += len(data)
            self.waiting_bytes -= len(data)
        self._written = self._promised = upto
        self._writer.syncs.request(self._take_sync)
        if self._queue:
            self._writer.writes.request(self._take_write)
        self._tell()

    def _take_sync(self) -> Work | None:
        unlinked = [segment for segment in self._garbage if not segment.users]
        self._garbage = [segment for segment in self._garbage if segment.users]
        unsynced = [
            (segment, segment.written)
            for segment in self.segments
            if segment.synced < segment.written
        ]
        if not unlinked and not unsynced:
            return None
        return partial(self._sync, unsynced, unlinked, self._written, self.series)

    def _sync(
        self,
        unsynced: list[tuple[Segment, int]],
        unlinked: list[Segment],
        upto: Upto,
        series: bytes,
    ) -> Finish:
        for segment in unlinked:
            remove(self.disk, segment)
        try:
            if unsynced:
                sync(self.disk, [segment for segment, _ in unsynced])
        except OSError as error:
            return partial(self._on_sync_error, error)
        return partial(self._on_synced, unsynced, upto, series)

    def _on_synced(self, unsynced: list[tuple[Segment, int]], upto: Upto, series: bytes) -> None:
        for segment, written in unsynced:
            segment.synced = written
        if upto.ticket > self._synced.ticket and series == self.series:
            self._synced = upto
        if self._synced.ticket < self._written.ticket:
            self._writer.syncs.request(self._take_sync)
        self._tell()

    def _on_sync_error(self, error: OSError) -> None:
        """The other thread puts down the mark: it owns the file."""
        if self.fault is None:
            self._sync_error = error
            self._writer.writes.request(self._take_write)

    def _tell(self) -> None:
        self._changed.ring()
        self._owner.log_changed()

    # a disk that fails --------------------------------------------------------------------

    def _degrade(self, fault: Fault) -> None:
        log.error("%s: %s; going on in memory", self.folder, fault.reason)
        self._is_renewing = False
        self._forget_unwritten()
        if not fault.is_marked and (self.fault is None or self.fault.is_marked):
            self._begin_series()
        self.fault = fault
        self._retry.set(self._clock.now() + self._delay)
        self._delay = min(self._delay * 2, RETRY_MOST)
        self._tell()

    def _forget_unwritten(self) -> None:
        self._queue = []
        self.waiting_bytes = 0
        self.segments = [segment for segment in self.segments if segment.written]
        for segment in self.segments:
            segment.size = segment.written

    def _begin_series(self) -> None:
        if not self._keeps:
            self.series = self._new_series()
            self._stale += self.segments
            self.segments = []
            self._appended = self._appended._replace(number=0)
            self._written = self._written._replace(number=0)
            self._promised = self._promised._replace(number=0)
            self._synced = self._synced._replace(number=0)

    def _heal(self) -> None:
        """Time to try again."""
        self._is_heal_due = True
        self._writer.writes.request(self._take_write)

    def _take_renewal(self) -> Work:
        self._is_heal_due = False
        self._is_renewing = True
        torn = self.segments[-1] if self.segments else None
        begun = len(self.segments)
        self._is_beginning = True
        self._owner.refill()
        if self._is_beginning:
            self.begin_segment()
        self._promised = self._appended
        runs, self._queue = joined(self._queue), []
        assert len(runs) == len(self.segments) - begun
        return partial(self._renew, torn, runs, self._appended)

    def _renew(self, torn: Segment | None, runs: list[Run], upto: Upto) -> Finish:
        mark = Mark(self.series, self._boot)
        try:
            renew(self.disk, self._mark_file, mark, torn, runs)
        except OSError as error:
            return self._give_up(error)
        return partial(self._on_renewed, runs, upto)

    def _on_renewed(self, runs: list[Run], upto: Upto) -> None:
        for segment, data in runs:
            segment.written += len(data)
            self.waiting_bytes -= len(data)
            segment.synced = segment.written
        log.info("%s: written again", self.folder)
        self._written = self._synced = self._promised = upto
        self._is_renewing = False
        self.fault = None
        self._delay = RETRY_FIRST
        self._garbage += self._stale
        self._stale = []
        self._writer.syncs.request(self._take_sync)
        if self._queue:
            self._writer.writes.request(self._take_write)
        self._tell()
