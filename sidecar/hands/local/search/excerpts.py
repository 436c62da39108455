"""What stands in the lines that were found, and around them.

It is read here, through a descriptor that was resolved beneath the root, whoever found it: a
finder that was led somewhere else, by a link that somebody put into its way, can name lines there,
but what they say is never shown. A line is shown if one begins where the finder says; a file that
was rewritten meanwhile may show another line there than the one that was found.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sidecar.errors import CallError
from sidecar.hands.foundlines import FoundLine
from sidecar.hands.local.beneath import Beneath, through_proc
from sidecar.hands.local.search.findings import FileHits, Hit

AROUND = 64 * 1024  # bytes before and after a line in which lines near it are looked for
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Excerpts:
    """How much is shown: lines before and after, and bytes of each."""

    before: int
    after: int
    line_bytes: int

    def of(self, place: Beneath | int, file: FileHits) -> list[FoundLine]:
        """The lines of one file, in order. None if it cannot be read any more, or is none.
        `place`: the directory where the search began, or the descriptor of a file (O_PATH)."""
        try:
            opened = _open(place, file.path)
        except (CallError, OSError):
            return []
        found: dict[int, FoundLine] = {}
        try:
            if stat.S_ISREG(os.fstat(opened).st_mode):
                for hit in file.hits:
                    for line in self._around(opened, file.path, hit):
                        if line.column or line.line not in found:
                            found[line.line] = line
        except OSError:
            pass  # the disk; what was read before is shown
        finally:
            os.close(opened)
        return [found[number] for number in sorted(found)]

    def _around(self, fd: int, path: bytes, hit: Hit) -> Iterator[FoundLine]:
        size = AROUND if self.after else self.line_bytes + 2  # room for CR LF
        begin = max(0, hit.offset - (AROUND if self.before else 1))
        window = os.pread(fd, hit.offset - begin + size, begin)
        lead, text = window[: hit.offset - begin], window[hit.offset - begin :]
        if not text or (lead and not lead.endswith(b"\n")):
            return  # it is not the file that it was
        before = _whole_lines(lead, from_start=begin == 0)[-self.before :] if self.before else []
        first, *after = text.split(b"\n", self.after + 1)
        for number, line in enumerate(before, hit.line - len(before)):
            yield self._line(path, number, 0, line)
        yield self._line(path, hit.line, hit.column, first)
        is_end = len(text) < size
        for number, line in enumerate(_shown(after, self.after, is_end=is_end), hit.line + 1):
            yield self._line(path, number, 0, line)

    def _line(self, path: bytes, number: int, column: int, line: bytes) -> FoundLine:
        line = line.removesuffix(b"\r")
        shown = line[: self.line_bytes]
        return FoundLine(path, number, column, _trimmed(shown, line), len(shown) < len(line))


def _open(place: Beneath | int, path: bytes) -> int:
    if isinstance(place, int):
        return os.open(through_proc(place), _READ)
    with place.resolved(path, follow=False) as found:
        if not stat.S_ISREG(os.fstat(found).st_mode):  # no FIFO is ever opened
            raise FileNotFoundError
        return os.open(through_proc(found), _READ)


def _whole_lines(lead: bytes, *, from_start: bool) -> list[bytes]:
    """The lines of `lead`, which ends with one; its first is whole if the file begins there."""
    lines = lead.split(b"\n")[:-1]
    return lines if from_start else lines[1:]


def _shown(after: Sequence[bytes], count: int, *, is_end: bool) -> Sequence[bytes]:
    """The lines that follow: of what was split off, the last piece is no line, unless the file
    ends with it."""
    if len(after) <= count and (not is_end or (after and not after[-1])):
        after = after[:-1]
    return after[:count]


def _trimmed(shown: bytes, line: bytes) -> bytes:
    """`shown`, which may end within a character of UTF-8, without the piece of it."""
    if len(shown) == len(line):
        return shown
    for length in range(1, 4):
        lead = shown[-length] if length <= len(shown) else 0
        if lead >= 0xC0:  # the first byte of a character that is longer than what is left of it
            needed = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return shown[:-length] if needed > length else shown
        if lead < 0x80:
            break
    return shown
