"""What changes below a directory of the sandbox, as it happens.

async with run.files.watch("src", exclude=["*.pyc"]) as watch:
    async for batch in watch:
        if batch.lost:
            ...  # look at the tree: changes may have been missed
        for change in batch.changes:
            print(change.kind, change.path)

Once the block is entered, nothing is missed without being told. A connection that is lost delays
batches; a sidecar or hands that is restarted saw nothing meanwhile, so the watch is opened anew,
and the first batch says `lost="restarted"`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import anyio

from sidecar.client.answered import path_of, text_of
from sidecar.client.pending import PendingCall
from sidecar.errors import CallError, Code, ProtocolError
from sidecar.protocol.envelope import loads_sequence
from sidecar.protocol.streams import CHANGES
from sidecar.streaming import Receiver

if TYPE_CHECKING:
    from sidecar.client.run import Run

Path = str | bytes
Kind = Literal["added", "modified", "removed"]

BATCH_BYTES = 1024 * 1024  # of one batch; a sidecar sends 64 KiB at most
RETRY_FIRST = 0.25  # seconds until a watch that cannot be opened just now is tried again; doubles
RETRY_MOST = 15.0

# The watch was cut short, and nothing speaks against another one.
_CUT_SHORT = {
    *(Code.OUTCOME_UNKNOWN, Code.ANSWER_GONE, Code.UNKNOWN_CALL, Code.INTERRUPTED),
    *(Code.CANCELLED, Code.SOURCE_CHANGED, Code.HANDS_AWAY, Code.NOT_ACCEPTED, Code.ENDING),
}
_NOT_NOW = {Code.HANDS_AWAY, Code.NOT_ACCEPTED, Code.ENDING}


@dataclass(frozen=True, slots=True)
class Change:
    """One path, relative to the watched directory (bytes where it is not UTF-8), since the batch
    before. `type` is that of `FileEntry`, or `unknown` for what went before anybody looked."""

    kind: Kind
    path: Path
    type: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes that came together, each path once; or, with `lost`, that some may be missing:
    below `paths`, or anywhere if there are none. Only a look at the tree tells what there is, and
    from then on changes are told again. Why: `overflow`, `slow reader`, `gone`, `replaced`,
    `unreadable` (see `FilesWatch`), `restarted`."""

    changes: Sequence[Change] = ()
    lost: str | None = None
    paths: Sequence[Path] = ()


class Watch:
    """Made by `Files.watch`. One task iterates; leaving the block ends the watch."""

    def __init__(self, run: Run, arguments: dict[str, Any]) -> None:
        self._run = run
        self._arguments = arguments
        self._stack = AsyncExitStack()
        self._call: PendingCall | None = None
        self._receiver: Receiver | None = None
        self._buffer = b""
        self._batches: deque[Batch] = deque()

    async def __aenter__(self) -> Self:
        """Returns when the directory is watched. Raises `CallError`: `not_found`,
        `not_directory`, `limit` where the kernel watches no more, ..."""
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def __aiter__(self) -> AsyncIterator[Batch]:
        while True:
            yield await self.receive()

    async def receive(self) -> Batch:
        """The next batch. Cancelling loses nothing. Raises `CallError` when the watch has ended
        for good."""
        while not self._batches:
            try:
                await self._receive()
            except CallError as error:
                if error.code not in _CUT_SHORT:
                    raise
                await self._open_again()
                self._batches.append(Batch(lost="restarted"))
        return self._batches.popleft()

    async def _open(self) -> None:
        call = await self._stack.enter_async_context(self._run.open("files.watch", self._arguments))
        self._call, self._receiver, self._buffer = call, call.receiver(CHANGES), b""
        while not self._batches:
            await self._receive()
        self._batches.popleft()  # the first says that it has begun

    async def _open_again(self) -> None:
        """For as long as it is a matter of time."""
        pause = RETRY_FIRST
        while True:
            await self._stack.aclose()
            try:
                await self._open()
                return
            except CallError as error:
                if error.code not in _NOT_NOW:
                    raise
            await anyio.sleep(pause)
            pause = min(pause * 2, RETRY_MOST)

    async def _receive(self) -> None:
        assert self._call is not None and self._receiver is not None
        chunk = await self._receiver.receive()
        if not chunk:
            await self._call.wait()  # it says why
            raise CallError(Code.CANCELLED, "the watch was ended")
        try:
            values, end = loads_sequence(self._buffer + chunk)
            self._batches.extend(map(_batch_of, values))
        except (ProtocolError, TypeError, ValueError, KeyError) as error:
            raise CallError(Code.INTERNAL, f"the sidecar sent no batch: {error}") from None
        self._buffer = (self._buffer + chunk)[end:]
        if len(self._buffer) > BATCH_BYTES:
            raise CallError(Code.INTERNAL, f"a batch of more than {BATCH_BYTES} bytes")


def _batch_of(value: Any) -> Batch:
    if "lost" in value:
        return Batch(lost=str(value["lost"]), paths=tuple(map(path_of, value.get("paths", ()))))
    return Batch(tuple(_change_of(*row) for row in value["changes"]))


def _change_of(kind: Any, path: Any, type: Any) -> Change:
    if kind not in get_args(Kind):
        raise ValueError(f"a change of kind {kind!r}")
    return Change(kind, path_of(path), text_of(type))
