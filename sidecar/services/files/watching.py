"""`files.watch`: what changes below a directory, as a stream for as long as somebody wants it.

Hands watches and core passes on, once it has seen that each record is one. The stream ends with
the call, and the call when it is cancelled, when the watch fails, or ten minutes after the last
one left who read it. It is nothing that a restart of the sidecar could take up: what happened in
between nobody saw, so whoever watched calls again and looks at the tree.
"""

from __future__ import annotations

from typing import Any

import anyio

from sidecar.context import CallContext
from sidecar.errors import CallError, Code, ProtocolError, Started
from sidecar.hands.fileinterface import FileType, Tool, ToolName
from sidecar.protocol.envelope import dumps
from sidecar.protocol.filecommands import FilesWatch
from sidecar.protocol.streams import CHANGES
from sidecar.services.files.showing import show_name
from sidecar.services.files.toolrecords import broken, records_of
from sidecar.streaming import Sender
from sidecar.streaming.pushing import PushSource

KINDS = frozenset({"added", "modified", "removed"})
TYPES = frozenset(map(str, FileType))
REASONS = frozenset({"overflow", "slow reader", "gone", "replaced", "unreadable"})
MAX_PATHS = 16  # below which something was lost
PATH_BYTES = 8192  # of one path, as in arguments


async def watch(ctx: CallContext, arguments: FilesWatch) -> dict[str, Any]:
    """See `FilesWatch`."""
    ctx.check_streams()
    options = arguments.model_dump(exclude={"path"})
    tool = await ctx.hands.tool(ToolName.WATCH, arguments.path, options)
    try:
        return await _Passing(ctx, tool).run()
    finally:
        with anyio.CancelScope(shield=True):
            await tool.aclose()


class _Passing:
    """From a tool into a stream, which begins with the first record: a path that cannot be
    watched has none."""

    def __init__(self, ctx: CallContext, tool: Tool) -> None:
        self._ctx = ctx
        self._tool = tool
        self._source = PushSource()
        self._sender: Sender | None = None

    async def run(self) -> dict[str, Any]:
        try:
            async for record in records_of(self._tool, self._ctx.hands.pipe_io):
                await self._pass_on(record)
            await self._tool.result()  # which says nothing, or why it failed
            return {}
        except anyio.BrokenResourceError:
            raise self._why_nobody_reads() from None
        except anyio.get_cancelled_exc_class() as error:
            if self._sender is not None and not self._ctx.is_left_by(error):
                self._sender.fail(CallError(Code.CANCELLED, "the watch was cancelled"))
            raise
        finally:
            self._source.end()  # what is in it still arrives, and then the answer says why

    async def _pass_on(self, record: Any) -> None:
        try:
            data = dumps(checked(record))
        except ProtocolError as error:
            raise broken(error) from None
        if self._sender is None:
            self._sender = self._ctx.send(CHANGES, self._source)
        await self._source.push(data)

    def _why_nobody_reads(self) -> CallError:
        error = None if self._sender is None else self._sender.error
        gone = CallError(Code.CANCELLED, "nobody reads this watch", started=Started.YES)
        return error or gone


def checked(record: Any) -> dict[str, Any]:
    """A record as it travels. Raises `ProtocolError`: hands may say anything."""
    match record:
        case {"changes": list(rows), **rest} if not rest:
            return {"changes": [_checked_row(row) for row in rows]}
        case {"lost": str(why), **rest} if why in REASONS and not rest:
            return {"lost": why}
        case {"lost": str(why), "paths": list(paths), **rest} if why in REASONS and not rest:
            if len(paths) <= MAX_PATHS:
                return {"lost": why, "paths": [_checked_path(path) for path in paths]}
    raise ProtocolError("a record of a watch that is none")


def _checked_row(row: Any) -> list[Any]:
    match row:
        case [str(kind), bytes(path), str(type)] if kind in KINDS and type in TYPES:
            return [kind, _checked_path(path), type]
    raise ProtocolError("a change that is none")


def _checked_path(path: Any) -> str | bytes:
    """Below the watched directory, whatever hands says: a reader may join it to a path of its
    own."""
    if not isinstance(path, bytes) or not 0 < len(path) <= PATH_BYTES or b"\0" in path:
        raise ProtocolError("a path that is none")
    if any(name in (b"", b".", b"..") for name in path.split(b"/")):
        raise ProtocolError("a path that does not lie below the directory")
    return show_name(path)
