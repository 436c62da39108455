"""Reads by offset: at once where the bytes are in memory, else in a thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from sidecar import reading
from sidecar.reading import OffsetReader


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """A file of ten bytes, which are in the page cache as they were written just now."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.optional
async def test_cached_bytes_take_no_thread(fd: int) -> None:
    if not hasattr(os, "RWF_NOWAIT"):
        pytest.skip("RWF_NOWAIT is an option of Linux")
    reader = OffsetReader(fd)
    assert await reader.read(2, 3) == b"234"
    assert await reader.read(8, 100) == b"89"
    assert reader.hops == 0


async def test_a_thread_has_the_last_word_on_the_end(fd: int) -> None:
    reader = OffsetReader(fd)
    assert await reader.read(10, 100) == b""
    assert reader.hops == 1


async def test_a_read_is_at_most_1_mib(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(3 << 20))
    with path.open("rb") as file:
        assert len(await OffsetReader(file.fileno()).read(0, 2 << 20)) == 1 << 20


@pytest.mark.parametrize("error, tries", [(BlockingIOError, 2), (OSError(95, "no"), 1)])
async def test_where_a_read_would_wait_a_thread_does_it(
    fd: int, error: OSError, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def refuse(*arguments: object) -> int:
        tried.append(threading.current_thread())
        raise error

    monkeypatch.setattr(os, "preadv", refuse)
    reader = OffsetReader(fd)
    before = open_descriptors()
    assert await reader.read(2, 3) == b"234"
    assert await reader.read(4, 3) == b"456"
    assert reader.hops == 2
    assert tried == [threading.main_thread()] * tries
    assert open_descriptors() == before


async def test_another_error_is_the_callers_to_see(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        await OffsetReader(fd).read(0, 10)
    os.close(fd)


async def test_a_cancelled_read_returns_at_once_and_leaves_no_descriptor(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_NOWAIT", None)
    begun, go_on, ended = (threading.Event() for _ in range(3))
    close = os.close

    def hang(fd: int, size: int, offset: int) -> bytes:
        begun.set()
        go_on.wait(10)
        return b""

    def tell(fd: int) -> None:
        close(fd)
        ended.set()

    monkeypatch.setattr(os, "pread", hang)
    monkeypatch.setattr(os, "close", tell)
    before = open_descriptors()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(OffsetReader(fd).read, 0, 10)
        await anyio.to_thread.run_sync(begun.wait, 10)
        tasks.cancel_scope.cancel()
    assert not ended.is_set()
    go_on.set()
    assert await anyio.to_thread.run_sync(ended.wait, 10)
    assert open_descriptors() == before


async def test_a_read_that_is_cancelled_before_its_thread_leaves_no_descriptor(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_NOWAIT", None)
    before = open_descriptors()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await OffsetReader(fd).read(0, 10)
    assert scope.cancelled_caught
    assert open_descriptors() == before
