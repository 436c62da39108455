"""Changes that wait to be told: one for each path, however often it changed.

What counts is whether the path was there when it was told last, and whether it is now. What came
and went in between is nothing, what went and came again was modified. No I/O in here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sidecar.hands.fileinterface import FileType

WAITING_BYTES = 4 * 1024 * 1024  # of changes that nobody reads; more are lost. Up to 30 MiB for us
LARGE = WAITING_BYTES // 4
BATCH_BYTES = 48 * 1024  # of one batch, about
ROW_BYTES = 24  # of a change beside its path: kind, type, CBOR
NAMED = 16  # directories that cannot be watched; of more, none is named

SLOW_READER = "slow reader"  # changes were made faster than somebody took them
UNREADABLE = "unreadable"  # directories that cannot be watched, or lie too deep

Look = Callable[[bytes], FileType]  # the type of an entry that nobody has looked at yet


@dataclass(slots=True)
class _Row:
    existed: bool
    exists: bool
    type: FileType


class Changes:
    """In the order in which they were noticed first."""

    def __init__(self) -> None:
        self._rows: dict[bytes, _Row] = {}
        self._size = 0
        self._lost: str | None = None
        self._unwatched: list[bytes] = []

    def __bool__(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._rows or self._lost or self._unwatched)

    @property
    def is_large(self) -> bool:
        """So much waits that it is told at once, however long changes are to be gathered."""
        return self._size > LARGE

    def added(self, path: bytes, type: FileType) -> None:
        self._row(path, type, existed=False)

    def modified(self, path: bytes, type: FileType) -> None:
        self._row(path, type, existed=True)

    def removed(self, path: bytes, type: FileType) -> None:
        row = self._row(path, type, existed=True)
        if row is not None and not row.existed:
            del self._rows[path]
            self._size -= len(path) + ROW_BYTES
        elif row is not None:
            row.exists = False

    def lose(self, why: str) -> None:
        """Some may be missing: those that wait are of no use any more. What is told from here on
        is right again."""
        self._forget()
        self._lost = why

    def cannot_watch(self, path: bytes) -> None:
        """What changes below that directory will not be seen."""
        self._unwatched.append(path)
        if len(self._unwatched) > NAMED + 1:
            self._unwatched.pop()

    def take(self, look: Look) -> dict[str, Any]:
        """The next batch, paths as bytes."""
        if self._lost is not None:
            lost, self._lost = self._lost, None
            return {"lost": lost}
        if self._unwatched:
            paths, self._unwatched = self._unwatched, []
            return {"lost": UNREADABLE} | ({} if len(paths) > NAMED else {"paths": paths})
        return {"changes": self._take_rows(look)}

    def _take_rows(self, look: Look) -> list[list[Any]]:
        found: list[list[Any]] = []
        size = 0
        while self._rows and size < BATCH_BYTES:
            path = next(iter(self._rows))
            row = self._rows.pop(path)
            size += len(path) + ROW_BYTES
            if row.type is FileType.UNKNOWN and row.exists:
                row.type = look(path)
            kind = "removed" if not row.exists else "modified" if row.existed else "added"
            found.append([kind, path, str(row.type)])
        self._size -= size
        return found

    def _row(self, path: bytes, type: FileType, *, existed: bool) -> _Row | None:
        row = self._rows.get(path)
        if row is not None:
            row.exists, row.type = True, type
            return row
        if self._size > WAITING_BYTES:
            self.lose(SLOW_READER)
        if self._lost == SLOW_READER:
            return None  # until it reads again
        row = self._rows[path] = _Row(existed, True, type)
        self._size += len(path) + ROW_BYTES
        return row

    def _forget(self) -> None:
        self._rows.clear()
        self._size = 0
