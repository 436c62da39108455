"""What a tool passed over, entry by entry, with the reason: bounded, and counted beyond that."""

from __future__ import annotations

MOST = 1000  # entries that are named
MOST_BYTES = 128 * 1024  # of their paths; a result is `tools.OUTCOME_BYTES` at the most


class Refusals:
    def __init__(self) -> None:
        self.rows: list[list[bytes | str]] = []
        self.count = 0
        self._room = MOST_BYTES

    def add(self, path: bytes, why: str) -> None:
        self.count += 1
        self._room -= len(path)
        if len(self.rows) < MOST and self._room >= 0:
            self.rows.append([path, why])


def reason(error: OSError) -> str:
    """Why the system did not do it, without a path."""
    return error.strerror or "input/output error"
