"""The file of a spool: a page of facts that outlive `kill -9`, then the bytes.

The kernel keeps what was written to a file, and what was stored in a shared mapping of it, when
the process that did so is killed (mmap(2), MAP_SHARED). So the facts are a mapped page: to note
one is a store, not a system call, and there are two for each read of a pipe. Each is one aligned
machine word, which is there whole or not at all; the order of the stores says the rest. Nothing
is synced: a power cut takes the programs too.

The page is written before it is mapped, so that its block is there: a store to a page for which
the disk has no room would be SIGBUS. (posix_fallocate does the same on ext4 in 130 us.)

    word 0      what this is, and the version of the format
    1, 2        size of what was printed; how much more a read under way may bring, else 0
    3, 4        head and tail, as in `protocol.spool`
    5           1 if the program prints no more
    6, 7        bytes that the owner was not sent because they were gone; that no disk took
    8, 9        how many holes and gaps follow
    10          1 + the offset that the owner has; 0: nobody owns its pace
    16 ...      holes: offset where it begins, offset where it ends
    144 ...     gaps: offset at which bytes are missing that nobody could count
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from sidecar.protocol.limits import SPOOL_GAPS, SPOOL_RANGES
from sidecar.protocol.spool import Facts

PAGE = 4096  # bytes; a multiple of it is where a mapping may begin
MAGIC = int.from_bytes(b"spool 01", "little")
_KIND, _SIZE, _READING, _HEAD, _TAIL, _ENDED, _SKIPPED, _UNWRITTEN, _HOLES, _GAPS, _OWNER = range(
    11
)
_FIRST_HOLE = 16
_FIRST_GAP = _FIRST_HOLE + 2 * SPOOL_RANGES
_WORDS = _FIRST_GAP + SPOOL_GAPS
_FACTS = struct.Struct(f"={_WORDS}Q")


class SpoolFile:
    """Made by `create` or `reopen`, both of which raise `OSError`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, PAGE)
        self._words = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls, path: Path, *, head: int, tail: int) -> SpoolFile:
        """A new file; what had this name before is gone."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(path, flags, 0o600)
        words = [0] * _WORDS
        words[_KIND], words[_HEAD], words[_TAIL] = MAGIC, head, tail
        try:
            os.pwrite(fd, _FACTS.pack(*words).ljust(PAGE, b"\0"), 0)
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def reopen(cls, path: Path) -> SpoolFile:
        """One that an earlier process made. Raises `ValueError` for a file that is no spool."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if os.fstat(fd).st_size < PAGE or os.pread(fd, 8, 0) != MAGIC.to_bytes(8, "little"):
                raise ValueError(f"{path} is no spool that we know")
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    # Facts -------------------------------------------------------------------------------

    @property
    def facts(self) -> Facts:
        """As an earlier process left them."""
        words = self._words
        return Facts(
            head=words[_HEAD],
            tail=words[_TAIL],
            size=words[_SIZE],
            reading=words[_READING],
            has_ended=bool(words[_ENDED]),
            unwritten=words[_UNWRITTEN],
            owner=words[_OWNER] - 1 if words[_OWNER] else None,
            holes=tuple(
                (words[_FIRST_HOLE + 2 * n], words[_FIRST_HOLE + 2 * n + 1])
                for n in range(words[_HOLES])
            ),
        )

    @property
    def gaps(self) -> list[int]:
        """The offsets at which bytes are missing that nobody could count."""
        return list(self._words[_FIRST_GAP : _FIRST_GAP + self._words[_GAPS]])

    @property
    def skipped(self) -> int:
        """Bytes that its owner was not sent, because they were gone when it came to them."""
        return self._words[_SKIPPED]

    def note_reading(self, most: int) -> None:
        """At most so many bytes are about to be taken from the pipe; 0: none were."""
        self._words[_READING] = most

    def note_size(self, size: int) -> None:
        """Everything up to `size` is here, or noted as a hole. Nothing is being read."""
        self._words[_SIZE] = size
        self._words[_READING] = 0

    def note_bounds(self, head: int, tail: int) -> None:
        """The layout changed, and nothing that is here has another place by it."""
        self._words[_HEAD] = head
        self._words[_TAIL] = tail

    def note_skipped(self, total: int) -> None:
        self._words[_SKIPPED] = total

    def note_owner(self, position: int | None) -> None:
        """What its owner has; None: nobody owns its pace."""
        self._words[_OWNER] = 0 if position is None else 1 + position

    def note_hole(self, start: int, stop: int, unwritten: int) -> None:
        """These are not here. Over the bound, the last hole grows over what lies between."""
        words = self._words
        words[_UNWRITTEN] = unwritten
        count = words[_HOLES]
        at = _FIRST_HOLE + 2 * count
        if count and (words[at - 1] == start or count == SPOOL_RANGES):
            words[at - 2] = min(words[at - 2], start)
            words[at - 1] = max(words[at - 1], stop)
            return
        words[at] = start
        words[at + 1] = stop
        words[_HOLES] = count + 1

    def note_gap(self, at: int) -> None:
        """Bytes are missing at `at`. The same place twice is one gap, and the last of too many
        stands for all that come after it."""
        count = self._words[_GAPS]
        if count and (self._words[_FIRST_GAP + count - 1] == at or count == SPOOL_GAPS):
            return
        self._words[_FIRST_GAP + count] = at
        self._words[_GAPS] = count + 1

    def note_end(self) -> None:
        """The program prints no more."""
        self._words[_ENDED] = 1

    # Bytes -------------------------------------------------------------------------------

    def write(self, data: memoryview, position: int) -> int:
        """How many bytes the file took: fewer than all where it is about to be full."""
        return os.pwrite(self.fd, data, PAGE + position)

    def close(self) -> None:
        """Let go of it; a later process may open it again."""
        self._words.release()
        self._map.close()
        os.close(self.fd)
