"""How long to wait before the next try: exponential, with full jitter.

Each delay is drawn evenly between nothing and a ceiling that doubles. When a hub restarts, all
sandboxes lose it in the same instant; a delay without chance would bring them back in waves.
Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.errors import ChannelError, NoToken, TokenRefused
from sidecar.protocol.channel_events import Timing


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


class Backoffs:
    """Those of a channel; each counts its own failures."""

    def __init__(self, random: Callable[[], float], timing: Timing) -> None:
        first, longest = timing.backoff_first, timing.backoff_longest
        self.recovery = Backoff(random, first=first, longest=longest)
        self.handover = Backoff(random, first=first, longest=longest)
        self._dial = Backoff(random, first=first, longest=longest)
        self._refused = Backoff(random, first=timing.refused_first, longest=timing.refused_longest)

    def reset(self) -> None:
        for backoff in (self.recovery, self.handover, self._dial, self._refused):
            backoff.reset()

    def before_dial(self, error: ChannelError) -> float | None:
        """Seconds until the next dial after `error`; None if only another token can help."""
        if error.is_final:
            return None
        is_refused = isinstance(error, TokenRefused | NoToken)
        delay = (self._refused if is_refused else self._dial).next()
        return delay if error.retry_after is None else error.retry_after
