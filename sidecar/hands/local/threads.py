"""Calls that may block, off the event loop.

A hop to a thread costs about 50 µs, so an operation makes one, however many system calls it
needs. Cancelling waits for the thread where anyio cancels, and does not where asyncio does
(`Task.cancel`, `asyncio.timeout`): then what the thread makes has nobody to take it, and `make`
undoes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio

from sidecar.threads import in_thread

T = TypeVar("T")

WORKERS = 8  # threads of one hands; further calls wait for one


class Threads:
    """A bounded number of worker threads."""

    def __init__(self, workers: int = WORKERS) -> None:
        self._limiter = anyio.CapacityLimiter(workers)

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Call `function` in a thread. It may end after a cancelled caller has gone on."""
        return await in_thread(function, *args, limiter=self._limiter)

    async def make(self, undo: Callable[[T], None], function: Callable[..., T], *args: object) -> T:
        """`run` for a function whose result has to be released by `undo` if nobody takes it."""
        handover = _Handover(undo)
        try:
            return await self.run(handover.make, function, *args)
        except BaseException:
            handover.leave()
            raise


class _Handover(Generic[T]):
    """One result between a thread that makes it and a caller that may have gone."""

    def __init__(self, undo: Callable[[T], None]) -> None:
        self._undo = undo
        self._lock = threading.Lock()  # held for a few instructions only
        self._made: list[T] = []
        self._is_left = False

    def make(self, function: Callable[..., T], *args: object) -> T:
        result = function(*args)
        with self._lock:
            is_wanted = not self._is_left
            self._made.append(result)
        if not is_wanted:
            self._undo(result)
        return result

    def leave(self) -> None:
        with self._lock:
            self._is_left = True
            made = list(self._made)
        for result in made:
            self._undo(result)
