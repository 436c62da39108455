"""What the two threads do for a log. Nothing here touches the state of the event loop.

Only the fields of a segment that a thread owns are written here: `fd` of one that it creates.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Sequence

from sidecar.durable.disk import Disk
from sidecar.durable.markfile import MarkFile
from sidecar.durable.segment import Segment
from sidecar.protocol.mark import Mark
from sidecar.protocol.record import Record, record

log = logging.getLogger(__name__)

Run = tuple[Segment, bytes]  # what goes behind the `written` bytes of a segment


@record
class Fault(Record):
    """Why a log is degraded. `is_marked`: a later start will know of it."""

    error: OSError
    is_marked: bool

    @property
    def name(self) -> str:
        """As in ENOSPC."""
        return errno.errorcode.get(self.error.errno or 0, "EIO")

    @property
    def reason(self) -> str:
        """For people."""
        return os.strerror(self.error.errno) if self.error.errno else str(self.error)


def joined(queue: Sequence[Run]) -> list[Run]:
    """The pieces of each segment as one, in their order."""
    runs: list[tuple[Segment, list[bytes]]] = []
    for segment, data in queue:
        if not runs or runs[-1][0] is not segment:
            runs.append((segment, []))
        runs[-1][1].append(data)
    return [(segment, b"".join(pieces)) for segment, pieces in runs]


def write(disk: Disk, runs: Sequence[Run]) -> None:
    for segment, data in runs:
        if segment.fd < 0:
            segment.fd = disk.open(segment.path, create=True)
        disk.write(segment.fd, data, segment.written)


def sync(disk: Disk, segments: Sequence[Segment]) -> None:
    """Also the names of those that are new."""
    for segment in segments:
        disk.sync(segment.fd)
    if any(segment.synced == 0 for segment in segments):
        disk.sync_folder(segments[0].path.parent)


def renew(
    disk: Disk, mark_file: MarkFile, mark: Mark | None, torn: Segment | None, runs: Sequence[Run]
) -> None:
    """Write `runs` into new segments, behind what the failure may have left at the end of `torn`.
    The mark comes last: until then, a start knows that this one did not come to its end."""
    try:
        disk.make_folder(mark_file.path.parent)
        if torn is not None:
            disk.truncate(torn.fd, torn.written)
        write(disk, runs)
        sync(disk, [segment for segment, _ in runs])
        if mark is not None:
            mark_file.put(mark)
    except OSError:
        for segment, _ in runs:
            if not segment.written:
                remove(disk, segment)
        raise


def remove(disk: Disk, segment: Segment) -> None:
    """Close and unlink, if it was ever made; a name that stays only costs room."""
    if segment.fd < 0 and not segment.written:
        return
    segment.close(disk)
    try:
        disk.unlink(segment.path)
    except OSError as error:
        log.warning("%s stays: %s", segment.path, error)
