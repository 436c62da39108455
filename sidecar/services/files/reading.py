"""`files.read`: the bytes of files, in the result or as a stream.

A regular file is opened and nothing else: a directory is `is_directory`; a FIFO, a socket and a
device are `unsupported`, and never waited for. The note for a restart is [path, what was
answered, whether changes are allowed]; of many files the path is None (see `readingmany`).
"""

from __future__ import annotations

from typing import Any

from sidecar.callrunner import INLINE_BYTES
from sidecar.context import CallContext
from sidecar.errors import Invalid
from sidecar.filesource import FileSource, RangeSource
from sidecar.hands.interface import Path
from sidecar.protocol.envelope import dumps, loads
from sidecar.protocol.filecommands import FilesRead
from sidecar.protocol.limits import NOTE_BYTES
from sidecar.protocol.streams import CONTENT
from sidecar.services.files import readingmany
from sidecar.services.files.opening import OpenFile, open_file

SMALL = INLINE_BYTES - 1024  # content that stands in the result, beside its other fields


async def read(ctx: CallContext, arguments: FilesRead) -> dict[str, Any]:
    """The bytes of a range, or of many files; see `FilesRead`."""
    if arguments.paths is not None:
        return await readingmany.read(ctx, arguments)
    assert arguments.path is not None
    opened = await open_file(
        ctx.hands, arguments.path, etag=arguments.etag, allow_change=arguments.allow_change
    )
    try:
        return await _answer(ctx, opened, arguments.path, arguments)
    except BaseException:
        opened.close()
        raise


async def _answer(
    ctx: CallContext, opened: OpenFile, path: Path, arguments: FilesRead
) -> dict[str, Any]:
    offset = arguments.offset
    if offset > opened.size:
        raise Invalid(f"a range from {offset}: the file has {opened.size} bytes", size=opened.size)
    length = opened.size - offset
    if arguments.length is not None:
        length = min(length, arguments.length)
    answer = opened.describe(offset, length)
    if arguments.inline and length <= SMALL:
        content = await opened.read(offset, length)
        opened.close()
        return {**answer, "content": content}
    ctx.check_streams()
    ctx.egress.check(length)
    note = dumps([path, answer, arguments.allow_change])
    if len(note) <= NOTE_BYTES and opened.data is None:  # else it is begun anew, or not at all
        await ctx.started(note)
    ctx.send(CONTENT, opened.source(offset, length))
    return answer


async def resume_read(ctx: CallContext, note: bytes) -> dict[str, Any]:
    """Send on from the same files. Raises `source_changed` if they are not the same any more."""
    path, answer, allow_change = loads(note)
    if path is None:
        return await readingmany.resume(ctx, answer, allow_change=allow_change)
    fd = await ctx.hands.open(path)
    file = FileSource(fd, what=path, etag=answer["etag"], allow_change=allow_change)
    try:
        source = RangeSource(file, answer["offset"], answer["length"])
        ctx.send(CONTENT, source, sent=answer["length"])
    except BaseException:
        file.close()
        raise
    found: dict[str, Any] = answer
    return found
