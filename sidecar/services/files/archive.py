"""`files.archive`, `files.extract`: whole trees as tar streams.

Hands packs and unpacks (`hands.local.tar`), core moves the bytes between its pipe and the stream.
An archive is made as it is sent and kept nowhere, so that nobody can go on with it after a
restart of the sidecar: whoever wanted it calls again.
"""

from __future__ import annotations

from typing import Any

import anyio

from sidecar.context import CallContext
from sidecar.errors import CallError, Code, Invalid, ProtocolError, Started
from sidecar.hands.interface import Tool, ToolName
from sidecar.pipes import PipeWriter
from sidecar.protocol.calls import first_of
from sidecar.protocol.fields import is_uint
from sidecar.protocol.filecommands import FilesArchive, FilesExtract
from sidecar.protocol.streams import CONTENT
from sidecar.services.files.filling import next_chunks
from sidecar.services.files.showing import show_name
from sidecar.services.files.toolrecords import broken
from sidecar.streaming import Receiver
from sidecar.streaming.toolsource import ToolSource

MOST_ROWS = 1000  # entries that are named with a reason
PATH_BYTES = 1024 * 1024  # of one path in an archive; a header may be no longer
REASON_LENGTH = 500  # characters


async def archive(ctx: CallContext, arguments: FilesArchive) -> dict[str, Any]:
    """See `FilesArchive`. The stream begins with the first bytes: what cannot be archived at all
    is the answer, and has none."""
    ctx.check_streams()
    await ctx.started(b"")
    options = arguments.model_dump(exclude={"path"})
    tool = await ctx.hands.tool(ToolName.ARCHIVE, arguments.path, options)
    source = ToolSource(tool, ctx.hands.pipe_io)
    sender = None
    try:
        await source.begin()
        sender = ctx.send(CONTENT, source)
        return _told(await tool.result(), ("entries", "bytes", "skipped_count"), "skipped")
    except BaseException as error:
        if sender is not None and not ctx.is_left_by(error):
            why = CallError(Code.CANCELLED, "the archive was cancelled", started=Started.YES)
            sender.fail(error if isinstance(error, CallError) else why)
        with anyio.CancelScope(shield=True):
            await source.aclose()
        raise


async def resume_archive(ctx: CallContext, note: bytes) -> dict[str, Any]:
    """Nobody can know what the rest of it would have been."""
    message = "the sidecar was restarted while it made the archive: call again"
    raise CallError(Code.SOURCE_CHANGED, message, started=Started.YES)


async def extract(ctx: CallContext, arguments: FilesExtract) -> dict[str, Any]:
    """See `FilesExtract`."""
    await ctx.started()
    options = arguments.model_dump(exclude={"path"})
    receiver = ctx.receiver(CONTENT)
    tool = await ctx.hands.tool(ToolName.EXTRACT, arguments.path, options)
    writer = PipeWriter(tool.take_fd(), on_data=lambda: None, io=ctx.hands.pipe_io)
    try:
        await _feed_while_it_runs(writer, receiver, tool)
        counts = ("entries", "bytes", "kept", "refused_count")
        told = _told(await tool.result(), counts, "refused")
    except CallError as error:
        receiver.reset(error)  # harmless where that has ended
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await tool.aclose()  # first: an end of the pipe is not to look like one of the archive
        writer.close()
    facts = {name: told[name] for name in ("entries", "bytes", "refused_count")}
    ctx.emit("files.extracted", {"path": arguments.path, **facts})
    return told


async def _feed_while_it_runs(writer: PipeWriter, receiver: Receiver, tool: Tool) -> None:
    """`_feed`, but no longer than the tool is well: who sends nothing yet need not wait to learn
    that there is no such place."""

    async def watch() -> None:
        try:
            await tool.result()
        except CallError:
            group.cancel_scope.cancel()

    failure: CallError | None = None
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await _feed(writer, receiver)
            group.cancel_scope.cancel()
    except* CallError as several:
        failure = first_of(several)
    if failure is not None:
        raise failure


async def _feed(writer: PipeWriter, receiver: Receiver) -> None:
    """All of the stream, or as much as the tool takes: then it says why no more."""
    while chunks := await next_chunks(receiver):
        for chunk in chunks:
            if await writer.write(chunk) < len(chunk):
                return
    ended = receiver.stream.ended
    assert ended is not None
    if receiver.stream.skipped or ended.start:
        raise Invalid("a stream with holes cannot be extracted", started=Started.YES)
    writer.close()


def _told(outcome: dict[str, Any], counts: tuple[str, ...], rows: str) -> dict[str, Any]:
    """What a tool says it did, checked: hands may say anything."""
    try:
        if not all(is_uint(outcome.get(name)) for name in counts):
            raise ProtocolError("counts that are none")
        named = outcome.get(rows)
        if type(named) is not list or len(named) > MOST_ROWS:
            raise ProtocolError("a list that is none")
        return {name: outcome[name] for name in counts} | {rows: [_row(row) for row in named]}
    except ProtocolError as error:
        raise broken(error) from None


def _row(row: Any) -> list[Any]:
    match row:
        case [bytes(path), str(why)] if len(path) <= PATH_BYTES and len(why) <= REASON_LENGTH:
            return [show_name(path), why]
    raise ProtocolError("an entry that is none")
