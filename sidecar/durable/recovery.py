"""What a folder holds when its log is opened: the mark, the segments, where the last one ends.

It runs in a thread and reads only what it must: the headers of all segments, and the frames of
the last one (or of all, for a log whose owner keeps an index in memory).

A torn end is cut. Damage of one record is passed over; other damage ends its segment, which is
copied up to there. What was found can be told to end in the right place only if the mark says so:
otherwise what comes now belongs to a new series. Its numbers go on behind what was found, so that
nothing of the older one is lost that is still there.
"""

from __future__ import annotations

import errno
import logging
from dataclasses import replace
from pathlib import Path

from sidecar.durable.disk import Disk
from sidecar.durable.markfile import MarkFile, try_mark
from sidecar.durable.scanning import OnFrames, before_damage, replay, set_aside
from sidecar.durable.segment import Segment
from sidecar.protocol.mark import BLOCK_BYTES, NO_BOOT, Mark, decode_mark
from sidecar.protocol.record import Record, record
from sidecar.protocol.segments import (
    HEADER_BYTES,
    Damaged,
    NewerFormat,
    decode_header,
    segment_name,
    segment_ordinal,
)
from sidecar.statefolder import StateUnusable

log = logging.getLogger(__name__)

MARK_NAME = "mark"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_NAME = len(segment_name(0))
_FULL = {errno.ENOSPC, errno.EDQUOT}


@record
class Recovered(Record):
    """What was found. `why_new` says why a new series must begin; None: the one found goes on."""

    series: bytes | None
    segments: list[Segment]
    why_new: str | None
    next_ordinal: int
    torn_bytes: int
    damaged: list[str]  # names of the files set aside


def boot_id() -> bytes:
    """Identity of the machine's uptime; NO_BOOT where the kernel does not tell."""
    try:
        return bytes.fromhex(BOOT_ID.read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return NO_BOOT


def recover(
    folder: Path, disk: Disk, *, boot: bytes, keeps: bool, replay_all: bool, on_frames: OnFrames
) -> Recovered:
    """Read `folder`, which is made if needed. Raises `StateUnusable`."""
    try:
        disk.make_folder(folder)
        return _Recovery(folder, disk, boot, keeps, replay_all, on_frames).run()
    except NewerFormat as error:
        raise StateUnusable(
            f"{folder} was written by a newer sidecar ({error}): run that one,"
            " or set SIDECAR_STATE to another folder"
        ) from None
    except OSError as error:
        if error.errno in _FULL and _is_new(folder, disk):  # see `Log` for what becomes of it
            return Recovered(None, [], "there is no room for it", 1, 0, [])
        raise StateUnusable(
            f"{folder}: {error.strerror}; set SIDECAR_STATE to a folder of ours"
        ) from error


def _is_new(folder: Path, disk: Disk) -> bool:
    """Whether nothing was ever written here: else it would be forgotten without a word."""
    try:
        return not disk.list(folder)
    except FileNotFoundError:
        return True


class _Recovery:
    def __init__(
        self,
        folder: Path,
        disk: Disk,
        boot: bytes,
        keeps: bool,
        replay_all: bool,
        on_frames: OnFrames,
    ) -> None:
        self._folder = folder
        self._disk = disk
        self._boot = boot
        self._keeps = keeps
        self._replay_all = replay_all
        self._on_frames = on_frames
        self._segments: list[Segment] = []
        self._torn_bytes = 0
        self._damaged: list[str] = []
        self._headless: list[Path] = []
        self._cuts: list[tuple[Segment, int]] = []  # damaged segments, and where
        self._is_broken = False  # the end of the log is not known

    def run(self) -> Recovered:
        mark = self._read_mark()
        names = self._disk.list(self._folder)
        segments = [name for name in names if segment_ordinal(name)]
        for name in segments:
            self._open(name, is_last=name == segments[-1])
        if mark is not None and not self._keeps:
            self._leave_strangers(mark.series)
        for segment in self._segments if self._replay_all else self._segments[-1:]:
            self._replay(segment, is_last=segment is self._segments[-1])
        if mark is not None and self._is_broken:
            self._leave_word(mark)
        for path in self._headless:
            set_aside(path, self._disk)
        for segment, end in self._cuts:
            self._keep_beginning(segment, end)
        return Recovered(
            mark.series if mark else None,
            self._segments,
            self._why_new(mark),
            1 + max((segment_ordinal(name[:_NAME]) or 0 for name in names), default=0),
            self._torn_bytes,
            self._damaged,
        )

    def _leave_word(self, mark: Mark) -> None:
        """The next start must know, even if this one does not come to its end: with the damaged
        segment out of the way, the one before it would look like a proper end."""
        file = MarkFile(self._folder / MARK_NAME, self._disk)
        try_mark(file, replace(mark, is_degraded=True))
        file.close()

    def _read_mark(self) -> Mark | None:
        try:
            fd = self._disk.open(self._folder / MARK_NAME)
        except FileNotFoundError:
            return None
        try:
            return decode_mark(self._disk.read(fd, BLOCK_BYTES, 0))
        except Damaged:
            return None
        finally:
            self._disk.close(fd)

    def _open(self, name: str, *, is_last: bool) -> None:
        path = self._folder / name
        fd = self._disk.open(path)
        try:
            size = self._disk.size(fd)
            header = decode_header(self._disk.read(fd, HEADER_BYTES, 0))
        except Damaged:
            self._disk.close(fd)
            if is_last and size < HEADER_BYTES:  # killed while it began
                self._torn_bytes += size
                self._disk.unlink(path)
            else:
                self._headless.append(path)
                self._note_damage(path, is_last=is_last)
            return
        except BaseException:
            self._disk.close(fd)
            raise
        self._segments.append(Segment(self._folder, header, size=size, fd=fd))

    def _leave_strangers(self, series: bytes) -> None:
        """The last segments, of a series that was begun and never marked."""
        if all(segment.series != series for segment in self._segments):
            return  # a mark without segments: then these are older
        while self._segments[-1].series != series:
            stranger = self._segments.pop()
            stranger.close(self._disk)
            self._disk.unlink(stranger.path)

    def _replay(self, segment: Segment, *, is_last: bool) -> None:
        end, is_damaged = replay(self._disk, segment, self._on_frames)
        if is_damaged:
            self._cuts.append((segment, end))
            self._note_damage(segment.path, is_last=is_last)
        elif end < segment.size:
            self._torn_bytes += segment.size - end
            self._cut(segment, end)

    def _cut(self, segment: Segment, end: int) -> None:
        segment.size = segment.written = segment.synced = end
        try:
            self._disk.truncate(segment.fd, end)
        except OSError as error:  # a disk that is read-only: what comes is not written there
            log.warning("%s: the torn end stays: %s", segment.path, error)

    def _keep_beginning(self, segment: Segment, end: int) -> None:
        copy = before_damage(self._disk, segment, end)
        if copy is None:  # nobody reads behind it, but the damage stays in the way
            segment.size = segment.written = segment.synced = end
            return
        segment.close(self._disk)
        segment.become(*copy)

    def _note_damage(self, path: Path, *, is_last: bool) -> None:
        log.error("%s is damaged", path)
        self._damaged.append(path.name)
        self._is_broken |= is_last

    def _why_new(self, mark: Mark | None) -> str | None:
        if mark is None:
            return "there is no valid mark" if self._segments or self._damaged else "it is new"
        if self._is_broken:
            return "its end is damaged"
        last = self._segments[-1] if self._segments else None
        end = (last.ordinal, last.size) if last else (0, 0)
        if mark.goes_on(boot=self._boot, end=end):
            return None
        if mark.is_degraded:
            return "the disk failed, and then the process ended"
        return "the machine went down before all was synced"
