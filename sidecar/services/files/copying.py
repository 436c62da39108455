"""`files.copy`: hands copies, as a tool; no byte comes through here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio

from sidecar.context import CallContext
from sidecar.errors import CallError, Code, Started
from sidecar.hands.interface import ToolName
from sidecar.protocol.fields import is_bytes, is_uint
from sidecar.protocol.filecommands import FilesCopy
from sidecar.services.files.showing import show_name


async def copy(ctx: CallContext, arguments: FilesCopy) -> dict[str, Any]:
    """A file, a link or a tree to a new name; see `FilesCopy`. Cancelled, it stops after the file
    at hand."""
    await ctx.started()
    options = {
        "target": arguments.target,
        "recursive": arguments.recursive,
        "replace": arguments.replace,
    }
    tool = await ctx.hands.tool(ToolName.COPY, arguments.source, options)
    try:
        answer = _show(await tool.result())
    finally:
        with anyio.CancelScope(shield=True):
            await tool.aclose()
    event = {"source": arguments.source, "target": arguments.target}
    ctx.emit("files.copied", {**event, "copied": answer["copied"], "bytes": answer["bytes"]})
    return answer


def _show(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """The answer; hands may have said anything."""
    counts = {name: outcome.get(name) for name in ("copied", "bytes", "skipped_count")}
    skipped = outcome.get("skipped")
    if not all(map(is_uint, counts.values())) or not isinstance(skipped, list):
        raise _broken()
    return {**counts, "skipped": [_show_skipped(row) for row in skipped]}


def _show_skipped(row: Any) -> list[str | bytes]:
    if not isinstance(row, list) or len(row) != 2 or not is_bytes(row[0]):
        raise _broken()
    path, code = row
    if code not in Code.__members__.values():
        raise _broken()
    return [show_name(path), code]


def _broken() -> CallError:
    message = "hands broke the protocol: what became of the copy was expected"
    return CallError(Code.HANDS_AWAY, message, started=Started.YES)
