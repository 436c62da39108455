"""A log: records appended in memory, then written, then synced; and what it does when it cannot.

    log = Log(folder, writer, clock, owner, ...)
    await log.recover(replay_all=False, on_frames=owner.on_frames)
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
from typing import NamedTuple

import anyio

from sidecar.bell import Bell
from sidecar.clock import Clock
from sidecar.durable.disk import Disk
from sidecar.durable.layout import Layout
from sidecar.durable.markfile import MarkFile, try_mark
from sidecar.durable.owner import LogOwner
from sidecar.durable.progress import Upto
from sidecar.durable.recovery import MARK_NAME, recover
from sidecar.durable.scanning import OnFrames
from sidecar.durable.segment import Segment
from sidecar.durable.work import Fault
from sidecar.durable.writer import CLOSE_TIME, Finish, LogWriter, Work
from sidecar.durable.writing import Writing
from sidecar.protocol.mark import Mark
from sidecar.protocol.segments import (
    FRAME_BYTES,
    encode_frame,
    scan,
)
from sidecar.threads import in_thread

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """Where a record lies. In a degraded log it lies nowhere: `segment` is 0."""

    ticket: int
    segment: int
    offset: int
    size: int


NOWHERE = 0


class Log:
    """One folder of segments, for one event loop. `recover` comes first.

    `keeps`: the series stays what it is, because the numbers do not matter.
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
        self.disk = disk
        self._writer = writer
        self._owner = owner
        self._new_series = new_series
        self._keeps = keeps
        self._boot = boot
        self._layout = Layout(folder, owner, segment_bytes)
        self._mark_file = MarkFile(folder / MARK_NAME, disk)
        self._writing = Writing(
            self._layout,
            writer,
            clock,
            disk=disk,
            boot=boot,
            mark_file=self._mark_file,
            new_series=None if keeps else new_series,
            on_change=self._tell,
        )
        self._progress = self._writing.progress
        self._changed = Bell()
        self._is_closed = anyio.Event()

    async def recover(self, *, replay_all: bool, on_frames: OnFrames) -> None:
        """Once, before anything else.

        `on_frames` is given what is there, in a thread: the frames of the last segment, or with
        `replay_all` of all. If what was written may be missing, the records of a
        new series begin with `refill`, in a new segment. A disk that is full or read-only gives a
        degraded log; only the format of a newer version, or a folder that we may not read,
        raises `StateUnusable`.
        """
        find = partial(
            recover, self.folder, self.disk, boot=self._boot, keeps=self._keeps,
            replay_all=replay_all, on_frames=on_frames,
        )  # fmt: skip
        recovered = await in_thread(find)
        self._layout.segments = recovered.segments
        self._layout.next_ordinal = recovered.next_ordinal
        goes_on = self._keeps or recovered.why_new is None
        known = recovered.series if goes_on else None
        self._layout.series = known or self._new_series()
        self._owner.log_recovered(recovered)
        self._layout.number = max(0, self._owner.heading().first - 1)
        self._progress.number_on(self._layout.number)
        work = self._writing.resume if recovered.why_new is None else self._writing.take_renewal()
        finish = await in_thread(work)
        finish()

    async def aclose(self) -> None:
        """Write and sync all, and say in the mark that it was closed in order. Shielded, bounded.

        A degraded log tries once more to heal. Nothing may be appended any more.
        """
        self._writing.stop()
        with anyio.move_on_after(CLOSE_TIME, shield=True):
            await self._settle()
            self._is_closed = anyio.Event()
            self._writer.syncs.request(self._take_close)
            self._writer.syncs.hurry()
            await self._is_closed.wait()
        self._writing.stop()

    async def _settle(self) -> None:
        """Until all is synced, or the disk has refused once more."""
        may_heal = True
        while self.fault is not None or self.synced < self.appended:
            if self.fault is not None and not self._writing.is_trying:
                if not may_heal:
                    return
                may_heal = False
                self._writing.heal()
            self._writer.syncs.hurry()
            await self._changed.wait()

    def _take_close(self) -> Work:
        mark = None
        if self.fault is None:
            mark = Mark(self.series, self._boot, is_clean=True, end=self._layout.end)
        return partial(self._close, mark, self.segments)

    def _close(self, mark: Mark | None, segments: list[Segment]) -> Finish:
        """In the thread that syncs, for it may still have the files in hand."""
        if mark is not None:
            try_mark(self._mark_file, mark)
        self._mark_file.close()
        self._writing.trash.empty()
        for segment in segments:
            segment.close(self.disk)
        return self._is_closed.set

    # state --------------------------------------------------------------------------------

    @property
    def fault(self) -> Fault | None:
        """Why the log is degraded."""
        return self._writing.fault

    @property
    def series(self) -> bytes:
        return self._layout.series

    @property
    def segments(self) -> list[Segment]:
        """From the oldest to the one that is written to."""
        return self._layout.segments

    @property
    def waiting_bytes(self) -> int:
        """Appended and not written yet."""
        return self._layout.waiting_bytes

    @property
    def appended(self) -> int:
        """The latest ticket."""
        return self._progress.appended.ticket

    @property
    def written(self) -> int:
        """Up to this ticket records survive `kill -9`, or all that can be promised is kept."""
        return self._safe.ticket

    @property
    def _safe(self) -> Upto:
        return self._progress.appended if self.is_in_memory else self._progress.promised

    @property
    def synced(self) -> int:
        """Up to this ticket records survive a power cut."""
        return self._progress.synced.ticket

    @property
    def written_number(self) -> int:
        """The number that belongs to `written`."""
        return self._safe.number

    @property
    def disk_number(self) -> int:
        """The latest number that lies on disk."""
        return self._progress.written.number

    @property
    def synced_number(self) -> int:
        return self._progress.synced.number

    @property
    def is_in_memory(self) -> bool:
        """Whether what is appended now is not even on its way to the disk."""
        writing = self._writing  # asked four times an event
        return writing.fault is not None and not writing.is_renewing

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
            self._writer.syncs.hurry()
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.ring()
        self._owner.log_changed()

    # appending ----------------------------------------------------------------------------

    def append(self, kind: int, payload: bytes, number: int = 0) -> Place:
        """Take a record; it is written at the end of this turn of the event loop."""
        ticket = self._progress.append(number)
        size = FRAME_BYTES + len(payload)
        if self.is_in_memory:
            return Place(ticket, NOWHERE, 0, size)
        segment = self._layout.segment_for(size)
        place = Place(ticket, segment.ordinal, segment.size, size)
        self._layout.lay(segment, encode_frame(kind, number, payload))
        self._layout.number = number or self._layout.number
        self._writing.request()
        return place

    def begin_segment(self) -> None:
        """Let what is appended from now on lie in a new segment, so that older ones can go."""
        self._layout.begin_segment()
        self._writing.request()

    def trim(self, before: int) -> bool:
        """Let the segments below the ordinal `before` go, but not the last one, and none that is
        still to be written: then False."""
        while self.segments and self.segments[0].ordinal < before:
            if len(self.segments) == 1 or self.segments[0].written < self.segments[0].size:
                return False
            self._writing.trash.add([self.segments.pop(0)])
        return True

    def replace(self, segment: Segment, copy: tuple[int, int]) -> None:
        """`segment` was copied: its name is the copy's, whose descriptor and size these are."""
        self._writing.trash.add_descriptor(segment.fd)
        segment.become(*copy)

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
        data = b""
        try:
            with segment.in_use():
                while len(data) < size and (
                    piece := await segment.read(self.disk, offset + len(data), size - len(data))
                ):
                    data += piece
        finally:
            self._writing.trash.not_used(segment)
        return data
