"""What `sidecar cp` does with one file, up or down, beside a progress bar.

A local target that is a regular file, or none yet, is replaced by rename; a device or a pipe is
written to. Links are followed, as cp(1) does.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
from anyio.to_thread import run_sync as in_thread

from sidecar.cli.loop import beside
from sidecar.cli.output import complain, text_or_bytes
from sidecar.cli.piping import read_chunks, write_all
from sidecar.cli.progress import Progress, progress
from sidecar.client import CallError, Code, Download, Run, Written
from sidecar.client.downloading import Downloading
from sidecar.client.localfile import LocalFile
from sidecar.client.localpart import PERMISSIONS, open_directory_of
from sidecar.client.trees.entries import SMALL
from sidecar.client.uploading import Counted, Uploading, upload_id
from sidecar.errors import Invalid
from sidecar.streaming.pushing import PushSource

STDIN = 0
STDOUT = 1


@contextmanager
def saying_how_to_go_on() -> Iterator[None]:
    """Whoever ends it with a signal is told that nothing is lost by it."""
    try:
        yield
    except anyio.get_cancelled_exc_class():
        complain("interrupted; the same command goes on")
        raise


# Into the sandbox -----------------------------------------------------------------------------


async def upload(run: Run, source: str, target: str | bytes, *, parents: bool) -> tuple[str, int]:
    """Copy `source` (a path here, or `-`) to `target`; where it went, and how many bytes."""
    fd, mode = await in_thread(_open_source, source)
    try:
        path = await _target_in(run, target, None if source == "-" else os.path.basename(source))
        if stat.S_ISREG(mode):
            return await _upload_file(run, fd, path, source, parents)
        written = await _upload_stream(run, fd, path, source, parents)
    finally:
        os.close(fd)
    return f":{os.fsdecode(path)}", written.size


def _open_source(source: str) -> tuple[int, int]:
    fd = os.dup(STDIN) if source == "-" else _open_here(source)
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        os.close(fd)
        raise IsADirectoryError(0, _A_FOLDER, source)
    return fd, mode


def _open_here(path: str) -> int:
    """Like cp(1) we read a FIFO, too; but a writer is waited for where a signal can end it."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(fd, True)
    return fd


async def _upload_file(
    run: Run, fd: int, path: str | bytes, source: str, parents: bool
) -> tuple[str, int]:
    """What has a name and is large goes on where an earlier try stopped."""
    start = os.lseek(fd, 0, os.SEEK_CUR)  # standard input may have been read from before
    with LocalFile(os.dup(fd), source, start=start) as file:
        options: dict[str, object] = {"parents": parents}
        upload = None
        if source != "-":
            options |= {"mode": file.mode & PERMISSIONS, "mtime_ns": file.mtime_ns}
            upload = upload_id(path, file) if file.size > SMALL else None
        with progress(os.path.basename(source), file.size) as bar:
            await Uploading(run, path, file, upload, options, bar.at).carry_out()
        return f":{os.fsdecode(path)}", file.size


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
            written = await run.files.send(path, Counted(pushed, bar.at), parents=parents)
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
    path = None if target == "-" else await in_thread(_target_here, target, name)
    if path is not None and await in_thread(_is_replaced, path):
        return str(path), await _download_file(run, source, path)
    fd = STDOUT if path is None else await in_thread(_open_special, path, abandon_on_cancel=True)
    try:
        async with run.files.open(source) as remote:
            with progress(name, remote.size) as bar:
                await _write(remote, fd, bar)
    finally:
        if path is not None:
            os.close(fd)
    return target if path is None else str(path), remote.size


async def _download_file(run: Run, source: str | bytes, path: Path) -> int:
    """Large or small, it goes on where an earlier try stopped."""
    directory, name = await in_thread(open_directory_of, os.fsencode(path))
    try:
        found = await run.files.stat(source, follow=True)
        with progress(path.name, found.size) as bar:
            return (await Downloading(run, source, directory, name, bar.at).carry_out()).size
    finally:
        os.close(directory)


def _target_here(target: str, name: str) -> Path:
    path = Path(os.path.realpath(target))
    return path / name if path.is_dir() else path


async def _write(remote: Download, fd: int, bar: Progress) -> None:
    done = 0
    async for chunk in remote:
        await write_all(fd, chunk)
        done += len(chunk)
        bar.at(done)


def _is_replaced(path: Path) -> bool:
    """Whether a new file takes the place of what is there, if anything is."""
    return path.is_file() or not path.exists()


def _open_special(path: Path) -> int:
    """A FIFO is waited for until somebody reads it, for ever if nobody does."""
    return os.open(path, os.O_WRONLY | os.O_CLOEXEC)


_A_FOLDER = "is a folder: cp -r copies it with all that is in it"
