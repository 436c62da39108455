"""What core may ask of a hands in another process: each method of `Hands`, by name.

Twin of `remote`, which asks. One `Requests` belongs to one connection: the uploads that it began
end with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sidecar.errors import CallError, Code, ProtocolError
from sidecar.hands.apart import messages
from sidecar.hands.apart.asking import STREAMS
from sidecar.hands.apart.filerequests import Answer, Arguments, FileRequests
from sidecar.hands.apart.keeper import Keeper, Kept
from sidecar.hands.interface import Target
from sidecar.hands.local.hands import LocalHands

MAX_SURVIVORS = 4096  # processes that are told of at once: 40 bytes each


class Requests(FileRequests):
    """Performs the requests of one connection."""

    def __init__(self, hands: LocalHands, keeper: Keeper) -> None:
        super().__init__(hands)
        self._keeper = keeper

    async def perform(self, method: str, arguments: Arguments) -> Answer:
        """Raises `CallError`, or `ProtocolError` for arguments that make no sense."""
        handler = _METHODS.get(method)
        if handler is None:
            raise CallError(Code.UNSUPPORTED, f"this hands knows no {method!r}")
        try:
            return await handler(self, arguments)
        except KeyError as error:
            raise ProtocolError(f"{method} without its {error}") from None

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
    *FileRequests.NAMES,
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
