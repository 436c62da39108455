"""Core's side of what hands does to paths. Twin of `filerequests`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from sidecar.hands.apart import messages
from sidecar.hands.apart.asker import FILE_TIME, Asker
from sidecar.hands.apart.asking import (
    ask,
    read_end,
    read_file,
    read_flag,
    read_nothing,
    read_number,
    read_part,
    read_stat,
    read_tool,
    read_upload,
)
from sidecar.hands.apart.remotetool import RemoteTool
from sidecar.hands.apart.remoteupload import RemoteUpload
from sidecar.hands.fileinterface import (
    ALL,
    CORE_WRITES,
    FileStat,
    Listing,
    OpenMode,
    Path,
    Selection,
    ToolName,
)

TREE_TIME = 3600.0  # seconds for a whole tree; the caller's deadline is usually sooner


class RemoteFiles:
    """See `fileinterface.FileHands`."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def open(self, path: Path, mode: OpenMode = OpenMode.READ) -> int:
        return await self._asker.look("open", {"path": _path(path)}, read_file)

    async def append(
        self, path: Path, *, create: bool = True, parents: bool = False, mode: int | None = None
    ) -> int:
        arguments = {"path": _path(path), "create": create, "parents": parents, "mode": mode}
        return await self._asker.act("append", arguments, read_end, FILE_TIME)

    async def replace(
        self, path: Path, *, parents: bool = False, upload: bytes | None = None
    ) -> RemoteUpload:
        connection = await self._asker.dialer.connection()
        arguments = {"path": _path(path), "parents": parents, "upload": upload}

        def undo(number: Any) -> None:
            connection.do("abort", {"upload": number})

        number, fd = await ask(connection, "replace", arguments, read_upload, FILE_TIME, undo)
        return RemoteUpload(connection, number, fd)

    async def part(self, path: Path, upload: bytes) -> FileStat | None:
        return await self._asker.look("part", {"path": _path(path), "upload": upload}, read_part)

    async def discard(self, path: Path, upload: bytes, *, older_than: float = 0.0) -> bool:
        """See `FileHands.discard`. Done twice it does no more than once."""
        arguments = {"path": _path(path), "upload": upload, "older_than": older_than}
        return await self._asker.look("discard", arguments, read_flag)

    async def stat(self, path: Path, *, follow: bool = False) -> FileStat:
        return await self._asker.look("stat", {"path": _path(path), "follow": follow}, read_stat)

    async def walk(
        self,
        path: Path,
        selection: Selection = ALL,
        *,
        after: bytes | None = None,
        limit: int = 1000,
    ) -> Listing:
        """See `FileHands.walk`. A page of long names is shorter than it might be."""
        arguments = {
            "path": _path(path),
            "selection": messages.selection_map(selection),
            "after": after,
            "limit": limit,
        }
        return await self._asker.look(
            "walk", arguments, lambda question: messages.listing_from(question.value, after, limit)
        )

    async def mkdir(
        self, path: Path, *, parents: bool = False, exist_ok: bool = False, mode: int = 0o777
    ) -> None:
        arguments = {"path": _path(path), "parents": parents, "exist_ok": exist_ok, "mode": mode}
        await self._asker.act("mkdir", arguments, read_nothing, FILE_TIME)

    async def rename(self, source: Path, target: Path, *, replace: bool = True) -> None:
        arguments = {"source": _path(source), "target": _path(target), "replace": replace}
        await self._asker.act("rename", arguments, read_nothing, FILE_TIME)

    async def link(self, source: Path, target: Path) -> None:
        arguments = {"source": _path(source), "target": _path(target)}
        await self._asker.act("link", arguments, read_nothing, FILE_TIME)

    async def symlink(self, path: Path, text: Path, *, anywhere: bool = False) -> None:
        target = messages.plain(text, "target")
        arguments = {"path": _path(path), "text": target, "anywhere": anywhere}
        await self._asker.act("symlink", arguments, read_nothing, FILE_TIME)

    async def remove(self, path: Path, *, recursive: bool = False) -> int:
        arguments = {"path": _path(path), "recursive": recursive}
        return await self._asker.act("remove", arguments, read_number, TREE_TIME)

    async def chmod(self, path: Path, mode: int) -> None:
        await self._asker.act("chmod", {"path": _path(path), "mode": mode}, read_nothing, FILE_TIME)

    async def utimes(self, path: Path, *, atime_ns: int, mtime_ns: int) -> None:
        arguments = {"path": _path(path), "atime_ns": atime_ns, "mtime_ns": mtime_ns}
        await self._asker.act("utimes", arguments, read_nothing, FILE_TIME)

    async def tool(self, name: ToolName, path: Path, options: Mapping[str, Any]) -> RemoteTool:
        connection = await self._asker.dialer.connection()
        arguments = {"name": str(name), "path": _path(path), "options": dict(options)}

        def undo(number: Any) -> None:
            connection.do("tool_end", {"tool": number})

        read = partial(read_tool, core_writes=name in CORE_WRITES)
        number, fd = await ask(connection, "tool", arguments, read, FILE_TIME, undo)
        return RemoteTool(connection, number, fd)


def _path(path: Path) -> Path:
    return messages.plain(path, "path")
