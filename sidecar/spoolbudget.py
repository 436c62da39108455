"""The bytes on disk that the spools of a process share."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.protocol.limits import SPOOLS_BYTES


class SpoolBudget:
    """Taken before bytes are written. Whoever has none left may be asked to make room."""

    def __init__(self, limit: int = SPOOLS_BYTES) -> None:
        self.limit = limit
        self.used = 0
        self.make_room: Callable[[int], None] | None = None  # asked to free so many bytes

    def take(self, size: int) -> bool:
        """Reserve `size` bytes, or nothing."""
        if self.used + size > self.limit and self.make_room is not None:
            self.make_room(self.used + size - self.limit)
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def claim(self, size: int) -> None:
        """Reserve `size` bytes that are there already, whatever the limit says."""
        self.used += size

    def give_back(self, size: int) -> None:
        self.used -= size
