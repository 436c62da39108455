"""How what is laid out gets to the disk, and what happens when it does not: see `log`.

Everything that changes the state runs in the event loop; `_write`, `_sync`, `_renew` and
`_give_up` run in a thread and return what is to be done after them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from sidecar.clock import Clock
from sidecar.durable.disk import Disk
from sidecar.durable.layout import Layout
from sidecar.durable.markfile import MarkFile, try_mark
from sidecar.durable.progress import Progress, Upto
from sidecar.durable.segment import Segment
from sidecar.durable.trash import Trash
from sidecar.durable.work import Fault, Run, renew, sync, write
from sidecar.durable.writer import Finish, LogWriter, Work
from sidecar.protocol.mark import Mark
from sidecar.timer import Timer

log = logging.getLogger(__name__)

RETRY_FIRST, RETRY_MOST = 1.0, 5.0  # seconds between two tries to heal


class Writing:
    """Writes, syncs, degrades and heals one log. `on_change` is called after each of these."""

    def __init__(
        self,
        layout: Layout,
        writer: LogWriter,
        clock: Clock,
        *,
        disk: Disk,
        boot: bytes,
        mark_file: MarkFile,
        new_series: Callable[[], bytes] | None,
        on_change: Callable[[], None],
    ) -> None:
        self.fault: Fault | None = None
        self.progress = Progress()
        self.trash = Trash(disk, writer.syncs)
        self.is_renewing = False  # what is appended meanwhile is laid out already
        self._layout = layout
        self._writer = writer
        self._clock = clock
        self._disk = disk
        self._boot = boot
        self._mark_file = mark_file
        self._new_series = new_series  # None: the series never changes
        self._on_change = on_change
        self._sync_error: OSError | None = None
        self._is_heal_due = False
        self._is_refilling = False  # a part of what the disk lacks is written, or under way
        self._retry = Timer(clock, self.heal)
        self._delay = RETRY_FIRST

    def request(self) -> None:
        """Something was laid out. In a degraded log that waits for its turn."""
        if self.fault is None:
            self._writer.writes.request(self._take_write)

    def resume(self) -> Finish:
        """In a thread, before the first record: a mark that says "closed in order" is not true
        any more, and an earlier life may have been killed before it synced."""
        try:
            sync(self._disk, self._layout.segments[-2:])
            self._mark_file.put(Mark(self._layout.series, self._boot))
        except OSError as error:
            return partial(self._degrade, Fault(error, is_marked=False))
        return self._on_change

    @property
    def is_trying(self) -> bool:
        """Whether a try to heal is due or under way."""
        return self._is_heal_due or self.is_renewing or self._is_refilling

    def stop(self) -> None:
        """Do not try to heal any more."""
        self._retry.cancel()

    # the threads --------------------------------------------------------------------------

    def _take_write(self) -> Work | None:
        if self.fault is not None:
            return self.take_renewal() if self._is_heal_due else None
        if self._sync_error is not None:
            error, self._sync_error = self._sync_error, None
            return partial(self._give_up, error)
        if not self._layout.is_waiting:
            return None
        return partial(self._write, self._layout.take(), self.progress.appended)

    def _write(self, runs: list[Run], upto: Upto) -> Finish:
        try:
            write(self._disk, runs)
        except OSError as error:
            return self._give_up(error)
        return partial(self._on_written, runs, upto)

    def _give_up(self, error: OSError) -> Finish:
        """The mark comes first: see the module's head."""
        is_marked = try_mark(
            self._mark_file, Mark(self._layout.series, self._boot, is_degraded=True)
        )
        return partial(self._degrade, Fault(error, is_marked))

    def _on_written(self, runs: list[Run], upto: Upto) -> None:
        self._layout.written(runs)
        self.progress.written = self.progress.promised = upto
        self._writer.syncs.request(self._take_sync)
        if self._layout.is_waiting:
            self._writer.writes.request(self._take_write)
        self._on_change()

    def _take_sync(self) -> Work | None:
        unsynced = [
            (segment, segment.written)
            for segment in self._layout.segments
            if segment.synced < segment.written
        ]
        if not unsynced:
            return None
        return partial(self._sync, unsynced, self.progress.written, self._layout.series)

    def _sync(self, unsynced: list[tuple[Segment, int]], upto: Upto, series: bytes) -> Finish:
        try:
            sync(self._disk, [segment for segment, _ in unsynced])
        except OSError as error:
            return partial(self._on_sync_error, error)
        return partial(self._on_synced, unsynced, upto, series)

    def _on_synced(self, unsynced: list[tuple[Segment, int]], upto: Upto, series: bytes) -> None:
        for segment, written in unsynced:
            segment.synced = written
        if upto.ticket > self.progress.synced.ticket and series == self._layout.series:
            self.progress.synced = upto
        if self.progress.synced.ticket < self.progress.written.ticket:
            self._writer.syncs.request(self._take_sync)
        self._on_change()

    def _on_sync_error(self, error: OSError) -> None:
        """The other thread puts down the mark: it owns the file."""
        if self.fault is None:
            self._sync_error = error
            self._writer.writes.request(self._take_write)

    # a disk that fails --------------------------------------------------------------------

    def _degrade(self, fault: Fault) -> None:
        log.error("%s: %s; going on in memory", self._mark_file.path.parent, fault.reason)
        self.is_renewing = self._is_refilling = False
        self.trash.add(self._layout.forget_unwritten())
        if self.fault is None and not fault.is_marked:
            self._begin_series()
        is_marked = fault.is_marked or (self.fault is not None and self.fault.is_marked)
        self.fault = Fault(fault.error, is_marked)
        self._retry.set(self._clock.now() + self._delay)
        self._delay = min(self._delay * 2, RETRY_MOST)
        self._on_change()

    def _begin_series(self) -> None:
        """What comes now is of a new series, whose numbers go on behind what lies on disk."""
        if self._new_series is not None:
            self._layout.series = self._new_series()

    def heal(self) -> None:
        """Time to try again."""
        self._is_heal_due = True
        self._writer.writes.request(self._take_write)

    def take_renewal(self) -> Work:
        """Write in new segments what the disk lacks, or a part of it: the loop must not wait for
        it. Until the last part, what is appended stays in the owner's memory for the next."""
        self._is_heal_due = False
        layout, is_first = self._layout, not self._is_refilling
        torn = layout.segments[-1] if is_first and layout.segments else None
        self.is_renewing = True
        self._is_refilling = layout.refill(is_first)
        self.is_renewing = not self._is_refilling
        if self.is_renewing:
            self.progress.promised = self.progress.appended
        upto = Upto(self.progress.appended.ticket, layout.number)
        return partial(self._renew, torn, layout.take(), upto)

    def _renew(self, torn: Segment | None, runs: list[Run], upto: Upto) -> Finish:
        mark = Mark(self._layout.series, self._boot) if self.is_renewing else None
        try:
            renew(self._disk, self._mark_file, mark, torn, runs)
        except OSError as error:
            return self._give_up(error)
        return partial(self._on_renewed, runs, upto)

    def _on_renewed(self, runs: list[Run], upto: Upto) -> None:
        self._layout.written(runs)
        for segment, _ in runs:
            segment.synced = segment.written
        if self._is_refilling:
            self.progress.written = self.progress.synced = upto
            self.heal()
            self._on_change()
            return
        if self.fault is not None:
            log.info("%s: written again", self._mark_file.path.parent)
        self.progress.written = self.progress.synced = self.progress.promised = upto
        self.is_renewing = False
        self.fault = None
        self._delay = RETRY_FIRST
        if self._layout.is_waiting:
            self._writer.writes.request(self._take_write)
        self._on_change()
