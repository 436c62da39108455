"""`files.list`, `files.glob`: what there is in a tree, page by page."""

from __future__ import annotations

from typing import Any

from sidecar.context import CallContext
from sidecar.hands.interface import Listing, Path, Selection
from sidecar.hands.names import as_bytes
from sidecar.protocol.filecommands import FilesGlob, FilesList
from sidecar.services.files.showing import show_entry, show_name


async def list_directory(ctx: CallContext, arguments: FilesList) -> dict[str, Any]:
    """One page of a directory, or of the tree below it."""
    depth = arguments.depth if arguments.recursive else 1
    selection = Selection(arguments.exclude, arguments.ignore, depth=depth)
    return _show(
        await ctx.hands.walk(
            arguments.path, selection, after=_bytes(arguments.after), limit=arguments.limit
        )
    )


async def glob(ctx: CallContext, arguments: FilesGlob) -> dict[str, Any]:
    """One page of the paths that match. It may be empty, although another follows."""
    selection = Selection(arguments.exclude, arguments.ignore, arguments.patterns)
    return _show(
        await ctx.hands.walk(
            arguments.path, selection, after=_bytes(arguments.after), limit=arguments.limit
        )
    )


def _show(page: Listing) -> dict[str, Any]:
    answer: dict[str, Any] = {"entries": [show_entry(entry) for entry in page.entries]}
    if page.next is not None:
        answer["next"] = show_name(page.next)
    return answer


def _bytes(after: Path | None) -> bytes | None:
    return None if after is None else as_bytes(after, "after")
