"""What core may ask of a hands in another process about paths. Twin of `remotefiles`.

The uploads and tools that a connection began end with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from sidecar.errors import CallError, Code, Invalid
from sidecar.hands.apart import messages
from sidecar.hands.apart.wire import MAX_REPLY
from sidecar.hands.fileinterface import ToolName
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.local.tools import LocalTool
from sidecar.hands.local.upload import LocalUpload

PAGE_BYTES = MAX_REPLY - 64 * 1024  # of a page of a directory; a longer one is cut
MAX_UPLOADS = 1024  # of one connection at once
ABORT_TIME = 2.0  # seconds to remove what uploads left

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A value, and descriptors to send along, which are then closed if they were `made` for it."""

    value: Any = None
    descriptors: Sequence[int] = ()
    made: bool = False


class FileRequests:
    """Performs the requests of one connection that are about paths."""

    NAMES = (
        *("open", "stat", "walk", "mkdir", "rename", "link", "symlink", "remove"),
        *("chmod", "utimes"),
        *("append", "replace", "commit", "abort", "part", "discard"),
        *("tool", "tool_result", "tool_end"),
    )

    def __init__(self, hands: LocalHands) -> None:
        self._hands = hands
        self._uploads: dict[int, LocalUpload] = {}
        self._next_upload = 1
        self._tools: dict[int, LocalTool] = {}
        self._next_tool = 1

    async def aclose(self) -> None:
        """End the tools and abort the uploads that nobody ended."""
        for tool in self._tools.values():
            tool.stop()
        with anyio.move_on_after(ABORT_TIME, shield=True):
            for tool in self._tools.values():
                await tool.ended.wait()
        with anyio.move_on_after(ABORT_TIME, shield=True):
            for upload in list(self._uploads.values()):
                await upload.abort()

    # Paths -------------------------------------------------------------------------------

    async def open(self, a: Arguments) -> Answer:
        return Answer(None, [await self._hands.open(a["path"])], made=True)

    async def stat(self, a: Arguments) -> Answer:
        return Answer(messages.stat_row(await self._hands.stat(a["path"], follow=a["follow"])))

    async def walk(self, a: Arguments) -> Answer:
        selection = messages.selection_from(a["selection"])
        page = await self._hands.walk(a["path"], selection, after=a["after"], limit=a["limit"])
        return Answer(messages.listing_row(page, PAGE_BYTES))

    async def mkdir(self, a: Arguments) -> Answer:
        await self._hands.mkdir(
            a["path"], parents=a["parents"], exist_ok=a["exist_ok"], mode=a["mode"]
        )
        return Answer()

    async def rename(self, a: Arguments) -> Answer:
        await self._hands.rename(a["source"], a["target"], replace=a["replace"])
        return Answer()

    async def link(self, a: Arguments) -> Answer:
        await self._hands.link(a["source"], a["target"])
        return Answer()

    async def symlink(self, a: Arguments) -> Answer:
        await self._hands.symlink(a["path"], a["text"], anywhere=a["anywhere"])
        return Answer()

    async def remove(self, a: Arguments) -> Answer:
        return Answer(await self._hands.remove(a["path"], recursive=a["recursive"]))

    async def chmod(self, a: Arguments) -> Answer:
        await self._hands.chmod(a["path"], a["mode"])
        return Answer()

    async def utimes(self, a: Arguments) -> Answer:
        await self._hands.utimes(a["path"], atime_ns=a["atime_ns"], mtime_ns=a["mtime_ns"])
        return Answer()

    async def append(self, a: Arguments) -> Answer:
        descriptor = await self._hands.append(
            a["path"], create=a["create"], parents=a["parents"], mode=a["mode"]
        )
        return Answer(None, [descriptor], made=True)

    # Uploads -----------------------------------------------------------------------------

    async def replace(self, a: Arguments) -> Answer:
        if len(self._uploads) >= MAX_UPLOADS:
            raise CallError(Code.LIMIT, f"more than {MAX_UPLOADS} uploads at once")
        upload = await self._hands.replace(a["path"], parents=a["parents"], upload=a["upload"])
        number = self._next_upload
        self._next_upload += 1
        self._uploads[number] = upload
        return Answer(number, [upload.fd])

    async def commit(self, a: Arguments) -> Answer:
        upload = self._uploads.get(a["upload"])
        if upload is None:
            raise Invalid("this upload has ended")
        try:
            found = await upload.commit(mode=a["mode"], mtime_ns=a["mtime_ns"], expect=a["expect"])
            return Answer(messages.stat_row(found))
        finally:
            if upload.fd < 0:
                self._uploads.pop(a["upload"], None)

    async def abort(self, a: Arguments) -> Answer:
        upload = self._uploads.pop(a["upload"], None)
        if upload is not None:
            await upload.abort()
        return Answer()

    async def part(self, a: Arguments) -> Answer:
        found = await self._hands.part(a["path"], a["upload"])
        return Answer(None if found is None else messages.stat_row(found))

    async def discard(self, a: Arguments) -> Answer:
        gone = await self._hands.discard(a["path"], a["upload"], older_than=a["older_than"])
        return Answer(gone)

    # Tools -------------------------------------------------------------------------------

    async def tool(self, a: Arguments) -> Answer:
        try:
            name = ToolName(a["name"])
        except ValueError:
            raise CallError(Code.UNSUPPORTED, f"this hands has no tool {a['name']!r}") from None
        tool = await self._hands.tool(name, a["path"], a["options"])
        number = self._next_tool
        self._next_tool += 1
        self._tools[number] = tool
        return Answer(number, [tool.take_fd()], made=True)

    async def tool_result(self, a: Arguments) -> Answer:
        tool = self._tools.get(a["tool"])
        if tool is None:
            raise Invalid("this tool was ended")
        return Answer(await tool.result())

    async def tool_end(self, a: Arguments) -> Answer:
        tool = self._tools.pop(a["tool"], None)
        if tool is not None:
            await tool.aclose()
        return Answer()
