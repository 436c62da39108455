"""`files.append`: bytes at the end of a file. Calls of this sidecar to one file take turns.

A file that another one takes the place of has no name any more, and what is added to it is lost
with it. Who waited for his turn meanwhile opens the new one; who was at it is told.
"""

from __future__ import annotations

import os
from typing import Any

from sidecar.context import CallContext
from sidecar.errors import CallError, Code, Started, from_os_error, show_path
from sidecar.hands.fileinterface import Path, stat_of
from sidecar.protocol.filecommands import FilesAppend
from sidecar.protocol.streams import CONTENT
from sidecar.services.files.filling import fill
from sidecar.threads import in_thread

OPENS = 8  # of a file that is replaced each time; then `source_changed`


async def append(ctx: CallContext, arguments: FilesAppend) -> dict[str, Any]:
    """Add `content` or stream 3; see `FilesAppend`."""
    path = arguments.path
    await ctx.started()
    create = arguments.create and not arguments.size  # one that is made has no byte
    for _ in range(OPENS):
        fd = await ctx.hands.append(
            path, create=create, parents=arguments.parents, mode=arguments.mode
        )
        try:
            found = os.fstat(fd)
            async with ctx.means.turns.hold((found.st_dev, found.st_ino)):
                if os.fstat(fd).st_nlink:
                    return await _append(ctx, arguments, fd)
        finally:
            os.close(fd)
    raise _replaced(path)


async def _append(ctx: CallContext, arguments: FilesAppend, fd: int) -> dict[str, Any]:
    path, before = arguments.path, os.fstat(fd).st_size
    if arguments.size is not None and arguments.size != before:
        raise CallError(
            Code.PRECONDITION_FAILED,
            f"{show_path(path)} has {before} bytes, {arguments.size} were expected",
            path=path,
            reason="size",
            size=before,
        )
    content = ctx.receiver(CONTENT) if arguments.content is None else arguments.content
    needed = len(content) if isinstance(content, bytes) else None
    try:
        added, sha256 = await fill(fd, path, content, needed=needed)
        end = await in_thread(_settle, fd, path) if added else before
    except CallError as error:
        error.details["size"] = os.fstat(fd).st_size  # with what of it is there
        raise
    stat = stat_of(os.fstat(fd))
    if not stat.links:
        raise _replaced(path)
    ctx.emit("files.appended", {"path": path, "offset": end - added, "size": added})
    return {
        "offset": end - added,
        "added": added,
        "sha256": sha256,
        "size": stat.size,
        "etag": stat.etag,
    }


def _replaced(path: Path) -> CallError:
    return CallError(
        Code.SOURCE_CHANGED,
        f"{show_path(path)} was replaced or removed while bytes were added to it",
        started=Started.YES,
        path=path,
    )


def _settle(fd: int, path: Path) -> int:
    """Until it survives a power cut. Where our bytes end: others may have written behind them."""
    end = os.lseek(fd, 0, os.SEEK_CUR)
    try:
        os.fdatasync(fd)
    except OSError as error:
        raise from_os_error(error, path, started=Started.YES) from None
    return end
