"""When a program has run long enough: in all, or without a byte in or out.

Times are seconds on one clock. What fires first counts.
"""

from __future__ import annotations

from typing import Literal

Which = Literal["total", "idle"]


class Timeouts:
    """The timeouts of one program that began at `began`; None is no timeout."""

    def __init__(self, began: float, *, total: float | None, idle: float | None) -> None:
        self._total = None if total is None else began + total
        self._idle = idle
        self._active = began

    def __bool__(self) -> bool:
        return self._total is not None or self._idle is not None

    @property
    def needs_activity(self) -> bool:
        """Whether `note_activity` has to be called."""
        return self._idle is not None

    def note_activity(self, now: float) -> None:
        """A byte went in or came out."""
        self._active = now

    def left(self, now: float) -> float:
        """Seconds until one may fire; later, if there is activity meanwhile."""
        return min(when for when, _ in self._deadlines()) - now

    def expired(self, now: float) -> Which | None:
        """The one that has fired."""
        when, which = min(self._deadlines())
        return which if now >= when else None

    def _deadlines(self) -> list[tuple[float, Which]]:
        deadlines: list[tuple[float, Which]] = []
        if self._total is not None:
            deadlines.append((self._total, "total"))
        if self._idle is not None:
            deadlines.append((self._active + self._idle, "idle"))
        return deadlines
