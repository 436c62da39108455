"""The bodies of the tools that pack and unpack, run by a test, and archives to give them."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sidecar.hands.local.beneath import Beneath
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.stop import Stop
from sidecar.hands.local.tar.archiving import archive
from sidecar.hands.local.tar.extracting import extract

ARCHIVE = {"paths": None, "exclude": [], "ignore": "none", "compress": "none"}
EXTRACT = {"strip": 0, "links": "inside", "existing": "replace"}


class Running:
    """A body in a thread of its own; `fd` is the other end of its pipe, which blocks."""

    def __init__(self, body: Callable[[int, Stop], dict[str, Any]], ours: int, fd: int) -> None:
        self.fd = fd
        self.stop = Stop()
        self._body = body
        self._ours = ours
        self._told: dict[str, Any] = {}
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def result(self) -> dict[str, Any]:
        self._thread.join(timeout=20)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error
        return self._told

    def close(self) -> None:
        self.stop.request()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self._thread.join()
        self.stop.close()

    def _run(self) -> None:
        try:
            self._told = self._body(self._ours, self.stop)
        except BaseException as error:
            self._error = error
        finally:
            os.close(self._ours)


@contextmanager
def archiving(root: Path, path: str | bytes = "", **options: Any) -> Iterator[Running]:
    """`archive` at work: read its bytes from `fd`."""
    roots = Roots(Beneath(str(root)))
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writer, False)
    running = Running(
        lambda fd, stop: archive(roots, path, ARCHIVE | options, fd, stop), writer, reader
    )
    try:
        yield running
    finally:
        running.close()
        roots.close()


@contextmanager
def extracting(root: Path, path: str | bytes = "", **options: Any) -> Iterator[Running]:
    """`extract` at work: write its bytes to `fd`, and close that."""
    roots = Roots(Beneath(str(root)))
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    running = Running(
        lambda fd, stop: extract(roots, path, EXTRACT | options, fd, stop), reader, writer
    )
    try:
        yield running
    finally:
        running.close()
        roots.close()


def pack(root: Path, path: str | bytes = "", **options: Any) -> tuple[bytes, dict[str, Any]]:
    """An archive, and what is told of it."""
    with archiving(root, path, **options) as running:
        parts = []
        while data := os.read(running.fd, 1 << 20):
            parts.append(data)
        return b"".join(parts), running.result()


def unpack(root: Path, tar: bytes, path: str | bytes = "", **options: Any) -> dict[str, Any]:
    """Extract an archive; what is told of it."""
    with extracting(root, path, **options) as running:
        left = memoryview(tar)
        try:
            while left:
                left = left[os.write(running.fd, left[: 1 << 16]) :]
        except BrokenPipeError:
            pass  # it has seen enough
        os.close(running.fd)
        running.fd = -1
        return running.result()


def member(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """For `tar_of`: a regular file, unless `fields` say otherwise."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def folder(name: str, mode: int = 0o755, mtime: float = 0) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.DIRTYPE, mode=mode, mtime=mtime)


def tar_of(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
