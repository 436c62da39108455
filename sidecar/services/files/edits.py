"""Exact replacements in the bytes of a file, and why one could not be made.

Each replacement works on what the one before it left; either all are made or none. What is to be
replaced is counted from the left and without overlap, as `bytes.count` does, except where it must
be the only one: then a second place that overlaps the first makes it ambiguous, too.

A replacement that does not fit is `precondition_failed`, for the file is not as the caller thinks.
Its details:

    edit    index of the replacement, from 0
    reason  `not_found`, or `count`: it stands there, but not as often as was expected
    found, expected   how often
    lines   where it stands, the first 20 of them, as line numbers from 1
    hints   with `not_found`, what may have happened, as [what, line]:
                line_ends   it stands there with other line ends (CRLF or LF)
                whitespace  it stands there but for spaces, tabs and line ends
                applied     what would replace it stands there already
                earlier     it was there before the replacements that precede it in this call

Line numbers are of the text that the replacement met.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.errors import CallError, Code, LimitExceeded
from sidecar.protocol.limits import EDIT_BYTES

SHOWN_LINES = 20  # of the places that an error lists
WHITESPACE = b" \t\r\n\f\v"


@dataclass(frozen=True, slots=True)
class Edit:
    """`old` becomes `new`, where it stands `count` times; 0: any number of times, but once."""

    old: bytes
    new: bytes
    count: int = 1


@dataclass(frozen=True, slots=True)
class Edited:
    """What came out, and for each edit how many places it changed and the line of the first, in
    the text that it left."""

    content: bytes
    replaced: list[int]
    lines: list[int]


def apply(content: bytes, edits: Sequence[Edit]) -> Edited:
    """Make all of `edits`. Raises `CallError` for the first one that does not fit; also if the
    text outgrows `EDIT_BYTES`."""
    text = content
    replaced: list[int] = []
    lines: list[int] = []
    for index, edit in enumerate(edits):
        found = _count(text, edit)
        if not found or found != (edit.count or found):
            raise _refusal(text, edits, index, found, original=content)
        size = len(text) + found * (len(edit.new) - len(edit.old))
        if size > EDIT_BYTES:
            raise LimitExceeded("bytes of an edited file", size=size, limit=EDIT_BYTES, edit=index)
        replaced.append(found)
        lines.append(_line_at(text, text.index(edit.old)))
        text = text.replace(edit.old, edit.new)
    return Edited(text, replaced, lines)


def _count(text: bytes, edit: Edit) -> int:
    found = text.count(edit.old)
    if found == edit.count == 1 and text.find(edit.old, text.index(edit.old) + 1) >= 0:
        return 2  # they overlap
    return found


def _line_at(text: bytes, offset: int) -> int:
    return text.count(b"\n", 0, offset) + 1


# Why it does not fit --------------------------------------------------------------------------


def _refusal(
    text: bytes, edits: Sequence[Edit], index: int, found: int, *, original: bytes
) -> CallError:
    edit = edits[index]
    details: dict[str, Any] = {"edit": index, "found": found, "expected": edit.count}
    if found:
        lines = list(_lines_of(text, edit.old))
        shown = ", ".join(map(str, lines)) + (", ..." if found > len(lines) else "")
        words = f"its text was expected {edit.count} times and stands {found} times, lines {shown}"
        details |= {"reason": "count", "lines": lines}
    else:
        hints = list(_hints(text, edit, original))
        words = "; ".join(["its text is not there", *(f"{_HINTS[name]} {n}" for name, n in hints)])
        details |= {"reason": "not_found", "hints": [list(hint) for hint in hints]}
    sentence = f"replacement {index + 1} of {len(edits)}: {words}"
    return CallError(Code.PRECONDITION_FAILED, sentence, **details)


def _lines_of(text: bytes, old: bytes) -> Iterator[int]:
    """The lines of the first places, also of those that overlap the one before."""
    line, at, start = 1, 0, 0
    for _ in range(SHOWN_LINES):
        place = text.find(old, start)
        if place < 0:
            return
        line += text.count(b"\n", at, place)
        at, start = place, place + 1
        yield line


_HINTS = {
    "line_ends": "with other line ends (CRLF or LF) it is at line",
    "whitespace": "but for whitespace it is at line",
    "applied": "what would replace it is at line",
    "earlier": "before the replacements that precede it, it was at line",
}


def _hints(text: bytes, edit: Edit, original: bytes) -> Iterator[tuple[str, int]]:
    """What may have happened, and where."""
    if line := _line_but_for_line_ends(text, edit.old):
        yield "line_ends", line
    elif line := _line_but_for_whitespace(text, edit.old):
        yield "whitespace", line
    if edit.new and (place := text.find(edit.new)) >= 0:
        yield "applied", _line_at(text, place)
    if (place := original.find(edit.old)) >= 0:
        yield "earlier", _line_at(original, place)


def _line_but_for_line_ends(text: bytes, old: bytes) -> int:
    """0 if it stands nowhere."""
    plain = text.replace(b"\r\n", b"\n")
    place = plain.find(old.replace(b"\r\n", b"\n"))
    return 0 if place < 0 else _line_at(plain, place)


def _line_but_for_whitespace(text: bytes, old: bytes) -> int:
    """0 if it stands nowhere, or is nothing but whitespace. In time linear in the text, which a
    regular expression with `\\s+` between the words would not be."""
    wanted = _inked(old)
    place = _inked(text).find(wanted)
    if not wanted or place < 0:
        return 0
    low, high, left = 0, len(text), place  # `left` bytes that are no whitespace lie before it
    while high - low > 1:
        middle = (low + high) // 2
        passed = len(_inked(text[low:middle]))
        if passed > left:
            high = middle
        else:
            low, left = middle, left - passed
    return _line_at(text, low)


def _inked(text: bytes) -> bytes:
    return text.translate(None, WHITESPACE)
