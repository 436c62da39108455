"""Trees of the sandbox as tar streams.

async with run.files.archive("src", compress="gzip") as archive:
    async for chunk in archive:
        file.write(chunk)
for path, why in archive.told.skipped:
    print(path, why)

await run.files.extract(chunks, "copy")
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import anyio

from sidecar.client.pending import PendingCall
from sidecar.protocol.streams import CONTENT
from sidecar.streaming import BytesSource, Source
from sidecar.streaming.pushing import PushSource

if TYPE_CHECKING:
    from sidecar.client.run import Run

Path = str | bytes
Rows = list[tuple[Path, str]]  # paths, bytes where they are not UTF-8, and why


class ArchiveOptions(TypedDict, total=False):
    """See `FilesArchive`."""

    paths: Sequence[Path]
    exclude: Sequence[Path]
    ignore: Literal["none", "git"]
    compress: Literal["none", "gzip"]


class ExtractOptions(TypedDict, total=False):
    """See `FilesExtract`."""

    strip: int
    links: Literal["inside", "all"]
    existing: Literal["replace", "keep", "refuse"]


@dataclass(frozen=True, slots=True)
class Archived:
    """What an archive has: entries, bytes of files. `skipped` are the first thousand of the
    `skipped_count` that it has not, or not as they were."""

    entries: int
    bytes: int
    skipped: Rows = field(default_factory=list)
    skipped_count: int = 0


@dataclass(frozen=True, slots=True)
class Extracted:
    """What was made of an archive. `kept`: what was there and stayed; `refused` are the first
    thousand of the `refused_count` members that were not made."""

    entries: int
    bytes: int
    kept: int = 0
    refused: Rows = field(default_factory=list)
    refused_count: int = 0


class Archive:
    """The chunks of a tar stream. `told` is known once the iteration has ended, not before."""

    def __init__(self, call: PendingCall) -> None:
        self.told: Archived
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The digest is checked before it ends. Raises `CallError`."""
        async for chunk in self._call.receiver(CONTENT):
            yield chunk
        answer = await self._call.wait()
        self.told = Archived(**{**answer, "skipped": _rows(answer["skipped"])})


@asynccontextmanager
async def archive(run: Run, path: Path, options: ArchiveOptions) -> AsyncIterator[Archive]:
    """The tree below `path`. Leaving the block early cancels it."""
    async with run.open("files.archive", {"path": path, **_plain(options)}) as call:
        yield Archive(call)


async def extract(
    run: Run, source: bytes | Source | AsyncIterable[bytes], path: Path, options: ExtractOptions
) -> Extracted:
    """Make what a tar stream has in it, in the directory `path`."""
    async with run.open("files.extract", {"path": path, **_plain(options)}) as call:
        if not isinstance(source, AsyncIterable):
            run.send(call, CONTENT, BytesSource(source) if isinstance(source, bytes) else source)
            return _extracted(await call.wait())
        pushed = PushSource()
        run.send(call, CONTENT, pushed)
        async with anyio.create_task_group() as group:
            group.start_soon(_push, source, pushed)
            answer = await call.wait()
            group.cancel_scope.cancel()
        return _extracted(answer)


async def _push(source: AsyncIterable[bytes], pushed: PushSource) -> None:
    try:
        async for chunk in source:
            await pushed.push(chunk)
    except anyio.BrokenResourceError:
        return  # the answer says why nobody wants more
    pushed.end()


def _extracted(answer: dict[str, Any]) -> Extracted:
    return Extracted(**{**answer, "refused": _rows(answer["refused"])})


def _rows(rows: list[list[Any]]) -> Rows:
    return [(path, why) for path, why in rows]


def _plain(options: ArchiveOptions | ExtractOptions) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in options.items()}
