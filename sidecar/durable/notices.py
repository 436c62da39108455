"""What befell the journal, told as events once somebody can."""

from __future__ import annotations

from typing import Any

from sidecar.journal import Emit


class Notices:
    """Kept until `announce`, then told at once."""

    def __init__(self) -> None:
        self._emit: Emit | None = None
        self._waiting: list[tuple[str, dict[str, Any]]] = []

    def announce(self, emit: Emit) -> None:
        self._emit = emit
        waiting, self._waiting = self._waiting, []
        for name, data in waiting:
            emit(name, data)

    def tell(self, name: str, data: dict[str, Any]) -> None:
        if self._emit is not None:
            self._emit(name, data)
        else:
            self._waiting.append((name, data))
