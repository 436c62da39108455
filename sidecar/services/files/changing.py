"""Names are made, changed and taken away: `files.mkdir`, `move`, `remove`, `link`, `chmod`."""

from __future__ import annotations

from typing import Any

from sidecar.context import CallContext
from sidecar.protocol.filecommands import FilesChmod, FilesLink, FilesMkdir, FilesMove, FilesRemove


async def mkdir(ctx: CallContext, arguments: FilesMkdir) -> dict[str, Any]:
    await ctx.started()
    await ctx.hands.mkdir(
        arguments.path,
        parents=arguments.parents,
        exist_ok=arguments.exist_ok,
        mode=arguments.mode,
    )
    return {}


async def move(ctx: CallContext, arguments: FilesMove) -> dict[str, Any]:
    await ctx.started()
    await ctx.hands.rename(arguments.source, arguments.target, replace=arguments.replace)
    ctx.emit("files.moved", {"source": arguments.source, "target": arguments.target})
    return {}


async def remove(ctx: CallContext, arguments: FilesRemove) -> dict[str, Any]:
    await ctx.started()
    removed = await ctx.hands.remove(arguments.path, recursive=arguments.recursive)
    ctx.emit("files.removed", {"path": arguments.path, "removed": removed})
    return {"removed": removed}


async def link(ctx: CallContext, arguments: FilesLink) -> dict[str, Any]:
    """A second name, or a symbolic link; see `FilesLink`."""
    await ctx.started()
    path, target = arguments.path, arguments.target
    if arguments.hard:
        await ctx.hands.link(target, path)
    else:
        await ctx.hands.symlink(path, target, anywhere=arguments.any)
    ctx.emit("files.linked", {"path": path, "target": target, "hard": arguments.hard})
    return {}


async def chmod(ctx: CallContext, arguments: FilesChmod) -> dict[str, Any]:
    await ctx.started()
    await ctx.hands.chmod(arguments.path, arguments.mode)
    ctx.emit("files.mode_changed", {"path": arguments.path, "mode": arguments.mode})
    return {}
