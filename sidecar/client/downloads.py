"""Files on their way from the sandbox: one as it comes, or many at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sidecar.client.answered import mode_of, path_of, senseless, size_of, text_of, time_of
from sidecar.client.pending import PendingCall
from sidecar.errors import CallError, LimitExceeded, ProtocolError
from sidecar.protocol.envelope import error_from
from sidecar.protocol.limits import ARGUMENTS_BYTES
from sidecar.protocol.streams import CONTENT
from sidecar.streaming import Receiver

if TYPE_CHECKING:
    from sidecar.client.run import Run

Path = str | bytes
MOST_PATHS = 1000  # of one call
PATH_BYTES = ARGUMENTS_BYTES // 2  # of all paths of one call, beside what CBOR adds to each


class Download:
    """A file on its way: `size` and `mode` at once, the bytes as they come."""

    def __init__(self, call: PendingCall, answer: dict[str, Any]) -> None:
        self.size = size_of(answer["length"])  # of the range that comes
        self.file_size = size_of(answer["size"])
        self.mode = mode_of(answer["mode"])
        self.mtime_ns = time_of(answer["mtime_ns"])
        self.etag: str = answer["etag"]
        self._call = call
        self._content: bytes | None = answer.get("content")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._content is not None:
            if self._content:
                yield self._content
            return
        async for chunk in self._call.receiver(CONTENT):
            yield chunk


@dataclass(frozen=True, slots=True)
class ReadFile:
    """One of many files: its bytes, or why there are none. Times are nanoseconds."""

    path: Path
    content: bytes = b""
    etag: str = ""
    mode: int = 0
    mtime_ns: int = 0
    error: CallError | None = None

    def check(self) -> ReadFile:
        """This file. Raises its error."""
        if self.error is not None:
            raise self.error
        return self


async def read_many(
    run: Run, paths: Sequence[Path], *, allow_change: bool, most: int | None = None
) -> AsyncIterator[ReadFile]:
    """The files in the order of `paths`, each as soon as all of it has come. Raises `limit` if
    those of one call have more than `most` bytes, and `internal` for rows that make no sense."""
    for some in batches(paths):
        arguments = {"paths": some, "allow_change": allow_change}
        async with run.open("files.read", arguments) as call:
            answer = await call.wait()
            if len(answer["files"]) != len(some):
                raise senseless("number of rows")
            size = sum(size_of(row.get("length", 0)) for row in answer["files"])
            if most is not None and size > most:
                raise LimitExceeded("bytes of files", size=size, limit=most)
            is_whole = all("content" in row or "error" in row for row in answer["files"])
            cutter = None if is_whole else _Cutter(call.receiver(CONTENT))
            for row in answer["files"]:
                path = path_of(row["path"])
                if "error" in row:
                    yield ReadFile(path, error=error_from(row["error"]))
                    continue
                content = row["content"] if cutter is None else await cutter.take(row["length"])
                mode, mtime_ns = mode_of(row["mode"]), time_of(row["mtime_ns"])
                yield ReadFile(path, content, text_of(row["etag"]), mode, mtime_ns)
            if cutter is not None:
                await cutter.finish()


def batches(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """As many in one call as it may have."""
    some: list[Path] = []
    size = 0
    for path in paths:
        own = len(path.encode() if isinstance(path, str) else path)
        if some and (len(some) == MOST_PATHS or size + own > PATH_BYTES):
            yield some
            some, size = [], 0
        some.append(path)
        size += own
    if some:
        yield some


class _Cutter:
    """Cuts a stream into pieces of known length."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._rest = memoryview(b"")

    async def take(self, length: int) -> bytes:
        parts: list[memoryview] = []
        while length:
            if not self._rest:
                self._rest = memoryview(await self._receiver.receive())
                if not self._rest:
                    raise ProtocolError("a stream of files ended before the last of them")
            part = self._rest[:length]
            self._rest = self._rest[len(part) :]
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    async def finish(self) -> None:
        """The end of the stream: its digest was right."""
        if self._rest or await self._receiver.receive():
            raise ProtocolError("a stream of files went on after the last of them")
