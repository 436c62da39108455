"""`files.upload`: what there is of an upload, and what becomes of one that a restart cut off."""

from __future__ import annotations

from typing import Any

from sidecar.context import CallContext
from sidecar.errors import CallError, Code, Started, show_path
from sidecar.hands.interface import Path
from sidecar.protocol import calls
from sidecar.protocol.envelope import dumps, loads
from sidecar.protocol.filecommands import FilesUpload
from sidecar.protocol.limits import NOTE_BYTES


async def upload(ctx: CallContext, arguments: FilesUpload) -> dict[str, Any]:
    """How many bytes lie in the part, 0 if there is none; see `FilesUpload`."""
    path, id = arguments.path, arguments.upload
    if not arguments.discard:
        return {"size": await _size(ctx, path, id)}
    await ctx.started()
    async with ctx.means.uploads.claim(path, id):
        size = await _size(ctx, path, id)
        if not await ctx.hands.discard(path, id):
            raise CallError(
                Code.CONFLICT, f"somebody else writes the part of {show_path(path)}", path=path
            )
        await ctx.means.uploads.end(path, id)
    return {"size": size}


async def resume_write(ctx: CallContext, note: bytes) -> dict[str, Any]:
    """A restart cut the write off, and its caller may go on where the part ends. Without a part
    the file may have become what it was to be, or not."""
    path, id = loads(note)
    part = await ctx.hands.part(path, id)
    if part is None:
        raise calls.outcome_unknown(ctx.id)
    raise CallError(
        Code.INTERRUPTED,
        f"the sidecar was restarted; {part.size} bytes of {show_path(path)} are kept",
        started=Started.YES,
        path=path,
        size=part.size,
    )


def note_of(path: Path, upload: bytes | None) -> bytes | None:
    """For `resume_write`; None if there is nothing that one could go on with."""
    if upload is None:
        return None
    note = dumps([path, upload])
    return note if len(note) <= NOTE_BYTES else None


async def _size(ctx: CallContext, path: Path, id: bytes) -> int:
    found = await ctx.hands.part(path, id)
    return 0 if found is None else found.size
