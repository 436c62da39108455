"""One segment file of an open log, as the event loop sees it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sidecar.durable.disk import Disk
from sidecar.protocol.segments import HEADER_BYTES, Header, Heading, segment_name
from sidecar.reading import OffsetReader
from sidecar.threads import in_thread

INDEX_STEP = 64 * 1024  # bytes between two places that are remembered


class Segment:
    """`size` bytes are laid out; the first `written` of them are on their way to the disk's cache
    or there, the first `synced` on the disk."""

    def __init__(self, folder: Path, header: Header, *, size: int = 0, fd: int = -1) -> None:
        self.path = folder / segment_name(header.ordinal)
        self.ordinal = header.ordinal
        self.series = header.series
        self.heading: Heading = header.heading
        self.size = size
        self.written = size
        self.synced = size
        self.fd = fd
        self.users = 0  # reads under way: it is not closed below them
        self.is_lost = False  # it cannot be read any more
        self._reader: OffsetReader | None = None
        self._numbers: list[int] = []  # a sparse index: numbers, and the offsets of their frames
        self._offsets: list[int] = []

    @contextmanager
    def in_use(self) -> Iterator[None]:
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1

    def note(self, number: int, offset: int) -> None:
        """Remember where `number` lies, if nothing near it is known."""
        place = bisect_right(self._offsets, offset)
        before = self._offsets[place - 1] if place else 0
        behind = self._offsets[place] if place < len(self._offsets) else offset + INDEX_STEP
        if offset - before >= INDEX_STEP <= behind - offset:
            self._numbers.insert(place, number)
            self._offsets.insert(place, offset)

    def offset_before(self, number: int) -> int:
        """The offset of a frame that is not behind that of `number`."""
        place = bisect_right(self._numbers, number)
        return self._offsets[place - 1] if place else HEADER_BYTES

    def become(self, fd: int, size: int) -> None:
        """A copy has taken the place of the file."""
        self.fd, self._reader = fd, None
        self.size = self.written = self.synced = size
        self._numbers, self._offsets = [], []

    async def read(self, disk: Disk, offset: int, size: int) -> bytes:
        """At most `size` bytes, fewer at the end. The caller has said that it is `in_use`."""
        if self.fd < 0:
            fd = await in_thread(disk.open, self.path)
            if self.fd < 0:
                self.fd = fd
            else:  # two wanted to read at once
                await in_thread(disk.close, fd)
        if self._reader is None:
            self._reader = OffsetReader(self.fd)
        return await self._reader.read(offset, min(size, self.written - offset))

    def close(self, disk: Disk) -> None:
        """In a thread. A second call is harmless."""
        if self.fd >= 0:
            disk.close(self.fd)
            self.fd = -1
