"""The output of one program: bounded, on disk, read by offset by any number of readers.

`protocol.spool` has the rules, `spoolfile` the file. Here are the bytes: all of them go to the
file, which is made for the first one and outlives us; the first 64 KiB stay in memory as well,
where most readers find all they want. Writes go to the page cache on the spot; reads take the
same way back, and a thread only if the pages are gone.

A spool may be opened again by a later process, after `kill -9` too, and goes on at the very same
offset. Whoever takes bytes from a pipe says so first (`expect`): if it is killed before they are
here, nobody can say how many they were, but that some are missing at this offset is on record.

A disk that is full, or broken, does not stop a program: the bytes it would not take are
dropped and counted, `disk_error` says why, and the next write tries again. What only memory has
does not outlive us.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import anyio

from sidecar.bell import Bell
from sidecar.clock import Clock
from sidecar.errors import CallError, Code, from_os_error
from sidecar.protocol.limits import (
    HOLD_TIME,
    READ_BYTES,
    SPOOL_GAPS,
    SPOOL_HEAD_BYTES,
    SPOOL_MEMORY_BYTES,
    SPOOL_TAIL_BYTES,
)
from sidecar.protocol.spool import OnFull, Placement, SpoolProtocol
from sidecar.protocol.streams import Piece
from sidecar.reading import OffsetReader
from sidecar.spoolbudget import SpoolBudget
from sidecar.spoolfile import PAGE, SpoolFile

Filter = Callable[[bytes], bytes]

_STEP = READ_BYTES  # what a spool reserves ahead, and therefore takes in one write at most


class Spool:
    """One writer, who asks for `room`; readers anywhere; perhaps an owner, who sets the pace.

    `filter` sees all bytes in order before anything is kept, and returns as many as it got.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        budget: SpoolBudget,
        *,
        head: int = SPOOL_HEAD_BYTES,
        tail: int = SPOOL_TAIL_BYTES,
        hold_time: float = HOLD_TIME,
        on_full: OnFull = OnFull.DROP,
        filter: Filter | None = None,
        reopened: SpoolFile | None = None,
    ) -> None:
        """With `reopened` it goes on where that file is; its layout is that of the file."""
        self.disk_error: str | None = None  # the latest, as in "ENOSPC"
        self.grown = Bell()  # whoever waits for more looks again
        self.on_write: Callable[[bytes], None] | None = None  # sees all bytes, filtered, in order
        self.gaps: list[int] = []  # offsets at which bytes are missing that nobody could count
        self._path = path
        self._clock = clock
        self._budget = budget
        self._filter = filter
        self._memory = bytearray()
        self._memory_limit = 0 if reopened else min(SPOOL_MEMORY_BYTES, head)
        self._file: SpoolFile | None = None
        self._reader: OffsetReader | None = None
        self._reserved = 0
        self._may_grow = True
        self._is_open = True
        self._room = Bell()
        if reopened is None:
            self._protocol = SpoolProtocol(
                head=head, tail=tail, hold_time=hold_time, on_full=on_full
            )
        else:
            self._protocol = self._reopened(reopened, hold_time, on_full)
        self._reserve()

    def _reopened(self, file: SpoolFile, hold_time: float, on_full: OnFull) -> SpoolProtocol:
        facts = file.facts
        if facts.reading:
            file.note_gap(facts.size)
            start, stop = facts.overwritten
            if start < stop:
                file.note_hole(start, stop, facts.unwritten)
            file.note_reading(0)
        self._use(file)
        self.gaps = file.gaps
        protocol = SpoolProtocol.restored(
            facts, now=self._clock.now(), hold_time=hold_time, on_full=on_full
        )
        self._reserved = min(facts.size, protocol.capacity)
        self._budget.claim(self._reserved)
        return protocol

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
    def skipped(self) -> int:
        """Bytes that its owner was not sent, because they were gone when it came to them."""
        return 0 if self._file is None else self._file.skipped

    def note_skipped(self, total: int) -> None:
        """The owner was not sent so many bytes in all."""
        if self._file is not None:
            self._file.note_skipped(total)

    def note_gap(self) -> None:
        """Bytes are missing here, nobody knows how many."""
        if self._prepare():
            assert self._file is not None
            self._file.note_gap(self.size)
            self.gaps = self._file.gaps
        elif self.size not in self.gaps and len(self.gaps) < SPOOL_GAPS:
            self.gaps.append(self.size)

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was printed yet, or expected."""
        return self._file is None and not self.size

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

    def expect(self, most: int) -> None:
        """At most so many bytes are about to be taken from a pipe and written here; 0: none came
        after all. Whoever is killed in between leaves a gap."""
        if self._prepare():
            assert self._file is not None
            self._file.note_reading(most)

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
        self._prepare()
        for place in self._protocol.accept(len(view), now=self._clock.now()):
            start = place.offset - begin
            self._store(place, view[start : start + place.size])
        if self._file is not None:
            self._file.note_size(self._protocol.size)
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
        """In memory, as far as it reaches, and in the file. Either will do for now."""
        in_memory = max(0, min(place.size, self._memory_limit - place.position))
        self._memory += data[:in_memory]
        in_file = self._write(place, data)
        stored = max(in_memory, in_file)
        if stored < place.size:
            self._protocol.failed(place.size - stored)
        self._protocol.stored(place.offset, stored)
        if in_file < place.size and self._file is not None:
            stop = place.offset + place.size
            self._file.note_hole(place.offset + in_file, stop, self._protocol.unwritten)

    def _write(self, place: Placement, data: memoryview) -> int:
        """How many of the bytes the file took."""
        written = 0
        try:
            while self._file is not None and written < place.size:
                written += self._file.write(data[written:], place.position + written)
        except OSError as error:
            self._note_error(error)
        return written

    def _prepare(self) -> bool:
        """Whether there is a file, once it was tried to make one."""
        if self._file is None and self._is_open and not self.has_ended:
            protocol = self._protocol
            try:
                file = SpoolFile.create(self._path, head=protocol.head, tail=protocol.tail)
            except OSError as error:
                self._note_error(error)
                return False
            if protocol.size:  # only memory has any of it
                file.note_hole(0, protocol.size, protocol.unwritten)
                file.note_size(protocol.size)
            for at in self.gaps:
                file.note_gap(at)
            file.note_owner(protocol.owner)
            self._use(file)
        return self._file is not None

    def _use(self, file: SpoolFile) -> None:
        self._file = file
        self._reader = OffsetReader(file.fd)

    def _note_error(self, error: OSError) -> None:
        self.disk_error = errno.errorcode.get(error.errno or 0, "EIO")

    def _reserve(self) -> None:
        """Have the budget for the next write, or make do with what there is."""
        wanted = min(self._protocol.size + _STEP, self._protocol.capacity) - self._reserved
        if wanted <= 0 or not self._may_grow or self._protocol.has_ended:
            return
        if self._budget.take(wanted):
            self._reserved += wanted
            if not self._is_open:  # room was made by closing this very spool
                self._give_back()
        else:
            self._may_grow = False
            self._protocol.shrink(self._reserved)
            if self._file is not None:
                self._file.note_bounds(self._protocol.head, self._protocol.tail)

    def end(self) -> None:
        """The program prints no more: readers come to an end. A second call is harmless."""
        if not self._is_open:
            return
        self._protocol.end()
        self._end_file()
        used = min(self._protocol.size, self._protocol.capacity)
        if self._reserved > used:
            self._budget.give_back(self._reserved - used)
            self._reserved = used
        self.grown.ring()

    def _end_file(self) -> None:
        """Let go of a file that nobody needs to read, for memory has it all."""
        if self._file is not None:
            self._file.note_end()
            if self._protocol.size <= self._memory_limit:
                self._file.close()
                self._file = self._reader = None

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
            data = await self._reader.read(PAGE + place.position, size)
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
        self._note_owner()

    def progress(self, offset: int) -> None:
        """The owner has everything up to `offset`. Lower than before: nothing changes."""
        self._protocol.progress(offset, now=self._clock.now())
        self._note_owner()

    def unfollow(self) -> None:
        """The owner is gone."""
        self._protocol.unfollow()
        self._note_owner()

    def _note_owner(self) -> None:
        if self._file is not None:
            self._file.note_owner(self._protocol.owner)
        self._room.ring()

    def close(self) -> None:
        """Give back memory and budget; whoever waits gets `anyio.ClosedResourceError`. The file
        stays, for a later process. A second call is harmless."""
        if not self._is_open:
            return
        self._is_open = False
        self._give_back()
        self._memory.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
        self.grown.ring()
        self._room.ring()

    def _give_back(self) -> None:
        self._budget.give_back(self._reserved)
        self._reserved = 0

    def _check_open(self) -> None:
        if not self._is_open:
            raise anyio.ClosedResourceError
