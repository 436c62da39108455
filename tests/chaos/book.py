"""What the controller writes down before it acts on it: all that it knows after a `kill -9`.

One JSON object a line, each written by one `write` with O_APPEND. Whoever is killed has written
a line or has not; what a program writes outlives it (write(2)), only a power cut does not.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.client import Cursor, Event, Gap


class Lines:
    """A file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def add(self, entry: dict[str, Any]) -> None:
        os.write(self._fd, json.dumps(entry).encode() + b"\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All of them, in order; none if there is no such file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@dataclass(slots=True)
class Called:
    """One call as the book has it. `done` is what the controller was told in the end."""

    id: bytes
    number: int
    attempt: int
    at: float  # seconds on the monotonic clock, as all times here
    resumed: int = 0  # by how many later lives of the controller
    cancelled: bool = False  # by one of them
    skips: list[tuple[int, int, int]] = field(default_factory=list)  # stream, from, to
    done: dict[str, Any] | None = None

    @property
    def mark(self) -> str:
        return self.id.hex()


class Book:
    """The calls of a controller, in a folder of its own, with the bytes that came for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: dict[bytes, Called] = {}
        self.is_finished = False
        for entry in read_lines(folder / "book"):
            self._take(entry)
        self._lines = Lines(folder / "book")

    def note(self, what: str, **fields: Any) -> None:
        entry = {"what": what, **fields}
        self._lines.add(entry)
        self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        if entry["what"] == "finished":
            self.is_finished = True
            return
        id = bytes.fromhex(entry["id"])
        match entry["what"]:
            case "call":
                self.calls[id] = Called(id, entry["number"], entry["attempt"], entry["at"])
            case "resume":
                self.calls[id].resumed += 1
            case "cancel":
                self.calls[id].cancelled = True
            case "skip":
                self.calls[id].skips.append((entry["n"], entry["from"], entry["to"]))
            case "done":
                self.calls[id].done = entry

    def output(self, id: bytes, n: int) -> Path:
        """Where the bytes of a stream are kept, each at its offset."""
        return self.folder / f"{id.hex()}.{n}"

    def received(self, id: bytes, n: int) -> int:
        """Up to where a stream was received or skipped."""
        path = self.output(id, n)
        size = path.stat().st_size if path.exists() else 0
        return max([size, *(to for m, _, to in self.calls[id].skips if m == n)])


class EventBook:
    """The events that one reader got, in order."""

    def __init__(self, path: Path) -> None:
        self.cursor = Cursor()
        for entry in read_lines(path):
            self.cursor = Cursor(bytes.fromhex(entry["series"]), entry["seq"])
        self._lines = Lines(path)

    def note(self, item: Event | Gap) -> None:
        assert item.cursor.series is not None
        entry: dict[str, Any] = {"series": item.cursor.series.hex(), "seq": item.cursor.seq}
        if isinstance(item, Gap):
            entry |= {"gap": [item.first, item.last], "why": str(item.why)}
        else:
            call = None if item.call is None else item.call.hex()
            entry |= {"name": item.name, "call": call, "time": item.time, "data": repr(item.data)}
        self._lines.add(entry)
        self.cursor = item.cursor
