"""Time, from the one place that reads it.

`now` runs on CLOCK_BOOTTIME where the kernel has it: it goes on while a laptop sleeps, so a
recovery window or a token does not seem to live longer than it does. Only differences of it
mean anything. `wall` is the calendar (seconds since the epoch) and may jump.

Protocol classes never read a clock; they are handed `now`.
"""

from __future__ import annotations

import time
from typing import Protocol

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    def now(self) -> float: ...
    def wall(self) -> float: ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.clock_gettime(_CLOCK)

    def wall(self) -> float:
        return time.time()


class ManualClock:
    """A clock that moves only when told to; for tests."""

    def __init__(self, now: float = 1000.0, wall: float = 1_800_000_000.0) -> None:
        self._now = now
        self._wall = wall

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._wall += seconds
