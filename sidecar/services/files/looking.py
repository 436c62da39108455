"""`files.stat`: what paths are, and what their bytes hash to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import anyio

from sidecar.context import CallContext
from sidecar.errors import CallError, Code, show_path
from sidecar.hands.interface import FileType, Path, stat_of
from sidecar.protocol.envelope import error_map
from sidecar.protocol.filecommands import FilesStat
from sidecar.services.files.filling import hash_file
from sidecar.services.files.showing import describe

AT_ONCE = 8  # paths of one call that are looked at together
LOOKS = 3  # at a file that changes while it is hashed

Row = dict[str, Any]


async def stat(ctx: CallContext, arguments: FilesStat) -> Row:
    """One path, or a row for each of many; of a link itself unless `follow`."""
    if arguments.path is not None:
        return await _look(ctx, arguments, arguments.path)
    assert arguments.paths is not None
    rows: list[Row] = [{"path": path} for path in arguments.paths]
    todo = iter(rows)
    async with anyio.create_task_group() as tasks:
        for _ in range(min(AT_ONCE, len(rows))):
            tasks.start_soon(_fill, ctx, arguments, todo)
    return {"entries": rows}


async def _fill(ctx: CallContext, arguments: FilesStat, todo: Iterator[Row]) -> None:
    """Complete one row after the other, of those that nobody has taken yet."""
    for row in todo:
        try:
            row |= await _look(ctx, arguments, row["path"])
        except CallError as error:
            row["error"] = error_map(error)


async def _look(ctx: CallContext, arguments: FilesStat, path: Path) -> Row:
    found = await ctx.hands.stat(path, follow=arguments.follow)
    if not arguments.hash or found.type is not FileType.FILE:
        return describe(found)
    for _ in range(LOOKS):
        if (hashed := await _hashed(ctx, path)) is not None:
            return hashed
    raise CallError(Code.SOURCE_CHANGED, f"{show_path(path)} changes while it is read", path=path)


async def _hashed(ctx: CallContext, path: Path) -> Row | None:
    """None for a file that changed meanwhile. The size is how many bytes were read: a file of
    procfs does not know it."""
    fd = await ctx.hands.open(path)
    try:
        before = stat_of(os.fstat(fd))
        size, sha256 = await hash_file(fd, path)
        after = stat_of(os.fstat(fd))
    finally:
        os.close(fd)
    if before.etag != after.etag:
        return None
    return {**describe(after), "size": size, "sha256": sha256}
