"""What `sidecar cp` does: one file, up or down, beside a progress bar.

A local target that is a regular file, or none yet, is replaced by rename; a device or a pipe is
written to. Links are followed, as cp(1) does.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread

from sidecar.cli.loop import beside
from sidecar.cli.output import text_or_bytes
from sidecar.cli.piping import read_chunks, write_all
from sidecar.cli.progress import Progress, progress
from sidecar.client import CallError, Code, Download, Run, Written
from sidecar.client.sources import PushSource
from sidecar.errors import Invalid
from sidecar.filesource import FileSource, RangeSource
from sidecar.protocol.streams import Piece
from sidecar.streaming import Source

STDIN = 0
STDOUT = 1
PERMISSIONS = 0o777  # the part of a mode that is copied: no set-id bits from a stranger


class Counted:
    """A source that tells how much of it has arrived."""

    def __init__(self, source: Source, bar: Progress) -> None:
        self._source = source
        self._bar = bar

    async def read(self, offset: int, size: int) -> Piece:
        return await self._source.read(offset, size)

    def release(self, offset: int) -> None:
        self._bar.at(offset)
        self._source.release(offset)

    async def aclose(self) -> None:
        await self._source.aclose()


# Into the sandbox -----------------------------------------------------------------------------


async def upload(run: Run, source: str, target: str | bytes, *, parents: bool) -> tuple[str, int]:
    """Copy `source` (a path here, or `-`) to `target`; where it went, and how many bytes."""
    fd, mode = await anyio.to_thread.run_sync(_open_source, source)
    try:
        path = await _target_in(run, target, None if source == "-" else os.path.basename(source))
        if stat.S_ISREG(mode):
            written = await _upload_file(run, fd, path, mode, source, parents)
        else:
            written = await _upload_stream(run, fd, path, source, parents)
    finally:
        os.close(fd)
    return f":{os.fsdecode(path)}", written.size


def _open_source(source: str) -> tuple[int, int]:
    fd = os.dup(STDIN) if source == "-" else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        os.close(fd)
        raise IsADirectoryError(0, _NO_FOLDERS, source)
    return fd, mode


async def _upload_file(
    run: Run, fd: int, path: str | bytes, mode: int, source: str, parents: bool
) -> Written:
    start = os.lseek(fd, 0, os.SEEK_CUR)  # standard input may have been read from before
    file = FileSource(os.dup(fd), what=source)
    size = max(0, file.size - start)
    keep = None if source == "-" else mode & PERMISSIONS
    with progress(os.path.basename(source), size) as bar:
        counted = Counted(RangeSource(file, start, size), bar)
        return await run.files.send(path, counted, size=size, mode=keep, parents=parents)


async def _upload_stream(
    run: Run, fd: int, path: str | bytes, source: str, parents: bool
) -> Written:
    """A pipe has no size and cannot be read twice: what was read is kept until it arrived."""
    pushed = PushSource()

    async def push(_: anyio.CancelScope) -> None:
        with suppress(anyio.BrokenResourceError):  # the other side gave up, and says why
            async for data in read_chunks(fd):
                await pushed.push(data)
            pushed.end()

    with progress(source, None) as bar:
        async with beside(push):
            written = await run.files.send(path, Counted(pushed, bar), parents=parents)
    return written


async def _target_in(run: Run, target: str | bytes, name: str | None) -> str | bytes:
    """The file that `target` means: in a directory, the one of that name."""
    raw = os.fsencode(target)
    is_directory = raw in (b"", b".") or raw.endswith(b"/")
    if not is_directory:
        try:
            is_directory = (await run.files.stat(target, follow=True)).is_directory
        except CallError as error:
            if error.code is not Code.NOT_FOUND:
                raise
    if not is_directory:
        return target
    if name is None:
        raise Invalid(f":{os.fsdecode(raw)} is a directory: name the file in it")
    return text_or_bytes(os.path.join(raw, os.fsencode(name)))


# Out of the sandbox ---------------------------------------------------------------------------


async def download(run: Run, source: str | bytes, target: str) -> tuple[str, int]:
    """Copy `source` to `target` (a path here, or `-`); where it went, and how many bytes."""
    name = os.path.basename(os.fsdecode(source))
    path = None if target == "-" else _target_here(target, name)
    async with run.files.open(source) as remote:
        with progress(name, remote.size) as bar:
            if path is None:
                await _write(remote, STDOUT, bar)
            else:
                async with _replacing(path, remote.mode & PERMISSIONS) as fd:
                    await _write(remote, fd, bar)
    return target if path is None else str(path), remote.size


def _target_here(target: str, name: str) -> Path:
    path = Path(os.path.realpath(target))
    return path / name if path.is_dir() else path


async def _write(remote: Download, fd: int, bar: Progress) -> None:
    done = 0
    async for chunk in remote:
        await write_all(fd, chunk)
        done += len(chunk)
        bar.at(done)


@asynccontextmanager
async def _replacing(path: Path, mode: int) -> AsyncIterator[int]:
    """A descriptor for the new content of `path`, which is replaced when the block succeeds."""
    fd, beside_it = await anyio.to_thread.run_sync(_open_target, path)
    try:
        yield fd
        if beside_it is not None:
            await anyio.to_thread.run_sync(_put_in_place, fd, beside_it, path, mode)
            beside_it = None
    finally:
        if beside_it is not None:
            os.unlink(beside_it)
        os.close(fd)


def _open_target(path: Path) -> tuple[int, str | None]:
    """A descriptor, and the temporary file that it is of, unless `path` is no regular file."""
    if path.exists() and not path.is_file():
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC), None
    try:
        return tempfile.mkstemp(prefix=f".{path.name[:32]}.", dir=path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _put_in_place(fd: int, beside_it: str, path: Path, mode: int) -> None:
    os.fchmod(fd, mode)
    os.replace(beside_it, path)


_NO_FOLDERS = "is a folder; cp copies single files (tar c DIR | sidecar exec -- tar x)"
