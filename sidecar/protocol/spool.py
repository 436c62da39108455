"""Which bytes of a program's output are kept, where they lie, and when the program must wait.

Offsets count every byte that the program printed, kept or not. Kept are a head (the first
bytes, to the end) and a tail (the latest, in a ring); what falls between them is dropped.

    offset    0 ........ head ........ size - tail ........ size
              [  head  ]      dropped      [     tail      ]
    position  0 ........ head ............ head + (offset - head) % tail

Room. The reader who started the program *owns* the spool's pace. Bytes behind the head that it
has not read are not overwritten, so a full spool has no room and the program waits on its pipe:

- while the owner makes progress, for ever;
- after `hold_time` without progress, or without an owner, as `on_full` says: `drop` overwrites
  the oldest of the tail, `hold` stays full until somebody makes progress.

The time without progress begins when there is something to read, not while the owner is at the
end. Bytes that a disk would not take leave holes; so what is kept is a list of ranges.

Where bytes lie follows from their offset alone, so that a store which outlives its process needs
only a few numbers beside the bytes (`Facts`) to be gone on with at the same offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sidecar.errors import Invalid
from sidecar.protocol.limits import (
    HOLD_TIME,
    SPOOL_FLOOR_BYTES,
    SPOOL_HEAD_BYTES,
    SPOOL_RANGES,
    SPOOL_TAIL_BYTES,
)


class OnFull(StrEnum):
    """What a full spool does when its owner is silent or gone."""

    DROP = "drop"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Placement:
    """`size` bytes of offset `offset` belong at `position` of the store, in one piece."""

    offset: int
    position: int
    size: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What a store says of a spool that an earlier process had filled.

    `reading` is set if that process was killed between taking bytes from the pipe and keeping
    them: how many there were at most, all behind `size`. Some of what the ring held may have been
    overwritten by them already.
    """

    head: int
    tail: int
    size: int = 0
    reading: int = 0
    has_ended: bool = False
    unwritten: int = 0
    holes: Sequence[tuple[int, int]] = ()  # the store has not got these
    owner: int | None = None  # what its owner has, if it has one

    @property
    def overwritten(self) -> tuple[int, int]:
        """What of the ring may have been overwritten by the read that was under way."""
        start = max(self.head, self.size - self.tail)
        return start, max(start, self.size + self.reading - self.tail)


class SpoolProtocol:
    """The offsets of one spool. `now` is in seconds."""

    def __init__(
        self,
        *,
        head: int = SPOOL_HEAD_BYTES,
        tail: int = SPOOL_TAIL_BYTES,
        hold_time: float = HOLD_TIME,
        on_full: OnFull = OnFull.DROP,
    ) -> None:
        self.size = 0  # bytes printed so far
        self.unwritten = 0  # of them, bytes that the store would not take
        self.has_ended = False
        self._head = head
        self._tail = tail
        self._hold_time = hold_time
        self._on_full = on_full
        self._kept: list[tuple[int, int]] = []  # sorted, apart from each other
        self._has_owner = False
        self._position = 0  # what the owner has, or had
        self._progress_at = 0.0

    @classmethod
    def restored(
        cls,
        facts: Facts,
        *,
        now: float,
        hold_time: float = HOLD_TIME,
        on_full: OnFull = OnFull.DROP,
    ) -> SpoolProtocol:
        """One that goes on where an earlier process was. Its owner has to come back, and has time
        for that, as one that is silent."""
        spool = cls(head=facts.head, tail=facts.tail, hold_time=hold_time, on_full=on_full)
        spool.size, spool.unwritten = facts.size, facts.unwritten
        spool.has_ended = facts.has_ended
        if facts.owner is not None:
            spool.follow(facts.owner, now=now)
        spool._kept = [(0, facts.size)]
        spool._forget(facts.head, facts.size - facts.tail)
        for start, stop in (facts.overwritten, *facts.holes):
            spool._forget(start, stop)
        return spool

    @property
    def owner(self) -> int | None:
        """What its owner has, if it has one."""
        return self._position if self._has_owner else None

    @property
    def head(self) -> int:
        """How many of the first bytes are kept."""
        return self._head

    @property
    def tail(self) -> int:
        """How many of the latest bytes are kept."""
        return self._tail

    @property
    def capacity(self) -> int:
        """Bytes that the store must be able to hold."""
        return self._head + self._tail

    @property
    def dropped(self) -> int:
        """Bytes that can no longer be read."""
        return self.missing(0)

    def missing(self, after: int) -> int:
        """Bytes printed after offset `after` that can no longer be read."""
        kept = sum(max(0, stop - max(start, after)) for start, stop in self._kept)
        return max(0, self.size - after) - kept

    # Writing -----------------------------------------------------------------------------

    def room(self, *, now: float) -> int:
        """How many bytes the program may print now."""
        is_protected = self._on_full is OnFull.HOLD or self._is_followed(now)
        oldest = self._position if is_protected else self.size
        return max(0, max(oldest, self._head) + self._tail - self.size)

    def _is_followed(self, now: float) -> bool:
        return self._has_owner and now < self._progress_at + self._hold_time

    def next_deadline(self, *, now: float) -> float | None:
        """When a spool without room will have some although nobody makes progress."""
        if self._on_full is OnFull.DROP and self.room(now=now) == 0:
            return self._progress_at + self._hold_time
        return None

    def accept(self, size: int, *, now: float) -> list[Placement]:
        """The program printed `size` bytes; store them as told, then say `stored` or `failed`.

        What they overwrite is forgotten first, so that no reader finds new bytes under an old
        offset.
        """
        room = self.room(now=now)
        if self.has_ended or size > room:
            raise AssertionError(f"{size} bytes for a spool with room for {room}")
        if self._position >= self.size:
            self._progress_at = now
        begin, self.size = self.size, self.size + size
        self._forget(self._head, self.size - self._tail)
        return self._places(begin, self.size)

    def _places(self, start: int, stop: int) -> list[Placement]:
        places = []
        while start < stop:
            size = min(self._contiguous(start), stop - start)
            places.append(Placement(start, self._position_of(start), size))
            start += size
        return places

    def _position_of(self, offset: int) -> int:
        if offset < self._head:
            return offset
        return self._head + (offset - self._head) % self._tail

    def _contiguous(self, offset: int) -> int:
        """How far the bytes from `offset` on lie behind each other in the store."""
        end = self._head if offset < self._head else self._head + self._tail
        return end - self._position_of(offset)

    def stored(self, offset: int, size: int) -> None:
        """The bytes from `offset` on can be read."""
        if size == 0:
            return
        if self._kept and self._kept[-1][1] == offset:
            offset, size = self._kept[-1][0], size + offset - self._kept[-1][0]
            self._kept.pop()
        self._kept.append((offset, offset + size))
        if len(self._kept) > SPOOL_RANGES:
            del self._kept[1]

    def failed(self, size: int) -> None:
        """The store would not take `size` of the bytes it was told of."""
        self.unwritten += size

    def _forget(self, start: int, stop: int) -> None:
        if start >= stop:
            return
        kept = []
        for left, right in self._kept:
            before, after = (left, min(right, start)), (max(left, stop), right)
            kept += [piece for piece in (before, after) if piece[0] < piece[1]]
        self._kept = kept

    def shrink(self, capacity: int) -> None:
        """Make do with `capacity`, though with no less than is stored, and than the floor.

        What is stored stays where it is: the head ends here if it was still being filled,
        else the ring closes early. Not for a spool whose ring has come round.
        """
        if self.size > self.capacity:
            raise AssertionError("the ring has come round and needs no more")
        if capacity < self._head:
            self._head = min(self._head, max(capacity, self.size, SPOOL_FLOOR_BYTES))
        used = max(0, self.size - self._head)
        self._tail = min(self._tail, max(capacity - self._head, used, SPOOL_FLOOR_BYTES))

    def end(self) -> None:
        """The program prints no more. A second time is harmless."""
        self.has_ended = True

    # Reading -----------------------------------------------------------------------------

    def find(self, offset: int) -> Placement:
        """The first kept bytes at or after `offset`; of size 0 if there are none (yet)."""
        if not 0 <= offset <= self.size:
            raise Invalid(f"offset {offset} is outside what was printed: 0 to {self.size}")
        for start, stop in self._kept:
            if offset < stop:
                start = max(start, offset)
                size = min(self._contiguous(start), stop - start)
                return Placement(start, self._position_of(start), size)
        return Placement(self.size, self._position_of(self.size), 0)

    def follow(self, offset: int, *, now: float) -> None:
        """There is an owner, who has everything up to `offset`."""
        self._check_progress(offset)
        self._has_owner = True
        self._position = offset
        self._progress_at = now

    def progress(self, offset: int, *, now: float) -> None:
        """The owner, or in a spool that holds anybody, has everything up to `offset`."""
        self._check_progress(offset)
        if offset > self._position:
            self._position = offset
            self._progress_at = now

    def unfollow(self) -> None:
        """The owner is gone."""
        self._has_owner = False

    def _check_progress(self, offset: int) -> None:
        if not 0 <= offset <= self.size:
            raise Invalid(f"progress to {offset}, but {self.size} bytes were printed")
