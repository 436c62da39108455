"""Reading a segment from its beginning to its end, in a thread; and what to do with a damaged one.

It is set aside as `*.corrupt`, for whoever wants to look; the latest four of these are kept. What
can be read of it is kept under its name: all that lies before the damage, and if only the payload
of a frame was hit, also what lies behind it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from sidecar.durable.disk import Disk
from sidecar.durable.segment import Segment
from sidecar.protocol.segments import HEADER_BYTES, Frame, behind_damage, encode_frame, scan

log = logging.getLogger(__name__)

PIECE = 1 << 18  # bytes read at a time
CORRUPT_KEPT = 4  # segments set aside; older ones are removed

OnFrames = Callable[[Segment, list[Frame]], None]  # some, at least one, without a hole


def replay(disk: Disk, segment: Segment, on_frames: OnFrames) -> tuple[int, bool]:
    """Give all good frames of `segment`; where they end, and whether damage ends them.

    Damage that leaves the next frame in its place is passed over.
    """
    offset, data = HEADER_BYTES, b""
    while True:
        piece = disk.read(segment.fd, PIECE, offset + len(data))
        data += piece
        found = scan(data, base=offset)
        if found.frames:
            on_frames(segment, found.frames)
        offset += found.used
        data = data[found.used :]
        if found.is_damaged:
            following = behind_damage(data, 0)
            if following is None and piece:
                data += disk.read(segment.fd, PIECE, offset + len(data))
                following = behind_damage(data, 0)
            if following is None:
                return offset, True
            offset += following
            data = data[following:]
        elif not piece:
            return offset, False


def set_aside(path: Path, disk: Disk) -> None:
    """Keep a damaged file under another name, as long as nobody needs the place."""
    try:
        disk.rename(path, path.with_name(f"{path.name}.corrupt"))
        kept = [name for name in disk.list(path.parent) if name.endswith(".corrupt")]
        for name in kept[:-CORRUPT_KEPT]:
            disk.unlink(path.parent / name)
    except OSError as error:
        log.warning("%s stays where it is: %s", path, error)


def without_damage(disk: Disk, segment: Segment) -> tuple[int, int] | None:
    """A copy of all good frames: its descriptor and size; None if there is no room for it, or
    the disk cannot be read."""
    pieces: list[bytes] = []

    def keep(_: Segment, frames: list[Frame]) -> None:
        pieces.extend(encode_frame(frame.kind, frame.number, frame.payload) for frame in frames)

    try:
        pieces.append(disk.read(segment.fd, HEADER_BYTES, 0))
        replay(disk, segment, keep)
    except OSError as error:
        log.error("%s could not be read: %s", segment.path, error)
        return None
    return _take_place(disk, segment, b"".join(pieces))


def before_damage(disk: Disk, segment: Segment, end: int) -> tuple[int, int] | None:
    """The same of the first `end` bytes, as they are."""
    try:
        return _take_place(disk, segment, disk.read(segment.fd, end, 0))
    except OSError as error:
        log.error("%s could not be read: %s", segment.path, error)
        return None


def _take_place(disk: Disk, segment: Segment, data: bytes) -> tuple[int, int] | None:
    copy = segment.path.with_suffix(".copy")
    fd = -1
    try:
        fd = disk.open(copy, create=True)
        disk.write(fd, data, 0)
        disk.sync(fd)
        set_aside(segment.path, disk)
        disk.rename(copy, segment.path)
        disk.sync_folder(copy.parent)
    except OSError as error:
        log.error("%s could not be copied: %s", segment.path, error)
        if fd >= 0:
            disk.close(fd)
        return None
    return fd, len(data)
