"""`files.edit`: exact replacements, all or none, in a file that is then replaced whole.

The file is read, edited in a thread, and written back on condition that it is still the one that
was read. Who lost that race is told so and reads again: what somebody else wrote in between may
be just what the replacements were about.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

import anyio

from sidecar.context import CallContext
from sidecar.errors import CallError, Code, LimitExceeded, Started, from_os_error, show_path
from sidecar.hands.interface import FileStat, Path
from sidecar.protocol.filecommands import FilesEdit
from sidecar.protocol.limits import EDIT_BYTES
from sidecar.services.files.edits import Edit, Edited, apply
from sidecar.services.files.opening import open_file
from sidecar.threads import in_thread


async def edit(ctx: CallContext, arguments: FilesEdit) -> dict[str, Any]:
    """Make the replacements; see `FilesEdit`, and `edits` for why one may not fit."""
    path = arguments.path
    content, etag = await _read(ctx, path)
    edits = [Edit(_bytes(x.old), _bytes(x.new), x.count) for x in arguments.edits]
    edited, sha256 = await in_thread(_edit, content, arguments.if_match, edits, path)
    await ctx.started()
    stat = await _write(ctx, path, edited.content, etag)
    size = len(edited.content)
    ctx.emit("files.written", {"path": path, "size": size, "sha256": sha256})
    return {
        "size": size,
        "sha256": sha256,
        "etag": stat.etag,
        "replaced": edited.replaced,
        "lines": edited.lines,
    }


async def _read(ctx: CallContext, path: Path) -> tuple[bytes, str]:
    """All of the file, and its etag."""
    file = await open_file(ctx.hands, path)
    try:
        if file.size > EDIT_BYTES:
            raise LimitExceeded(
                f"bytes of {show_path(path)}", size=file.size, limit=EDIT_BYTES, path=path
            )
        return await file.read(0, file.size), file.etag
    finally:
        file.close()


def _edit(
    content: bytes, if_match: bytes | None, edits: list[Edit], path: Path
) -> tuple[Edited, bytes]:
    """What comes out, and its SHA-256. Errors have the one of `content`: to be told of a file
    that is not as expected is to be told which one it is."""
    before = hashlib.sha256(content).digest()
    if if_match is not None and if_match != before:
        raise CallError(
            Code.PRECONDITION_FAILED,
            f"{show_path(path)} has SHA-256 {before.hex()}, {if_match.hex()} was expected",
            path=path,
            reason="if_match",
            sha256=before,
        )
    try:
        edited = apply(content, edits)
    except CallError as error:
        error.message = f"{show_path(path)}: {error.message}"
        error.details |= {"path": path, "sha256": before}
        raise
    return edited, hashlib.sha256(edited.content).digest()


async def _write(ctx: CallContext, path: Path, content: bytes, etag: str) -> FileStat:
    """Replace the file, if it still has this etag."""
    upload = await ctx.hands.replace(path)
    try:
        await in_thread(_write_all, upload.fd, content, path)
        return await upload.commit(expect=etag)
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await upload.abort()
        if isinstance(error, CallError) and error.code is Code.PRECONDITION_FAILED:
            error.details["reason"] = "changed"
        raise


def _write_all(fd: int, content: bytes, path: Path) -> None:
    view = memoryview(content)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        raise from_os_error(error, path, started=Started.YES) from error


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
