"""The lines that a search found, as the tool `search` writes them and core reads them. No I/O.

A record (`records`) is a list of rows, one at least, a row is

    [path, line, column, text, cut]

path    bytes, below where the search began; empty if that is a file itself
line    its number, from 1
column  of the first match in it, in bytes, from 1; 0: it does not match, but stands near
text    bytes, without its end; the first ones if `cut`

Rows are sorted by path, name by name, and by line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sidecar.errors import ProtocolError
from sidecar.protocol.fields import is_bool, is_bytes, is_text, is_uint

PATH_BYTES = 8192
LIMIT = "limit"  # why a search ended early: there were more lines than wanted,
BYTES = "bytes"  # or more bytes than an answer has
ENGINES = frozenset({"ripgrep", "python"})


@dataclass(frozen=True, slots=True)
class FoundLine:
    """One row."""

    path: bytes
    line: int
    column: int
    text: bytes
    is_cut: bool

    @property
    def size(self) -> int:
        """Its share of an answer, in bytes."""
        return len(self.path) + len(self.text) + 16

    def row(self) -> list[Any]:
        return [self.path, self.line, self.column, self.text, self.is_cut]


def lines_from(record: Any, line_bytes: int) -> list[FoundLine]:
    """A record that hands wrote, which may be hostile. Raises `ProtocolError`."""
    if type(record) is not list or not record:  # lists of none could go on for ever
        raise ProtocolError("a list of lines was expected")
    return [_line_from(row, line_bytes) for row in record]


def _line_from(row: Any, line_bytes: int) -> FoundLine:
    if type(row) is list and len(row) == 5:
        path, line, column, text, is_cut = row
        is_path = is_bytes(path) and len(path) <= PATH_BYTES and b"\0" not in path
        is_place = is_uint(line) and is_uint(column)
        if is_path and is_place and is_bytes(text) and len(text) <= line_bytes and is_bool(is_cut):
            return FoundLine(path, line, column, text, is_cut)
    raise ProtocolError("a line that was found was expected, and it is something else")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search says at its end."""

    engine: str
    truncated: str | None
    searched: int | None  # files; None: it ended early
    unreadable: int  # files and directories

    def as_map(self) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "truncated": self.truncated,
            "searched": self.searched,
            "unreadable": self.unreadable,
        }


def outcome_from(found: Any) -> Outcome:
    """The same of what hands said. Raises `ProtocolError`."""
    if type(found) is dict and found.keys() == Outcome.__dataclass_fields__.keys():
        outcome = Outcome(**found)
        is_known = is_text(outcome.engine) and outcome.engine in ENGINES
        is_why = outcome.truncated in (None, LIMIT, BYTES)
        is_count = outcome.searched is None or is_uint(outcome.searched)
        if is_known and is_why and is_count and is_uint(outcome.unreadable):
            return outcome
    raise ProtocolError("the end of a search was expected, and it is something else")
