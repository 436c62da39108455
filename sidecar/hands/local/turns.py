"""One thread after the other, for each thing that must not be done twice at once."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Turn:
    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0  # who holds it, and who waits


class Turns:
    """Locks by key, each of which is there only while somebody uses it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held for a few instructions only
        self._turns: dict[Hashable, _Turn] = {}

    @contextmanager
    def hold(self, key: Hashable) -> Iterator[None]:
        """Nobody else holds `key` in the block."""
        with self._lock:
            turn = self._turns.setdefault(key, _Turn())
            turn.users += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._lock:
                turn.users -= 1
                if not turn.users:
                    del self._turns[key]
