"""Work in threads where there may be no more threads to be had.

A container has a limit of processes (the cgroup's pids.max), and threads count. A program that
forks without end reaches it, and from then on a thread that is to be started fails: "can't start
new thread". That is no reason for the sidecar to fail, which is what could end that program. So
what finds no thread waits for one of those that there are.

`in_thread` is `anyio.to_thread.run_sync` with this patience. Of the threads that anyio keeps, the
one that was used last is never ended, so there is always one to wait for. `Crew` is the same for
work that nobody awaits at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeVar, TypeVarTuple

import anyio
from anyio import to_thread

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

_PAUSE = 0.002  # seconds until the next look for a thread, doubled up to:
_MAX_PAUSE = 0.1
_NO_THREAD = "can't start new thread"  # what CPython says, and nothing else tells it apart by


async def in_thread(
    function: Callable[[*Arguments], T],
    *args: *Arguments,
    abandon_on_cancel: bool = False,
    limiter: anyio.CapacityLimiter | None = None,
) -> T:
    """Call `function` in a thread, as soon as there is one. See `anyio.to_thread.run_sync`."""
    pause = _PAUSE
    while True:
        try:
            return await to_thread.run_sync(
                function, *args, abandon_on_cancel=abandon_on_cancel, limiter=limiter
            )
        except RuntimeError as error:
            if not is_shortage(error):
                raise
        await anyio.sleep(pause)
        pause = min(2 * pause, _MAX_PAUSE)


def is_shortage(error: RuntimeError) -> bool:
    """Whether the system would not give a further thread."""
    return str(error) == _NO_THREAD


class Crew:
    """Threads that do one piece of work after the other; at most `size`, started when needed.

    They stay, asleep, for as long as the process lives. Used from one thread, that of the loop.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._threads = 0
        self._idle = threading.Semaphore(0)
        self._waiting: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def submit(self, function: Callable[[*Arguments], T], *args: *Arguments) -> Future[T]:
        """Have it done; pieces begin in their order. Where there is no thread at all it is done
        here and now, which is late but not never."""
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(function(*args))
            except BaseException as error:
                future.set_exception(error)

        self._waiting.put(work)
        if not self._idle.acquire(blocking=False):
            self._grow()
        if not self._threads:
            self._waiting.get()()
        return future

    def _grow(self) -> None:
        if self._threads >= self._size:
            return
        name = f"{self._name}-{self._threads}"
        try:
            threading.Thread(target=self._run, name=name, daemon=True).start()
        except RuntimeError as error:
            if not is_shortage(error):
                raise
        else:
            self._threads += 1

    def _run(self) -> None:
        """A thread."""
        while True:
            try:
                work = self._waiting.get_nowait()
            except Empty:
                self._idle.release()
                work = self._waiting.get()
            work()
