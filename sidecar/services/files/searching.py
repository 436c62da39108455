"""`files.search`: lines that match, found by hands, checked and counted here."""

from __future__ import annotations

import os
from typing import Any

import anyio

from sidecar.context import CallContext
from sidecar.errors import Invalid, ProtocolError
from sidecar.hands.fileinterface import Path, Tool, ToolName
from sidecar.hands.foundlines import FoundLine, lines_from, outcome_from
from sidecar.protocol.filecommands import FilesSearch
from sidecar.protocol.limits import SEARCH_BYTES
from sidecar.services.files.showing import show_name
from sidecar.services.files.toolrecords import broken, records_of


async def search(ctx: CallContext, arguments: FilesSearch) -> dict[str, Any]:
    """See `FilesSearch`."""
    if any(character in arguments.pattern for character in "\n\0"):
        raise Invalid(
            "the pattern: lines are searched one by one, so it has no line end and no NUL"
        )
    options = arguments.model_dump(exclude={"path", "glob"})
    options["globs"] = [_glob(pattern) for pattern in arguments.glob]
    tool = await ctx.hands.tool(ToolName.SEARCH, arguments.path, options)
    try:
        return await _collect(ctx, tool, arguments)
    except ProtocolError as error:
        raise broken(error) from None
    finally:
        with anyio.CancelScope(shield=True):
            await tool.aclose()


async def _collect(ctx: CallContext, tool: Tool, arguments: FilesSearch) -> dict[str, Any]:
    lead = _lead(arguments.path)
    rows: list[list[Any]] = []
    matched: set[bytes] = set()
    lines_left, bytes_left = arguments.limit, SEARCH_BYTES
    async for record in records_of(tool, ctx.hands.pipe_io):
        for line in lines_from(record, arguments.line_bytes):
            lines_left -= line.column > 0
            bytes_left -= line.size
            if lines_left < 0 or bytes_left < 0:
                raise ProtocolError("more was found than was wanted")
            rows.append(_row(lead, line))
            matched.add(line.path)
    outcome = outcome_from(await tool.result())
    return {**outcome.as_map(), "lines": rows, "matched": len(matched)}


def _row(lead: bytes, line: FoundLine) -> list[Any]:
    path = lead + line.path if line.path else lead.removesuffix(b"/")
    return [show_name(path), line.line, line.column, show_name(line.text), line.is_cut]


def _lead(path: Path) -> bytes:
    """What makes a path below `path` one that other commands take."""
    encoded = os.fsencode(path)
    if encoded in (b"", b"."):
        return b""
    return encoded.rstrip(b"/") + b"/"


def _glob(pattern: Path) -> Path:
    """A pattern without a slash is of names, wherever they are."""
    if isinstance(pattern, bytes):
        return pattern if b"/" in pattern else b"**/" + pattern
    return pattern if "/" in pattern else f"**/{pattern}"
