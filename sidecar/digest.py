"""SHA-256 beside the path of the data: hashed in a thread, in order, a few chunks behind.

Hashing inline halves the throughput of a bulk stream (1.7 GB/s for the hash alone); hashlib
lets go of the interpreter lock, so a second core can do it. But waking a thread costs as much
as hashing 256 KiB (measured: 0.1 to 0.2 ms on a virtual machine, counting the fight for the
lock), so chunks are gathered and a job gets about a mebibyte. One thread serves all digests. It
is started by the first job and costs nothing while it waits.
"""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import Future
from contextlib import suppress
from functools import cache

import anyio

from sidecar.protocol.limits import DIGEST_CHUNKS, DIGEST_INLINE_BYTES, DIGEST_JOB_BYTES
from sidecar.threads import Crew


@cache
def _worker() -> Crew:
    # One thread and no more: it is what keeps the chunks of a digest in order.
    return Crew(1, "digest")


class Digest:
    """One SHA-256 in the making. Await `ready` before each `update`, `digest` at the end."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._waiting: list[bytes] = []  # for the next job
        self._job: Future[None] | None = None
        self._job_chunks = 0

    def update(self, data: bytes) -> None:
        """Hash `data` after all that came before; at most eight chunks may be waiting."""
        if not self.has_room:
            raise AssertionError("too many chunks are waiting: await ready() before update()")
        if self._job is None and not self._waiting and len(data) < DIGEST_INLINE_BYTES:
            self._hash.update(data)
            return
        self._waiting.append(data)
        self._start_if_worthwhile()

    @property
    def has_room(self) -> bool:
        """Whether `update` may be called at once."""
        self._forget_done()
        return len(self._waiting) + self._job_chunks < DIGEST_CHUNKS

    async def ready(self) -> None:
        """Return when `update` may be called. Cancelling loses nothing."""
        while not self.has_room:
            self._start_if_worthwhile()
            await self._job_done()

    async def digest(self) -> bytes:
        """The digest of all bytes so far; more may follow. Cancelling loses nothing."""
        self._forget_done()
        while self._job is not None or self._waiting:
            if self._job is None:
                self._start()
            await self._job_done()
        return self._hash.digest()

    async def hexdigest(self) -> str:
        """The same in hexadecimal."""
        return (await self.digest()).hex()

    def _start_if_worthwhile(self) -> None:
        many = len(self._waiting) * 2 >= DIGEST_CHUNKS
        if self._job is None and (many or sum(map(len, self._waiting)) >= DIGEST_JOB_BYTES):
            self._start()

    def _start(self) -> None:
        chunks, self._waiting = self._waiting, []
        self._job_chunks = len(chunks)
        self._job = _worker().submit(self._hash_all, chunks)

    def _hash_all(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            self._hash.update(chunk)

    def _forget_done(self) -> None:
        if self._job is not None and self._job.done():
            self._job.result()
            self._job, self._job_chunks = None, 0

    async def _job_done(self) -> None:
        """Wait for the job. Not through asyncio.wrap_future: it would cancel the job with the
        one who waits for it."""
        loop = asyncio.get_running_loop()
        done = anyio.Event()

        def tell(_: Future[None]) -> None:
            with suppress(RuntimeError):  # the loop was closed while nobody waited any more
                loop.call_soon_threadsafe(done.set)

        assert self._job is not None, "a full digest has a job"
        self._job.add_done_callback(tell)
        await done.wait()
        self._forget_done()
