"""A damaged segment is copied without the damage, and set aside.

All that can be read is kept: what lies before the damage, and if only a frame's payload was hit,
also what lies behind it. It runs in a thread.
"""

from __future__ import annotations

import logging

from sidecar.durable.disk import Disk
from sidecar.durable.recovery import replay, set_aside
from sidecar.durable.segment import Segment
from sidecar.protocol.segments import HEADER_BYTES, Frame, encode_frame

log = logging.getLogger(__name__)


def repair(disk: Disk, segment: Segment) -> tuple[int, int] | None:
    """The descriptor and the size of the copy, which has the segment's name from now on; None if
    the disk has no room for it or cannot be read."""
    pieces = []

    def keep(_: Segment, frame: Frame) -> None:
        pieces.append(encode_frame(frame.kind, frame.number, frame.payload))

    path = segment.path.with_suffix(".copy")
    fd = -1
    try:
        pieces.append(disk.read(segment.fd, HEADER_BYTES, 0))
        replay(disk, segment, keep)
        fd = disk.open(path, create=True)
        data = b"".join(pieces)
        disk.write(fd, data, 0)
        disk.sync(fd)
        set_aside(segment.path, disk)
        disk.rename(path, segment.path)
        disk.sync_folder(path.parent)
    except OSError as error:
        log.error("%s could not be repaired: %s", segment.path, error)
        if fd >= 0:
            disk.close(fd)
        return None
    return fd, len(data)
