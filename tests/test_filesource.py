"""A file that is sent stays the same, or the sending ends."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from sidecar.errors import CallError, Code
from sidecar.filesource import FileSource


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


def overwrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def source_of(path: Path, *, etag: str | None = None) -> FileSource:
    return FileSource(os.open(path, os.O_RDONLY), "file", etag=etag)


async def test_a_file_is_read_from_any_offset_to_its_end(path: Path) -> None:
    with source_of(path) as source:
        assert source.size == 10
        assert await source.read(4, 3) == b"456"
        assert await source.read(8, 100) == b"89"
        assert await source.read(10, 100) == b""
        assert await source.read(11, 100) == b""


@pytest.mark.parametrize("change", [b"0123456789more", b"012", b"abcdefghij"])
async def test_a_file_that_changes_is_not_read_on(path: Path, change: bytes) -> None:
    os.utime(path, (1.0, 1.0))  # the past, so that no change falls in the same tick
    with source_of(path) as source:
        await source.read(0, 2)
        overwrite(path, change)
        with pytest.raises(CallError, match="'file' changed while it was read") as error:
            await source.read(2, 2)
        assert error.value.code is Code.SOURCE_CHANGED


async def test_a_file_that_was_replaced_is_read_as_it_was(path: Path) -> None:
    with source_of(path) as source:
        (path.parent / "new").write_bytes(b"other")
        (path.parent / "new").replace(path)
        assert await source.read(0, 100) == b"0123456789"


def test_a_stream_goes_on_only_with_the_file_that_it_began_with(path: Path) -> None:
    with source_of(path) as source:
        etag = source.etag
    source_of(path, etag=etag).close()
    path.write_bytes(b"other")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CallError) as error:
        source_of(path, etag=etag)
    assert error.value.code is Code.SOURCE_CHANGED
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_no_regular_file_is_refused_and_closed(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(CallError, match="'folder' is not a regular file") as error:
        FileSource(fd, "folder")
    assert error.value.code is Code.UNSUPPORTED
    with pytest.raises(OSError):
        os.fstat(fd)


async def test_a_file_that_cannot_be_read_is_an_error_of_the_call(path: Path) -> None:
    with FileSource(os.open(path, os.O_WRONLY), "file") as source:
        with pytest.raises(CallError, match="'file': Bad file descriptor") as error:
            await source.read(0, 10)
        assert error.value.code is Code.IO_ERROR


async def test_a_closed_source_is_not_read(path: Path) -> None:
    source = source_of(path)
    source.close()
    source.close()
    with pytest.raises(anyio.ClosedResourceError):
        await source.read(0, 10)
