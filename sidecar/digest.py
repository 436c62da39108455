"""SHA-256 beside the path of the data: hashed in a thread, in order, a few chunks behind.

Hashing inline halves the throughput of a bulk stream (1.7 GB/s for the hash alone); hashlib
lets go of the interpreter lock, so a second core can do it. One thread serves all digests. It
is started by the first large chunk and costs nothing while it waits.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache

import anyio

from sidecar.protocol.limits import DIGEST_CHUNKS, DIGEST_INLINE_BYTES


@cache
def _worker() -> ThreadPoolExecutor:
    # One thread and no more: it is what keeps the chunks of a digest in order.
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="digest")


class Digest:
    """One SHA-256 in the making. Await `ready` before each `update`, `digest` at the end."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._pending: deque[Future[None]] = deque()

    def update(self, data: bytes) -> None:
        """Hash `data` after all that came before; at most eight chunks may be waiting."""
        self._forget_done()
        if not self._pending and len(data) < DIGEST_INLINE_BYTES:
            self._hash.update(data)
            return
        if len(self._pending) >= DIGEST_CHUNKS:
            raise AssertionError("too many chunks are waiting: await ready() before update()")
        self._pending.append(_worker().submit(self._hash.update, data))

    @property
    def has_room(self) -> bool:
        """Whether `update` may be called at once."""
        self._forget_done()
        return len(self._pending) < DIGEST_CHUNKS

    async def ready(self) -> None:
        """Return when `update` may be called. Cancelling loses nothing."""
        self._forget_done()
        while len(self._pending) >= DIGEST_CHUNKS:
            await self._oldest()

    async def digest(self) -> bytes:
        """The digest of all bytes so far; more may follow. Cancelling loses nothing."""
        self._forget_done()
        while self._pending:
            await self._oldest()
        return self._hash.digest()

    async def hexdigest(self) -> str:
        """The same in hexadecimal."""
        return (await self.digest()).hex()

    def _forget_done(self) -> None:
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()

    async def _oldest(self) -> None:
        """Wait for the oldest chunk. Not through asyncio.wrap_future: it would cancel the chunk
        with the one who waits for it."""
        loop = asyncio.get_running_loop()
        done = anyio.Event()

        def tell(_: Future[None]) -> None:
            with suppress(RuntimeError):  # the loop was closed while nobody waited any more
                loop.call_soon_threadsafe(done.set)

        self._pending[0].add_done_callback(tell)
        await done.wait()
        self._forget_done()
