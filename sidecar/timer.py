"""One timer that calls back when a deadline on our clock has passed.

Asyncio's own timers run on CLOCK_MONOTONIC, which stands still while a laptop sleeps. This
one asks our clock again when it fires, and sleeps at most `LONGEST` at a time, so that a
deadline which passed during the sleep is seen soon after it. With no deadline set, it costs
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio

from sidecar.clock import Clock

LONGEST = 60.0  # seconds between looks at the clock


class Timer:
    """Calls `fire` in the event loop once the deadline has passed."""

    def __init__(self, clock: Clock, fire: Callable[[], None]) -> None:
        self._clock = clock
        self._fire = fire
        self._deadline: float | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._wakes_at = 0.0

    def set(self, deadline: float | None) -> None:
        """Fire at `deadline`; None: never. Replaces an earlier one. Cheap when it is later."""
        self._deadline = deadline
        if deadline is None:
            self.cancel()
        elif self._handle is None or deadline < self._wakes_at:
            self._arm(deadline)

    def sooner(self, deadline: float | None) -> None:
        """Fire at `deadline` if that is before what is set. `fire` looks for what comes next."""
        if deadline is not None and (self._deadline is None or deadline < self._deadline):
            self.set(deadline)

    def cancel(self) -> None:
        self._deadline = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, deadline: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        now = self._clock.now()
        delay = min(max(0.0, deadline - now), LONGEST)
        self._wakes_at = now + delay
        self._handle = asyncio.get_running_loop().call_later(delay, self._wake)

    def _wake(self) -> None:
        self._handle = None
        if self._deadline is None:
            return
        if self._clock.now() < self._deadline:
            self._arm(self._deadline)
            return
        self._deadline = None
        self._fire()


async def sleep_until(clock: Clock, deadline: float) -> None:
    """Return when `deadline` on our clock has passed; the same looks at it as above."""
    while (remaining := deadline - clock.now()) > 0:  # noqa: ASYNC110 - nobody tells the time
        await anyio.sleep(min(remaining, LONGEST))
