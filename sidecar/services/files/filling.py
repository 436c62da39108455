"""How bytes get into the file behind a descriptor, and what can be known of it before and after.

A write may block on a slow disk, so all of it happens in threads, and as little as can be: a hop
to one costs as much as the copy of 100 KiB.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio import from_thread

from sidecar.errors import CallError, Code, Invalid, Started, from_os_error, show_path
from sidecar.hands.interface import Path
from sidecar.protocol.limits import CONTENT_WAIT, READ_BYTES
from sidecar.services.files.behind import WriterBehind, write_all
from sidecar.streaming import Receiver
from sidecar.threads import in_thread

T = TypeVar("T")

GATHER_BYTES = 1024 * 1024  # for one hop to a thread, if they come fast
GATHER_TIME = 0.01  # seconds for that


async def fill(
    fd: int, path: Path, content: bytes | Receiver, *, needed: int | None = None
) -> tuple[int, bytes]:
    """Write `content`, or a stream to its end, where the descriptor is; size and SHA-256 of that.

    `needed`: for so many bytes there must be room before the first is written, or `no_space`.
    """
    if isinstance(content, bytes):
        return await _in_thread(path, lambda: _write_whole(fd, path, content, needed))
    if needed is not None:
        await _in_thread(path, lambda: _check_space(fd, path, needed))
    return await _fill_from(fd, path, content)


async def _fill_from(fd: int, path: Path, receiver: Receiver) -> tuple[int, bytes]:
    receiver.leave_digest()
    writer = WriterBehind(fd, path)
    chunks: list[bytes] = []
    try:
        while chunks := await next_chunks(receiver):
            await _gather(receiver, chunks)
            batch, chunks = chunks, []
            await writer.write(batch)
    finally:
        with anyio.CancelScope(shield=True):  # what came is kept, if it is an upload
            await writer.write(chunks)
            await writer.settled()
    ended = receiver.stream.ended
    assert ended is not None
    if receiver.stream.skipped or ended.start:
        raise Invalid("a stream with holes cannot become a file", started=Started.YES)
    receiver.check_digest(writer.sha256())
    return writer.size, ended.sha256


async def _gather(receiver: Receiver, chunks: list[bytes]) -> None:
    """Add to `chunks` what comes within a moment, until it is worth a hop to a thread."""
    have = sum(map(len, chunks))
    with anyio.move_on_after(GATHER_TIME):
        while have < GATHER_BYTES and (more := await receiver.receive_all()):
            chunks += more
            have += sum(map(len, more))


async def next_chunks(receiver: Receiver) -> list[bytes]:
    """The next chunks. A caller that was killed sends no more, and nothing tells: an end of the
    wait gives back the part and the place among open calls."""
    with anyio.move_on_after(CONTENT_WAIT):
        return await receiver.receive_all()
    error = CallError(
        Code.TIMEOUT,
        f"no byte came for {CONTENT_WAIT:g} s after the first {receiver.position}",
        started=Started.YES,
        which="content",
    )
    receiver.reset(error)
    raise error


async def hash_file(fd: int, path: Path) -> tuple[int, bytes]:
    """How many bytes the file has and their SHA-256, read from its beginning. Cancelling it ends
    it at the next mebibyte."""

    def work() -> tuple[int, bytes]:
        digest, size = hashlib.sha256(), 0
        buffer = memoryview(bytearray(READ_BYTES))
        while count := os.preadv(fd, [buffer], size):
            from_thread.check_cancelled()
            digest.update(buffer[:count])
            size += count
        return size, digest.digest()

    try:
        return await in_thread(work)
    except OSError as error:
        raise from_os_error(error, path) from error


async def cut(fd: int, path: Path, size: int) -> None:
    """Leave the first `size` bytes of the file, and stand behind them."""

    def work() -> None:
        os.ftruncate(fd, size)
        os.lseek(fd, size, os.SEEK_SET)

    await _in_thread(path, work)


async def _in_thread(path: Path, work: Callable[[], T]) -> T:
    try:
        return await in_thread(work)
    except OSError as error:
        raise from_os_error(error, path, started=Started.YES) from error


def _write_whole(fd: int, path: Path, content: bytes, needed: int | None) -> tuple[int, bytes]:
    if needed is not None:
        _check_space(fd, path, needed)
    write_all(fd, [content])
    return len(content), hashlib.sha256(content).digest()


def _check_space(fd: int, path: Path, needed: int) -> None:
    """Where nobody can know how much there is, the write itself tells."""
    found = os.fstatvfs(fd)
    free = found.f_bfree if os.geteuid() == 0 else found.f_bavail
    available = free * found.f_frsize
    if found.f_blocks and available < needed:
        raise CallError(
            Code.NO_SPACE,
            f"{show_path(path)}: {needed} bytes are needed, {available} are free",
            started=Started.YES,
            path=path,
            needed=needed,
            available=available,
        )
