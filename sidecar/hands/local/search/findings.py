r"""What a finder prints: where the lines are that match, not what they say.

A finder is ripgrep or our own (`linefinder`), which prints in ripgrep's format for --null
--line-number --column --byte-offset --max-columns=1 --stats, started for `./`:

    ./PATH NUL LINE:COLUMN:OFFSET:... LF     a line; OFFSET is that of its first byte in the file
    ./PATH: WARNING: stopped searching binary file after match (...) LF
    LF ... N files searched LF ...           the end

The second says of the file whose lines came just before that it has a NUL further on. (A name
that is made to look like it can mislead us about that file, and no further.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from sidecar.errors import CallError, Code

LONGEST = 64 * 1024  # bytes of one thing printed

_HEAD = re.compile(
    rb"(?:\./.*?: WARNING: stopped searching binary file after match \([^\n]*\)\n)*", re.DOTALL
)
_PLACE = re.compile(rb"(\d{1,18}):(\d{1,18}):(\d{1,18}):[^\n]*\n")
_SEARCHED = re.compile(rb"^(\d{1,18}) files searched$", re.MULTILINE)
_UNREADABLE = re.compile(rb"^(\d{1,18}) files unreadable$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Hit:
    """A line that matches, in the file whose hits it is among."""

    line: int
    column: int
    offset: int


@dataclass(slots=True)
class FileHits:
    """All of one file."""

    path: bytes
    hits: list[Hit] = field(default_factory=list)


class Findings:
    """Bytes in, files out: each when the next one begins, or the end is reached."""

    def __init__(self) -> None:
        self.searched: int | None = None  # files; known at the end
        self.unreadable = 0
        self._buffer = b""
        self._file: FileHits | None = None

    @property
    def unfinished(self) -> FileHits | None:
        """The file that is being searched, as far as that is known."""
        return self._file

    def receive(self, data: bytes) -> Iterator[FileHits]:
        """The files that are finished with `data`. Raises `CallError` for what no finder prints."""
        self._buffer += data
        at = 0
        while (nul := self._buffer.find(b"\0", at)) >= 0:
            place = _PLACE.match(self._buffer, nul + 1)
            if place is None:
                break
            yield from self._hit(self._buffer[at:nul], Hit(*map(int, place.groups())))
            at = place.end()
        self._buffer = self._buffer[at:]
        if len(self._buffer) > LONGEST:
            raise _strange()

    def finish(self) -> Iterator[FileHits]:
        """The last file. Sets the counts."""
        rest = self._buffer[self._end_of_warning(self._buffer) :]
        if self._file is not None:
            yield self._file
        if searched := _SEARCHED.search(rest):
            self.searched = int(searched[1])
        if unreadable := _UNREADABLE.search(rest):
            self.unreadable = int(unreadable[1])

    def _hit(self, head: bytes, hit: Hit) -> Iterator[FileHits]:
        head = head[self._end_of_warning(head) :]
        if not head.startswith(b"./"):
            raise _strange()
        path = head[2:]
        if self._file is None or self._file.path != path:
            if self._file is not None:
                yield self._file
            self._file = FileHits(path)
        self._file.hits.append(hit)

    def _end_of_warning(self, head: bytes) -> int:
        """Behind the warning that `head` begins with; the file that it is about is forgotten."""
        found = _HEAD.match(head)
        if found is None or not found.end():
            return 0
        self._file = None
        return found.end()


def _strange() -> CallError:
    return CallError(Code.INTERNAL, "the program that searches printed what it never prints")
