"""Files in the sandbox: whole, by range, or streamed; every transfer is digest-checked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sidecar.client.pending import PendingCall
from sidecar.filesource import FileSource, RangeSource
from sidecar.protocol.limits import ANSWER_BYTES
from sidecar.protocol.streams import CONTENT
from sidecar.streaming import BytesSource, Source

if TYPE_CHECKING:
    from sidecar.client.run import Run

Path = str | bytes
SMALL = ANSWER_BYTES - 4096  # content that rides in the call itself


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a path is. `name` is bytes where it is not UTF-8; times are nanoseconds."""

    name: str | bytes
    type: str
    size: int
    mode: int
    mtime_ns: int
    etag: str
    target: str | bytes | None = None

    @property
    def is_directory(self) -> bool:
        return self.type == "directory"


@dataclass(frozen=True, slots=True)
class Written:
    """What a write left behind: size and digest of the bytes, the new etag and mode."""

    size: int
    sha256: bytes
    etag: str
    mode: int


class Download:
    """A file on its way: `size` and `mode` at once, the bytes as they come."""

    def __init__(self, call: PendingCall, answer: dict[str, Any]) -> None:
        self.size: int = answer["length"]
        self.mode: int = answer["mode"]
        self.etag: str = answer["etag"]
        self._call = call
        self._content: bytes | None = answer.get("content")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._content is not None:
            if self._content:
                yield self._content
            return
        async for chunk in self._call.receiver(CONTENT):
            yield chunk


class Files:
    """The `files.*` commands of a run. All of them raise `CallError`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def read(self, path: Path, *, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes of a range, in memory: for large files see `open`."""
        async with self.open(path, offset=offset, length=length) as download:
            return b"".join([chunk async for chunk in download])

    @asynccontextmanager
    async def open(
        self, path: Path, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[Download]:
        """Stream a file. The digest is checked before the iteration ends."""
        arguments: dict[str, Any] = {"path": path, "offset": offset}
        if length is not None:
            arguments["length"] = length
        async with self._run.open("files.read", arguments) as call:
            yield Download(call, await call.wait())

    async def write(
        self,
        path: Path,
        content: bytes,
        *,
        mode: int | None = None,
        parents: bool = False,
        sha256: bytes | None = None,
    ) -> Written:
        """Replace a file atomically. With `sha256` nothing is replaced unless it is right."""
        source = None if len(content) <= SMALL else BytesSource(content)
        options = {"mode": mode, "parents": parents, "sha256": sha256, "size": len(content)}
        return await self._write(path, source, content, options)

    async def upload(
        self, path: Path, fd: int, *, mode: int | None = None, parents: bool = False
    ) -> Written:
        """Replace a file with the regular file behind `fd`, which this closes. In constant
        memory; raises `source_changed` if the file is written to meanwhile."""
        file = FileSource(fd, what=path)
        source = RangeSource(file, 0, file.size)
        return await self.send(path, source, size=file.size, mode=mode, parents=parents)

    async def send(
        self,
        path: Path,
        source: Source,
        *,
        size: int | None = None,
        mode: int | None = None,
        parents: bool = False,
    ) -> Written:
        """Replace a file with the bytes of `source`; a `size` that is known is checked."""
        return await self._write(
            path, source, b"", {"mode": mode, "parents": parents, "size": size}
        )

    async def _write(
        self, path: Path, source: Source | None, content: bytes, options: dict[str, Any]
    ) -> Written:
        arguments = {"path": path, **{k: v for k, v in options.items() if v is not None}}
        if source is None:
            arguments["content"] = content
        async with self._run.open("files.write", arguments) as call:
            if source is not None:
                self._run.send(call, CONTENT, source)
            return Written(**await call.wait())

    async def list(self, path: Path = "") -> list[FileEntry]:
        """All entries of a directory, sorted by name, page by page."""
        return [entry async for entry in self.scan(path)]

    async def scan(self, path: Path = "") -> AsyncIterator[FileEntry]:
        """The entries of a directory of any size."""
        after: Path | None = None
        while True:
            arguments: dict[str, Any] = {"path": path}
            if after is not None:
                arguments["after"] = after
            page = await self._run.call("files.list", arguments)
            for entry in page["entries"]:
                yield _entry(entry.pop("name"), entry)
            after = page.get("next")
            if after is None:
                return

    async def stat(self, path: Path, *, follow: bool = False) -> FileEntry:
        """One path; of a link itself unless `follow`."""
        return _entry(path, await self._run.call("files.stat", {"path": path, "follow": follow}))

    async def mkdir(self, path: Path, *, parents: bool = False, exist_ok: bool = False) -> None:
        await self._run.call(
            "files.mkdir", {"path": path, "parents": parents, "exist_ok": exist_ok}
        )

    async def move(self, source: Path, target: Path, *, replace: bool = True) -> None:
        await self._run.call("files.move", {"source": source, "target": target, "replace": replace})

    async def remove(self, path: Path, *, recursive: bool = False) -> int:
        """How many entries were removed."""
        answer = await self._run.call("files.remove", {"path": path, "recursive": recursive})
        removed: int = answer["removed"]
        return removed


def _entry(name: str | bytes, value: dict[str, Any]) -> FileEntry:
    known = {key: value[key] for key in ("type", "size", "mode", "mtime_ns", "etag")}
    return FileEntry(name=name, target=value.get("target"), **known)
