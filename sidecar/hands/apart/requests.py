"""What core may ask of a hands in another process: each method of `Hands`, by name.

Twin of `remote`, which asks. One `Requests` belongs to one connection: the uploads that it began
end with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from sidecar.errors import CallError, Code, Invalid, ProtocolError
from sidecar.hands.apart import messages
from sidecar.hands.apart.asking import STREAMS
from sidecar.hands.apart.keeper import Keeper, Kept
from sidecar.hands.apart.wire import MAX_REPLY
from sidecar.hands.interface import Target
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.local.upload import LocalUpload

PAGE_BYTES = MAX_REPLY - 64 * 1024  # of a page of a directory; a longer one is cut
MAX_SURVIVORS = 4096  # processes that are told of at once: 40 bytes each
MAX_UPLOADS = 1024  # of one connection at once
ABORT_TIME = 2.0  # seconds to remove what uploads left

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A value, and descriptors to send along, which are then closed if they were `made` for it."""

    value: Any = None
    descriptors: Sequence[int] = ()
    made: bool = False


class Requests:
    """Performs the requests of one connection."""

    def __init__(self, hands: LocalHands, keeper: Keeper) -> None:
        self._hands = hands
        self._keeper = keeper
        self._uploads: dict[int, LocalUpload] = {}
        self._next_upload = 1

    async def perform(self, method: str, arguments: Arguments) -> Answer:
        """Raises `CallError`, or `ProtocolError` for arguments that make no sense."""
        handler = _METHODS.get(method)
        if handler is None:
            raise CallError(Code.UNSUPPORTED, f"this hands knows no {method!r}")
        try:
            return await handler(self, arguments)
        except KeyError as error:
            raise ProtocolError(f"{method} without its {error}") from None

    async def aclose(self) -> None:
        """Abort the uploads that nobody ended."""
        with anyio.move_on_after(ABORT_TIME, shield=True):
            for upload in list(self._uploads.values()):
                await upload.abort()

    # Paths -------------------------------------------------------------------------------

    async def open(self, a: Arguments) -> Answer:
        return Answer(None, [await self._hands.open(a["path"])], made=True)

    async def stat(self, a: Arguments) -> Answer:
        return Answer(messages.stat_row(await self._hands.stat(a["path"], follow=a["follow"])))

    async def list(self, a: Arguments) -> Answer:
        page = await self._hands.list(a["path"], after=a["after"], limit=a["limit"])
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

    async def remove(self, a: Arguments) -> Answer:
        return Answer(await self._hands.remove(a["path"], recursive=a["recursive"]))

    async def chmod(self, a: Arguments) -> Answer:
        await self._hands.chmod(a["path"], a["mode"])
        return Answer()

    async def utimes(self, a: Arguments) -> Answer:
        await self._hands.utimes(a["path"], atime_ns=a["atime_ns"], mtime_ns=a["mtime_ns"])
        return Answer()

    # Uploads -----------------------------------------------------------------------------

    async def replace(self, a: Arguments) -> Answer:
        if len(self._uploads) >= MAX_UPLOADS:
            raise CallError(Code.LIMIT, f"more than {MAX_UPLOADS} uploads at once")
        upload = await self._hands.replace(a["path"], parents=a["parents"])
        number = self._next_upload
        self._next_upload += 1
        self._uploads[number] = upload
        return Answer(number, [upload.fd])

    async def commit(self, a: Arguments) -> Answer:
        upload = self._uploads.get(a["upload"])
        if upload is None:
            raise Invalid("this upload has ended")
        try:
            return Answer(
                messages.stat_row(await upload.commit(mode=a["mode"], mtime_ns=a["mtime_ns"]))
            )
        finally:
            if upload.fd < 0:
                del self._uploads[a["upload"]]

    async def abort(self, a: Arguments) -> Answer:
        upload = self._uploads.pop(a["upload"], None)
        if upload is not None:
            await upload.abort()
        return Answer()

    # Programs ----------------------------------------------------------------------------

    async def spawn(self, a: Arguments) -> Answer:
        return _running(await self._keeper.spawn(messages.program_from(a["program"]), a["key"]))

    async def take(self, a: Arguments) -> Answer:
        return _running(await self._keeper.take(a["key"]))

    async def adopt(self, a: Arguments) -> Answer:
        for key, pid, start_time in a["programs"]:
            self._hands.adopt(key, pid, start_time)
        return Answer()

    async def end_input(self, a: Arguments) -> Answer:
        await self._keeper.end_input(a["key"])
        return Answer()

    async def resize(self, a: Arguments) -> Answer:
        await self._hands.resize(a["key"], rows=a["rows"], cols=a["cols"])
        return Answer()

    async def signal(self, a: Arguments) -> Answer:
        await self._hands.signal(a["key"], a["number"], Target(a["to"]))
        return Answer()

    async def kill(self, a: Arguments) -> Answer:
        await self._hands.kill(a["key"], grace=a["grace"], since=a.get("since"))
        return Answer()

    async def wait(self, a: Arguments) -> Answer:
        return Answer(messages.exit_row(await self._keeper.wait(a["key"])))

    async def known(self, a: Arguments) -> Answer:
        return Answer([messages.known_row(program) for program in await self._hands.known()])

    async def survivors(self, a: Arguments) -> Answer:
        found = await self._hands.survivors()
        return Answer(messages.survivors_rows(found, MAX_SURVIVORS))

    async def forget(self, a: Arguments) -> Answer:
        await self._keeper.forget(a["key"])
        return Answer()

    async def ping(self, a: Arguments) -> Answer:
        return Answer()


_NAMES = (
    *("open", "stat", "list", "mkdir", "rename", "link", "remove", "chmod", "utimes"),
    *("replace", "commit", "abort"),
    *("spawn", "take", "adopt", "end_input", "resize", "signal", "kill", "wait"),
    *("known", "survivors", "forget", "ping"),
)
_METHODS: dict[str, Callable[[Requests, Arguments], Awaitable[Answer]]] = {
    name: getattr(Requests, name) for name in _NAMES
}


def _running(kept: Kept) -> Answer:
    """[pid, start time, names of the streams whose descriptors follow, in that order]."""
    names = [name for name in STREAMS if name in kept.descriptors]
    return Answer([kept.pid, kept.start_time, names], [kept.descriptors[name] for name in names])
