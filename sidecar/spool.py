"""The output of one program: bounded, on disk, read by offset by any number of readers.

`protocol.spool` has the rules. Here are the bytes: the first 64 KiB in memory, so that most
programs never touch the disk, the rest in a file without a name in the state folder, which
the kernel removes even if we are killed. Writes go to the page cache on the spot; reads take
the same way back, and a thread only if the pages are gone.

A disk that is full, or broken, does not stop a program: the bytes it would not take are
dropped and counted, `disk_error` says why, and the next write tries again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import anyio

from sidecar.bell import Bell
from sidecar.clock import Clock
from sidecar.errors import CallError, Code, from_os_error
from sidecar.protocol.limits import (
    HOLD_TIME,
    READ_BYTES,
    SPOOL_HEAD_BYTES,
    SPOOL_MEMORY_BYTES,
    SPOOL_TAIL_BYTES,
    SPOOLS_BYTES,
)
from sidecar.protocol.spool import OnFull, Placement, SpoolProtocol
from sidecar.protocol.streams import Piece
from sidecar.reading import OffsetReader

Filter = Callable[[bytes], bytes]

_TMPFILE: int | None = getattr(os, "O_TMPFILE", None)
_STEP = READ_BYTES  # what a spool reserves ahead, and therefore takes in one write at most


class SpoolBudget:
    """The bytes that all spools of a process share."""

    def __init__(self, limit: int = SPOOLS_BYTES) -> None:
        self.limit = limit
        self.used = 0
        self.make_room: Callable[[int], None] | None = None  # asked to free so many bytes

    def take(self, size: int) -> bool:
        """Reserve `size` bytes, or nothing."""
        if self.used + size > self.limit and self.make_room is not None:
            self.make_room(self.used + size - self.limit)
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def give_back(self, size: int) -> None:
        self.used -= size


def open_unnamed(folder: Path) -> int:
    """A descriptor of a new file that has no name, so it goes when it is closed.

    Where the file system has no O_TMPFILE (open(2)), the name is taken off at once.
    """
    flags = os.O_RDWR | os.O_CLOEXEC
    if _TMPFILE is not None:
        try:
            return os.open(folder, flags | _TMPFILE, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
    path = folder / f".spool-{os.urandom(8).hex()}"
    fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        path.unlink()
    except OSError:
        os.close(fd)
        raise
    return fd


class Spool:
    """One writer, who asks for `room`; readers anywhere; perhaps an owner, who sets the pace.

    `filter` sees all bytes in order before anything is kept, and returns as many as it got.
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        budget: SpoolBudget,
        *,
        head: int = SPOOL_HEAD_BYTES,
        tail: int = SPOOL_TAIL_BYTES,
        hold_time: float = HOLD_TIME,
        on_full: OnFull = OnFull.DROP,
        filter: Filter | None = None,
    ) -> None:
        self.disk_error: str | None = None  # the latest, as in "ENOSPC"
        self.grown = Bell()  # whoever waits for more looks again
        self.on_write: Callable[[bytes], None] | None = None  # sees all bytes, filtered, in order
        self._folder = folder
        self._clock = clock
        self._budget = budget
        self._filter = filter
        self._protocol = SpoolProtocol(head=head, tail=tail, hold_time=hold_time, on_full=on_full)
        self._memory = bytearray()
        self._memory_limit = min(SPOOL_MEMORY_BYTES, head)
        self._fd = -1
        self._reader: OffsetReader | None = None
        self._reserved = 0
        self._may_grow = True
        self._is_open = True
        self._room = Bell()
        self._reserve()

    @property
    def size(self) -> int:
        """Bytes printed so far, kept or not: the next offset."""
        return self._protocol.size

    @property
    def dropped(self) -> int:
        """Bytes of them that can no longer be read."""
        return self._protocol.dropped

    def missing(self, after: int) -> int:
        """Bytes printed after offset `after` that can no longer be read."""
        return self._protocol.missing(after)

    @property
    def unwritten(self) -> int:
        """Bytes of them that the disk would not take."""
        return self._protocol.unwritten

    @property
    def has_ended(self) -> bool:
        return self._protocol.has_ended

    @property
    def reserved(self) -> int:
        """Bytes of the budget that closing it gives back."""
        return self._reserved

    # The writer --------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many bytes `write` takes now. Ask and write without a suspension in between: an
        owner who comes meanwhile takes room away."""
        return min(self._protocol.room(now=self._clock.now()), _STEP)

    async def wait_room(self) -> int:
        """Return the room once there is some. In a spool that holds, that may be never.

        Raises `anyio.ClosedResourceError` when the spool is closed.
        """
        while True:
            self._check_open()
            now = self._clock.now()
            if self._protocol.room(now=now):
                return self.room
            deadline = self._protocol.next_deadline(now=now)
            with anyio.move_on_after(None if deadline is None else deadline - now):
                await self._room.wait()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take all of `data`, which must not be more than `room`. Never waits.

        The disk's errors do not come out here: see `disk_error` and `unwritten`.
        """
        self._check_open()
        if not data:
            return
        if self._filter is not None:
            data = self._filtered(bytes(data), self._filter)
        view = memoryview(data)
        begin = self._protocol.size
        for place in self._protocol.accept(len(view), now=self._clock.now()):
            start = place.offset - begin
            self._store(place, view[start : start + place.size])
        self._reserve()
        if self.on_write is not None:
            self.on_write(bytes(data))
        self.grown.ring()

    @staticmethod
    def _filtered(data: bytes, filter: Filter) -> bytes:
        filtered = filter(data)
        if len(filtered) != len(data):
            raise AssertionError(f"a filter made {len(filtered)} of {len(data)} bytes")
        return filtered

    def _store(self, place: Placement, data: memoryview) -> None:
        in_memory = max(0, min(place.size, self._memory_limit - place.position))
        self._memory += data[:in_memory]
        written = in_memory
        try:
            while written < place.size:
                written += os.pwrite(self._file(), data[written:], place.position + written)
        except OSError as error:
            self.disk_error = errno.errorcode.get(error.errno or 0, "EIO")
            self._protocol.failed(place.size - written)
        self._protocol.stored(place.offset, written)

    def _file(self) -> int:
        if self._fd < 0:
            self._fd = open_unnamed(self._folder)
            self._reader = OffsetReader(self._fd)
        return self._fd

    def _reserve(self) -> None:
        """Have the budget for the next write, or make do with what there is."""
        wanted = min(self._protocol.size + _STEP, self._protocol.capacity) - self._reserved
        if wanted <= 0 or not self._may_grow:
            return
        if self._budget.take(wanted):
            self._reserved += wanted
            if not self._is_open:  # room was made by closing this very spool
                self._give_back()
        else:
            self._may_grow = False
            self._protocol.shrink(self._reserved)

    def end(self) -> None:
        """The program prints no more: readers come to an end. A second call is harmless."""
        self._protocol.end()
        used = min(self._protocol.size, self._protocol.capacity)
        if self._reserved > used:
            self._budget.give_back(self._reserved - used)
            self._reserved = used
        self.grown.ring()

    # Readers -----------------------------------------------------------------------------

    async def read(self, offset: int, max_bytes: int) -> Piece:
        """The first kept bytes at or after `offset`, as many as lie together, at most 1 MiB.

        Empty at the end of what was printed so far. Raises `Invalid` for an offset behind it.
        """
        while True:
            self._check_open()
            place = self._protocol.find(offset)
            data = await self._load(place, min(place.size, max_bytes))
            if not data:
                return self._piece(place.offset, b"")
            self._check_open()
            # While a thread read them, bytes may have been overwritten: from the front.
            kept = self._protocol.find(place.offset).offset
            if kept < place.offset + len(data):
                return self._piece(kept, data[kept - place.offset :])
            offset = kept

    def _piece(self, offset: int, data: bytes) -> Piece:
        ended = self._protocol.has_ended and offset + len(data) == self._protocol.size
        return Piece(offset, data, ended)

    async def _load(self, place: Placement, size: int) -> bytes:
        if size <= 0:
            return b""
        if place.position < self._memory_limit:
            return bytes(self._memory[place.position : place.position + size])
        assert self._reader is not None, "bytes behind the memory are in the file"
        try:
            data = await self._reader.read(place.position, size)
        except OSError as error:
            raise from_os_error(error, "spool") from error
        if not data:
            raise CallError(Code.IO_ERROR, "the spool's file is shorter than what was written")
        return data

    def check_offset(self, offset: int) -> None:
        """Raises `Invalid` for an offset behind what was printed so far."""
        self._protocol.find(offset)

    async def wait_grown(self) -> None:
        """Return when there is more to read, there will be no more, or `grown` is rung."""
        self._check_open()
        await self.grown.wait()

    def follow(self, offset: int) -> None:
        """There is an owner, who has everything up to `offset`: write at its pace."""
        self._protocol.follow(offset, now=self._clock.now())
        self._room.ring()

    def progress(self, offset: int) -> None:
        """The owner has everything up to `offset`. Lower than before: nothing changes."""
        self._protocol.progress(offset, now=self._clock.now())
        self._room.ring()

    def unfollow(self) -> None:
        """The owner is gone."""
        self._protocol.unfollow()
        self._room.ring()

    def close(self) -> None:
        """Give back file, memory and budget; whoever waits gets `anyio.ClosedResourceError`.

        A second call is harmless.
        """
        if not self._is_open:
            return
        self._is_open = False
        self._give_back()
        self._memory.clear()
        if self._fd >= 0:
            os.close(self._fd)
        self.grown.ring()
        self._room.ring()

    def _give_back(self) -> None:
        self._budget.give_back(self._reserved)
        self._reserved = 0

    def _check_open(self) -> None:
        if not self._is_open:
            raise anyio.ClosedResourceError
