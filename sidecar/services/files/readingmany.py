"""`files.read` of many files in one call: a row for each, and all their bytes in one stream.

Each file is looked at first, for its row; then it is opened a second time when its turn comes in
the stream, so that a thousand files take few descriptors. What is small is kept from the first
look. A file that is not the one of its row any more ends the stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio

from sidecar.callrunner import INLINE_BYTES
from sidecar.context import CallContext
from sidecar.errors import CallError, Code, show_path
from sidecar.hands.interface import Path
from sidecar.protocol.envelope import dumps, error_map
from sidecar.protocol.filecommands import FilesRead
from sidecar.protocol.limits import NOTE_BYTES, UNSIZED_BYTES
from sidecar.protocol.streams import CONTENT
from sidecar.services.files.manysource import ManySource, Part
from sidecar.services.files.opening import OpenFile, open_file

AT_ONCE = 8  # files that are looked at together: as many descriptors
KEPT_BYTES = 256 * 1024  # of all files of a call that are kept from the first look


async def read(ctx: CallContext, arguments: FilesRead) -> dict[str, Any]:
    """See `FilesRead`, with `paths`."""
    assert arguments.paths is not None
    looked = _Look(ctx, arguments.allow_change)
    for at in range(0, len(arguments.paths), AT_ONCE):
        await looked.at(arguments.paths[at : at + AT_ONCE])
    answer = {"files": looked.rows, "length": looked.length}
    if arguments.inline and (whole := looked.whole()) is not None:
        return whole
    ctx.check_streams()
    ctx.egress.check(looked.length)
    note = dumps([None, answer, arguments.allow_change])
    if len(note) <= NOTE_BYTES and not looked.has_unsized:
        await ctx.started(note)
    ctx.send(CONTENT, ManySource(ctx.hands, looked.parts, allow_change=arguments.allow_change))
    return answer


async def resume(ctx: CallContext, answer: dict[str, Any], *, allow_change: bool) -> dict[str, Any]:
    """Send on what an earlier life of the sidecar had begun to."""
    parts = [
        Part(row["path"], row["offset"], row["length"], row["etag"])
        for row in answer["files"]
        if "error" not in row
    ]
    source = ManySource(ctx.hands, parts, allow_change=allow_change)
    ctx.send(CONTENT, source, sent=answer["length"])
    return answer


class _Look:
    """The first look at the files: what becomes of each, and what is kept of it."""

    def __init__(self, ctx: CallContext, allow_change: bool) -> None:
        self.rows: list[dict[str, Any]] = []
        self.parts: list[Part] = []
        self.length = 0
        self.has_unsized = False
        self._ctx = ctx
        self._allow_change = allow_change
        self._kept = 0

    async def at(self, paths: Sequence[Path]) -> None:
        """A few files. An error of one stands in its row, unless hands is away from all of them."""
        async with _opened(self._ctx, paths, self._allow_change) as found:
            for path, opened in zip(paths, found, strict=True):
                await self._note(path, opened)

    async def _note(self, path: Path, opened: OpenFile | CallError) -> None:
        try:
            if isinstance(opened, CallError):
                raise opened
            kept = await self._keep(opened, path)
        except CallError as error:
            if error.code is Code.HANDS_AWAY:
                raise
            self.rows.append({"path": path, "error": error_map(error)})
            return
        size = opened.size
        self.rows.append({"path": path, **opened.describe(self.length, size)})
        self.parts.append(Part(path, self.length, size, opened.etag, kept))
        self.length += size

    async def _keep(self, opened: OpenFile, path: Path) -> bytes | None:
        self.has_unsized = self.has_unsized or opened.data is not None
        most = KEPT_BYTES if opened.data is None else UNSIZED_BYTES
        if self._kept + opened.size > most:
            if opened.data is None:
                return None
            raise CallError(
                Code.LIMIT,
                f"{show_path(path)} does not say how many bytes it has: read it by itself",
                path=path,
                limit=UNSIZED_BYTES,
            )
        self._kept += opened.size
        return await opened.read(0, opened.size)

    def whole(self) -> dict[str, Any] | None:
        """The answer with all content in it, if that is small enough."""
        if self.length > KEPT_BYTES or any(part.kept is None for part in self.parts):
            return None
        parts = iter(self.parts)
        rows = [
            row if "error" in row else {**row, "content": next(parts).kept} for row in self.rows
        ]
        answer = {"files": rows, "length": self.length}
        return answer if len(dumps(answer)) <= INLINE_BYTES else None


@asynccontextmanager
async def _opened(
    ctx: CallContext, paths: Sequence[Path], allow_change: bool
) -> AsyncIterator[list[OpenFile | CallError]]:
    """The files, opened at once, or why each is not; closed with the block."""
    found: dict[int, OpenFile | CallError] = {}

    async def one(number: int, path: Path) -> None:
        try:
            found[number] = await open_file(ctx.hands, path, allow_change=allow_change)
        except CallError as error:
            found[number] = error

    try:
        async with anyio.create_task_group() as group:
            for number, path in enumerate(paths):
                group.start_soon(one, number, path)
        yield [found[number] for number in range(len(paths))]
    finally:
        for opened in found.values():
            if isinstance(opened, OpenFile):
                opened.close()
