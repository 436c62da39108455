"""How long to wait before the next try: exponential, with full jitter.

Each delay is drawn evenly between nothing and a ceiling that doubles. When a hub restarts, all
sandboxes lose it in the same instant; a delay without chance would bring them back in waves.
Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Delays in seconds. `random` gives numbers from 0.0 to 1.0; it comes from outside."""

    def __init__(self, random: Callable[[], float], *, first: float, longest: float) -> None:
        self._random = random
        self._first = first
        self._longest = longest
        self._ceiling = first

    def next(self) -> float:
        """The delay before the next try."""
        ceiling = self._ceiling
        self._ceiling = min(self._longest, ceiling * 2)
        return self._random() * ceiling

    def reset(self) -> None:
        """It worked: the next delay is a short one again."""
        self._ceiling = self._first
