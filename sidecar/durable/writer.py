"""Two threads for all logs of a process: one writes, the other syncs.

Work goes in rounds. A round takes what is due in all logs, which is what had been appended up to
the end of the event loop's turn, does it in the thread and comes back once. While it is on its
way, the next one gathers. So a burst costs two hops (25 us each on an idle machine), not two a
record, and nobody lingers: a delay before writing was measured, and only made it slower.

The sync lane gathers for a while before each round, unless somebody waits for it: what only a
power cut would ask for must not keep the disk busy while events stream, nor wake a thread in the
middle of a call. A thread without work sleeps without a timer.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

import anyio

from sidecar.threads import is_shortage

log = logging.getLogger(__name__)

SYNC_DELAY = 0.1  # seconds from the first record that is not synced to the sync
CLOSE_TIME = 5.0  # seconds that the last round may take when a process ends
AGAIN = 0.05  # seconds until the next try, where no thread was to be had

Finish = Callable[[], None]
Work = Callable[[], Finish]  # runs in the thread, does not raise; its return runs in the loop
Due = Callable[[], Work | None]  # asked, in the event loop, for what is to be done now


class Lane:
    """A thread, and the rounds that it makes. For one event loop.

    `delay`: seconds that it gathers before a round that nobody hurries.
    """

    def __init__(self, name: str, *, delay: float = 0.0) -> None:
        self._name = name
        self._delay = delay
        self._due: dict[Due, None] = {}
        self._rounds: SimpleQueue[list[Work] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_busy = False
        self._is_hurried = False  # the next round
        self._timer: asyncio.TimerHandle | None = None
        self._idle: anyio.Event | None = None

    def request(self, due: Due) -> None:
        """Have `due` asked at the end of this turn, or of the delay, or of the running round."""
        if not self._due and not self._is_busy:
            self._schedule()
        self._due[due] = None

    def hurry(self) -> None:
        """Let what was requested not be delayed. Harmless when repeated."""
        if self._timer is not None:
            self._timer.cancel()
            self._begin()
        else:
            self._is_hurried = bool(self._due) or self._is_busy

    def _schedule(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        if self._delay and not self._is_hurried:
            self._timer = self._loop.call_later(self._delay, self._begin)
        else:
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        if self._is_busy:
            return
        self._timer, self._is_hurried = None, False
        due, self._due = self._due, {}
        works = [work for work in (ask() for ask in due) if work is not None]
        if works:
            self._is_busy = True
            self._rounds.put(works)
            self._start()
        elif self._idle is not None:
            self._idle.set()

    def _start(self) -> None:
        """Once there is a thread, the rounds are made, however late it came."""
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if not is_shortage(error):
                raise
            assert self._loop is not None
            self._loop.call_later(AGAIN, self._start)
        else:
            self._thread = thread

    def _run(self) -> None:
        """The thread."""
        assert self._loop is not None
        while (works := self._rounds.get()) is not None:
            finishes = [_done(work) for work in works]
            with suppress(RuntimeError):  # the loop was closed: nobody waits for this any more
                self._loop.call_soon_threadsafe(self._finish, finishes)

    def _finish(self, finishes: list[Finish]) -> None:
        for finish in finishes:
            try:
                finish()
            except Exception:  # the same, in the event loop: all logs wait for the next round
                log.exception("a log's work failed")
        self._is_busy = False
        if self._due and self._delay:
            self._schedule()
        else:
            self._begin()

    async def aclose(self) -> None:
        """Do what is due, and end the thread. It is left alone if the disk hangs."""
        self._delay = 0.0
        with anyio.move_on_after(CLOSE_TIME, shield=True):
            while self._is_busy or self._due:
                self._idle = anyio.Event()
                self.hurry()
                await self._idle.wait()
        if self._is_busy:
            log.error(
                "the disk did not answer for %.0f s: what was not written is lost", CLOSE_TIME
            )
        self._rounds.put(None)


def _done(work: Work) -> Finish:
    """A defect in one log must not end the thread that all of them share."""
    try:
        return work()
    except Exception:
        log.exception("a log's work failed")
        return _nothing


def _nothing() -> None:
    pass


class LogWriter:
    """Make it in the event loop, hand it to every log, close it after them.

    async with LogWriter() as writer:
        journal = await open_journal(folder / "journal", writer, clock, new_series=...)
    """

    def __init__(self, *, sync_delay: float = SYNC_DELAY) -> None:
        self.writes = Lane("log-writer")
        self.syncs = Lane("log-syncer", delay=sync_delay)

    async def __aenter__(self) -> LogWriter:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Write and sync what is due, end both threads. A second call is harmless."""
        await self.writes.aclose()
        await self.syncs.aclose()
