"""The latest events in memory: what readers that have caught up are given.

Parallel lists, whose places before `_start` are evicted and cleared in strides: a deque would make
a read from the middle walk there. `_offsets` holds, for each record, the bytes of the series up
to its beginning, and one more for the end, so that a batch is found by bisection.

An event that could not be kept at all has its number here, and no bytes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator


class Tail:
    """The events `first` to `last`; none if `first` is one more."""

    def __init__(self, *, last: int = 0, total_bytes: int = 0) -> None:
        self._records: list[bytes] = []
        self._offsets = array("Q", [total_bytes])
        self._start = 0
        self.first = last + 1

    @property
    def last(self) -> int:
        return self.first + len(self._records) - self._start - 1

    @property
    def size(self) -> int:
        """Bytes of the events kept here."""
        return self._offsets[-1] - self._offsets[self._start]

    def append(self, record: bytes, *, is_kept: bool = True) -> None:
        self._records.append(record if is_kept else b"")
        self._offsets.append(self._offsets[-1] + len(record))

    def drop_first(self) -> None:
        self._records[self._start] = b""
        self._start += 1
        self.first += 1
        if self._start * 2 > len(self._records):
            del self._records[: self._start]
            del self._offsets[: self._start]
            self._start = 0

    def _place(self, seq: int) -> int:
        return self._start + seq - self.first

    def offset_at(self, seq: int) -> int:
        """Bytes of the series up to the end of `seq`, which is kept, or is the one before."""
        return self._offsets[self._place(seq) + 1]

    def batch(self, seq: int, *, upto: int, max_bytes: int, max_records: int) -> list[bytes]:
        """Records from `seq` to `upto` within both limits; they end before one that was not
        kept."""
        start = self._place(seq)
        stop = bisect_right(self._offsets, self._offsets[start] + max_bytes, lo=start) - 1
        records = self._records[start : min(stop, start + max_records, self._place(upto) + 1)]
        return records[: records.index(b"")] if b"" in records else records

    def lost_from(self, seq: int) -> tuple[int, int] | None:
        """If `seq` was not kept: the last one in a row of which that is true, and their bytes."""
        end = seq
        while end <= self.last and not self._records[self._place(end)]:
            end += 1
        if end == seq:
            return None
        return end - 1, self.offset_at(end - 1) - self.offset_at(seq - 1)

    def records_after(self, seq: int) -> Iterator[tuple[int, bytes]]:
        """Each event after `seq` with its number; without bytes if it was not kept."""
        for number in range(max(seq + 1, self.first), self.last + 1):
            yield number, self._records[self._place(number)]
