"""Writing and hashing behind the event loop's back: one batch in a thread, the next on its way.

Who waits for each write takes nothing from the stream meanwhile and grants no credit, and a sender
that has a mebibyte of it stands still. So a batch is handed to a thread, and only the one after
it waits until that is done.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import cache

import anyio

from sidecar.errors import Started, from_os_error
from sidecar.hands.interface import Path
from sidecar.threads import Crew

WORKERS = 8  # threads; further batches wait for one
BUFFERS = 64  # written in one call; the kernel takes up to 1024 (writev(2))


@cache
def _workers() -> Crew:
    return Crew(WORKERS, "write")


class WriterBehind:
    """Writes to `fd` where that is. `settled` has to be awaited before `fd` is closed."""

    def __init__(self, fd: int, path: Path) -> None:
        self.size = 0  # of what was handed over
        self._fd = fd
        self._path = path
        self._hash = hashlib.sha256()
        self._job: Future[None] | None = None

    async def write(self, chunks: Sequence[bytes]) -> None:
        """Hand over the next batch, once the one before it is written. Raises `CallError` for
        that one."""
        await self.settled()
        self.size += sum(map(len, chunks))
        self._job = _workers().submit(self._work, chunks)

    async def settled(self) -> None:
        """Return when all is written; cancelling does not cut that short. Raises `CallError`."""
        job, self._job = self._job, None
        if job is None:
            return
        loop, done = asyncio.get_running_loop(), anyio.Event()

        def tell(_: Future[None]) -> None:
            with suppress(RuntimeError):  # the loop was closed while nobody waited any more
                loop.call_soon_threadsafe(done.set)

        job.add_done_callback(tell)
        with anyio.CancelScope(shield=True):
            await done.wait()
        try:
            job.result()
        except OSError as error:
            raise from_os_error(error, self._path, started=Started.YES) from error

    def sha256(self) -> bytes:
        """Of all that was written; `settled` comes first."""
        return self._hash.digest()

    def _work(self, chunks: Sequence[bytes]) -> None:
        write_all(self._fd, chunks)
        for chunk in chunks:
            self._hash.update(chunk)


def write_all(fd: int, chunks: Sequence[bytes]) -> None:
    """In as few calls as can be: after each, the interpreter's lock has to be waited for."""
    views = [memoryview(chunk) for chunk in chunks]
    while views:
        written = os.writev(fd, views[:BUFFERS])
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]
