"""One segment file of an open log, as the event loop sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio.to_thread

from sidecar.durable.disk import Disk
from sidecar.protocol.segments import Header, Heading, segment_name
from sidecar.reading import OffsetReader


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
        self._reader: OffsetReader | None = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1

    async def read(self, disk: Disk, offset: int, size: int) -> bytes:
        """At most `size` bytes, fewer at the end. The caller has said that it is `in_use`."""
        if self.fd < 0:
            fd = await anyio.to_thread.run_sync(disk.open, self.path)
            if self.fd < 0:
                self.fd = fd
            else:  # two wanted to read at once
                await anyio.to_thread.run_sync(disk.close, fd)
        if self._reader is None:
            self._reader = OffsetReader(self.fd)
        return await self._reader.read(offset, min(size, self.written - offset))

    def close(self, disk: Disk) -> None:
        """In a thread. A second call is harmless."""
        if self.fd >= 0:
            disk.close(self.fd)
            self.fd = -1
