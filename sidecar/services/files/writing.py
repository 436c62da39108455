"""`files.write`: a file is replaced whole, once size and digest were found right."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import anyio

from sidecar.context import CallContext
from sidecar.errors import CallError, Code, Started, show_path
from sidecar.hands.interface import Upload
from sidecar.protocol.filecommands import FilesWrite
from sidecar.protocol.streams import CONTENT
from sidecar.services.files.conditions import Conditions
from sidecar.services.files.filling import cut, fill, hash_file
from sidecar.services.files.uploading import note_of


async def write(ctx: CallContext, arguments: FilesWrite) -> dict[str, Any]:
    """Replace a file with `content` or stream 3; see `FilesWrite`."""
    if arguments.upload is None:
        return await _write(ctx, arguments)
    async with ctx.means.uploads.claim(arguments.path, arguments.upload):
        return await _write(ctx, arguments)


async def _write(ctx: CallContext, a: FilesWrite) -> dict[str, Any]:
    conditions = Conditions(ctx, a.path, a.if_match, a.if_none_match)
    await conditions.look()
    await ctx.started(note_of(a.path, a.upload))
    upload = await _begin(ctx, a)
    try:
        size, sha256 = await _receive(ctx, a, upload)
        _check(a, size, sha256)
        stat = await conditions.commit(upload, mode=a.mode, mtime_ns=a.mtime_ns)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await _leave(ctx, a, upload)
        raise
    ctx.emit("files.written", {"path": a.path, "size": size, "sha256": sha256})
    if a.upload is not None:
        with anyio.CancelScope(shield=True):  # the file is there: nobody is to hear otherwise
            await ctx.means.uploads.end(a.path, a.upload)
    return {"size": size, "sha256": sha256, "etag": stat.etag, "mode": stat.mode}


async def _begin(ctx: CallContext, a: FilesWrite) -> Upload:
    if a.upload is None:
        return await ctx.hands.replace(a.path, parents=a.parents)
    is_new = await ctx.means.uploads.begin(a.path, a.upload)
    try:
        return await ctx.hands.replace(a.path, parents=a.parents, upload=a.upload)
    except CallError as error:
        if is_new and error.started is Started.NO:  # no part was made
            await ctx.means.uploads.end(a.path, a.upload)
        raise


async def _receive(ctx: CallContext, a: FilesWrite, upload: Upload) -> tuple[int, bytes]:
    """All bytes of the file, in its part; their number and SHA-256. Of an upload the whole part is
    read again: others, and long ago, may have written to it."""
    content = ctx.receiver(CONTENT) if a.content is None else a.content
    needed = None if a.size is None else max(0, a.size - a.offset)
    if a.upload is None:
        return await fill(upload.fd, a.path, content, needed=needed)
    if a.offset > upload.size:
        raise CallError(
            Code.PRECONDITION_FAILED,
            f"the upload of {show_path(a.path)} has {upload.size} bytes, not {a.offset}",
            started=Started.YES,
            path=a.path,
            reason="offset",
            size=upload.size,
        )
    await cut(upload.fd, a.path, a.offset)
    await fill(upload.fd, a.path, content, needed=needed)
    return await hash_file(upload.fd, a.path)


def _check(arguments: FilesWrite, size: int, sha256: bytes) -> None:
    if arguments.size is not None and arguments.size != size:
        raise CallError(
            Code.INVALID,
            f"{size} bytes came, {arguments.size} were announced",
            started=Started.YES,
            size=size,
        )
    if arguments.sha256 is not None and arguments.sha256 != sha256:
        raise CallError(
            Code.DIGEST_MISMATCH,
            f"the {size} bytes that came have SHA-256 {sha256.hex()},"
            f" {arguments.sha256.hex()} was expected",
            started=Started.YES,
            sha256=sha256,
        )


async def _leave(ctx: CallContext, a: FilesWrite, upload: Upload) -> None:
    """End it without a commit. A part without a byte is of use to nobody."""
    is_empty = upload.fd >= 0 and not os.fstat(upload.fd).st_size
    await upload.abort()
    if a.upload is not None and is_empty:
        with suppress(CallError):
            if await ctx.hands.discard(a.path, a.upload):
                await ctx.means.uploads.end(a.path, a.upload)
