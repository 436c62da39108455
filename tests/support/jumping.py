"""An event loop that does not wait: where all that is left is to wait, its clock jumps ahead.

Hours of idling, backing off and refreshing pass in seconds, over real sockets, with every timer
of every library in between. Loopback delivers at once, so what has been silent for `QUIET` real
seconds has nothing under way. A program that sleeps does so in real time: start none that has to
end by itself, or keep time from jumping while it runs (`jumping.hold`).
"""

from __future__ import annotations

import asyncio
import functools
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec

import anyio

P = ParamSpec("P")

QUIET = 0.002  # seconds; far above what a message takes through loopback


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
        if not ready:
            self.skipped += timeout - (time.monotonic() - began)
        return ready  # type: ignore[no-any-return]


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
