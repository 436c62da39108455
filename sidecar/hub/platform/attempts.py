"""How many wrong secrets are looked at: a handful a minute, then none until the minute is over.

Each platform key and each run token counts the wrong attempts on itself, which are those that
name its id. So who does not know the id cannot lock out who has the secret; and who knows it can
do no more than try six times a minute. Attempts that name no id of ours count on what they
wanted: the run, or the keys as a whole. That table is bounded: when it is full, all further
names share one entry, which strangers alone can use up.

Times are seconds on the caller's clock.
"""

from __future__ import annotations

from collections import deque

LIMIT = 6
WINDOW = 60.0
NAMES = 1024

_OTHERS = ""  # the entry that names share when the table is full; no run has an empty id


class Attempts:
    """The wrong attempts of the last minute on one thing."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=LIMIT)

    def wait(self, *, now: float) -> float:
        """Seconds until another attempt is looked at; 0.0 if it may be now."""
        if len(self._times) < LIMIT:
            return 0.0
        return max(0.0, self._times[0] + WINDOW - now)

    def fail(self, *, now: float) -> None:
        self._times.append(now)

    def is_stale(self, *, now: float) -> bool:
        """Whether it is as good as new."""
        return not self._times or self._times[-1] + WINDOW <= now


class Strangers:
    """The attempts by names that may be anything."""

    def __init__(self) -> None:
        self._table: dict[str, Attempts] = {}

    def __len__(self) -> int:
        return len(self._table)

    def of(self, name: str, *, now: float) -> Attempts:
        found = self._table.get(name)
        if found is not None:
            return found
        if len(self._table) >= NAMES:
            self._forget_stale(now)
        if len(self._table) >= NAMES:
            name = _OTHERS
        return self._table.setdefault(name, Attempts())

    def _forget_stale(self, now: float) -> None:
        for name, attempts in tuple(self._table.items()):
            if attempts.is_stale(now=now):
                del self._table[name]
