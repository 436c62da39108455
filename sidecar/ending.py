"""Who told this sidecar to end, and until when it may take its time.

There are four ways: a signal, `sidecar drain`, the command `run.end`, and the platform endpoint,
which gives no more tokens for a run that has ended. The first only stops this process, which may
be started again; the others end the run. Told several times, it goes by
the nearest deadline, and the run ends if any of them said so. `draining` is what is then done.
"""

from __future__ import annotations

from enum import StrEnum

import anyio

from sidecar.clock import Clock

# Exit statuses, from sysexits.h.
EX_UNAVAILABLE = 69  # the channel never came up, what was left is lost
EX_SOFTWARE = 70  # a defect of ours
EX_TEMPFAIL = 75  # something was left over
EX_NOPERM = 77  # the state folder cannot be used


class Teller(StrEnum):
    SIGNAL = "signal"
    DRAIN = "drain"
    RUN_END = "run.end"
    PLATFORM = "platform"


class Ending:
    """The end of one process, while it is waited for and while it is carried out."""

    def __init__(self, clock: Clock) -> None:
        self.told_by: Teller | None = None  # the first one that ends the run, else the first
        self.noted = anyio.Event()  # set when the state folder knows of it
        self.scope = anyio.CancelScope()  # what is waited for in it is cut at the deadline
        self.leaving = anyio.CancelScope()  # what is done for the run goes on, as long as it does
        self._clock = clock
        self._told = anyio.Event()
        self._deadline = float("inf")

    def tell(self, teller: Teller, *, timeout: float) -> None:
        """End within `timeout` seconds. Returns at once."""
        if not self.ends_run:
            self.told_by = teller if teller is not Teller.SIGNAL else self.told_by or teller
        if self.ends_run:
            self.leaving.cancel()
        self._deadline = min(self._deadline, self._clock.now() + timeout)
        self.scope.deadline = anyio.current_time() + self.time_left
        self._told.set()

    @property
    def ends_run(self) -> bool:
        """Whether the run is over with this process."""
        return self.told_by not in (None, Teller.SIGNAL)

    @property
    def time_left(self) -> float:
        """Seconds until what is not done is left over."""
        return max(0.0, self._deadline - self._clock.now())

    async def told(self) -> None:
        """Return once somebody has told."""
        await self._told.wait()
