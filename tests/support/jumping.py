"""An event loop that does not wait: where all that is left is to wait, its clock jumps ahead.

Hours of idling, backing off and refreshing pass in seconds, over real sockets, with every timer
of every library in between. Loopback delivers at once, so what has been silent for `QUIET` real
seconds, with no thread at work, has nothing under way. Programs take real time: start none that
has to end by itself, or keep time from jumping while it runs (`JumpingClock.hold`).
"""

from __future__ import annotations

import asyncio
import functools
import selectors
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ParamSpec

import anyio

P = ParamSpec("P")

QUIET = 0.002  # seconds; far above what a message takes through loopback
WORKERS = ("AnyIO", "asyncio_", "log-", "digest")  # what threads of pools are called
RESTING = {"wait", "get", "_worker", "_run"}  # functions in which idle threads of a pool are


class JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Waits for what is ready, and skips the time in which nothing is."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0
        self.holds = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout <= QUIET or self.holds:
            return super().select(timeout)  # type: ignore[no-any-return]
        began = time.monotonic()
        ready = super().select(QUIET)
        if not ready and _threads_rest():
            self.skipped += timeout - (time.monotonic() - began)
        return ready  # type: ignore[no-any-return]


def _threads_rest() -> bool:
    """Whether every thread that works for us waits for something to do: for a lock, or inside C
    for a queue."""
    workers = {one.ident for one in threading.enumerate() if one.name.startswith(WORKERS)}
    frames = sys._current_frames().items()
    return all(_rests(frame) for ident, frame in frames if ident in workers)


def _rests(frame: FrameType | None) -> bool:
    while frame is not None and "blockbuster" in frame.f_code.co_filename:
        frame = frame.f_back  # it watches the lock that the thread waits for
    return frame is not None and frame.f_code.co_name in RESTING


class JumpingLoop(asyncio.SelectorEventLoop):
    """Asyncio's loop on a clock that jumps."""

    def __init__(self) -> None:
        self.selector = JumpingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return super().time() + self.selector.skipped


class JumpingClock:
    """The clock of the running `JumpingLoop`, as our parts take it."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)
        self._loop = loop
        self._start = time.time() - loop.time()

    def now(self) -> float:
        return self._loop.time()

    def wall(self) -> float:
        return self._start + self._loop.time()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """In the block time passes as it does elsewhere: something works that we cannot see."""
        self._loop.selector.holds += 1
        try:
            yield
        finally:
            self._loop.selector.holds -= 1


def in_jumping_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an `async` test on a `JumpingLoop` of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            await test(*args, **kwargs)

        anyio.run(main, backend_options={"loop_factory": JumpingLoop})

    return run
