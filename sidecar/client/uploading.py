"""A file of this machine into the sandbox: in one go, or with an upload id, going on by itself.

With an id the bytes are kept beside the target until all are there (`FilesWrite`). Whoever comes
again with the same id, in this call, after a restart of either side or a day later, sends only what
is missing. What lies there is not believed: as soon as a byte of it was sent by somebody else than
this call, the sidecar is told the SHA-256 of the whole, and compares before it renames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from sidecar.client.localfile import LocalFile
from sidecar.errors import CallError, Code
from sidecar.protocol.streams import CONTENT, Piece
from sidecar.streaming import Source

if TYPE_CHECKING:
    from sidecar.client.run import Run

Path = str | bytes
OnProgress = Callable[[int], None]

TRIES = 6  # in a row without a byte of progress; a sidecar that restarts is back after one or two
FIRST_PAUSE = 0.25  # seconds before the second try, then twice as long each time
MOST_PAUSE = 4.0

AGAIN = {
    Code.INTERRUPTED,
    Code.TIMEOUT,
    Code.NOT_ACCEPTED,
    Code.HANDS_AWAY,
    Code.OUTCOME_UNKNOWN,
    Code.ANSWER_GONE,
}


def ignore_progress(done: int) -> None:
    """For whoever does not want to know how far it is."""


class Patience:
    """How often something is tried again: without end while there is progress."""

    def __init__(self) -> None:
        self._tries = 0
        self._furthest = 0

    async def wait(self, reached: int, error: CallError) -> None:
        """Before the next try; raises `error` if there have been enough."""
        if reached > self._furthest:
            self._furthest, self._tries = reached, 0
        self._tries += 1
        if self._tries >= TRIES:
            raise error
        await anyio.sleep(min(FIRST_PAUSE * 2 ** (self._tries - 1), MOST_PAUSE))


class Counted:
    """A source that tells how much of it has arrived."""

    def __init__(self, source: Source, on_progress: OnProgress, base: int = 0) -> None:
        self._source = source
        self._on_progress = on_progress
        self._base = base
        self._furthest = 0

    async def read(self, offset: int, size: int) -> Piece:
        return await self._source.read(offset, size)

    def release(self, offset: int) -> None:
        if offset > self._furthest:  # another sidecar asks from 0, and is told better at once
            self._furthest = offset
            self._on_progress(self._base + offset)
        self._source.release(offset)

    async def aclose(self) -> None:
        await self._source.aclose()


@dataclass
class Uploading:
    """One upload; `options` are further arguments of `files.write`."""

    run: Run
    path: Path
    file: LocalFile
    upload: bytes | None
    options: dict[str, Any] = field(default_factory=dict)
    on_progress: OnProgress = ignore_progress

    async def carry_out(self) -> dict[str, Any]:
        """The answer of `files.write`. Raises `CallError`: `source_changed` if the file is not
        the one that it was, any more."""
        if self.upload is None:
            return await self._send({}, 0)
        patience = Patience()
        has_begun_anew = False
        offset = await self._arrived()
        while True:
            try:
                return await self._send_rest(offset)
            except CallError as error:
                if error.code is Code.DIGEST_MISMATCH and not has_begun_anew:
                    has_begun_anew = True  # what lay there is of another file
                    await self._discard()
                elif error.code not in AGAIN and not _lies_less(error):
                    raise
                await patience.wait(offset, error)
                if error.code in (Code.OUTCOME_UNKNOWN, Code.ANSWER_GONE) and (
                    done := await self._is_done()
                ):
                    return done
            offset = await self._arrived()

    async def _send_rest(self, offset: int) -> dict[str, Any]:
        more: dict[str, Any] = {"upload": self.upload, "offset": offset}
        if offset:
            more["sha256"] = await self.file.sha256()
        return await self._send(more, offset)

    async def _send(self, more: dict[str, Any], offset: int) -> dict[str, Any]:
        arguments = {"path": self.path, "size": self.file.size, **self.options, **more}
        source = Counted(self.file.source(offset), self.on_progress, offset)
        async with self.run.open("files.write", arguments) as call:
            self.run.send(call, CONTENT, source)
            answer: dict[str, Any] = await call.wait()
        return answer

    async def _arrived(self) -> int:
        """How many bytes of it lie there. More than there are of the file are not of it."""
        arguments = {"path": self.path, "upload": self.upload}
        try:
            size: int = (await self.run.call("files.upload", arguments))["size"]
        except CallError as error:
            if error.code is not Code.NOT_FOUND:  # the directory may be still to be made
                raise
            return 0
        if size <= self.file.size:
            return size
        await self._discard()
        return 0

    async def _discard(self) -> None:
        await self.run.call(
            "files.upload", {"path": self.path, "upload": self.upload, "discard": True}
        )

    async def _is_done(self) -> dict[str, Any] | None:
        """Whether the target is what was sent, after a sidecar was killed at the last moment."""
        try:
            found = await self.run.call("files.stat", {"path": self.path, "hash": True})
        except CallError:
            return None
        sha256 = await self.file.sha256()
        if found.get("sha256") != sha256:
            return None
        return {
            "size": self.file.size,
            "sha256": sha256,
            "etag": found["etag"],
            "mode": found["mode"],
        }


def upload_id(path: Path, file: LocalFile) -> bytes:
    """The id under which this version of this file goes to `path`: whoever copies it again goes
    on, and needs to remember nothing."""
    target = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
    return hashlib.sha256(file.identity.encode() + b"\0" + target).digest()[:16]


def _lies_less(error: CallError) -> bool:
    """Whether the part turned out to be shorter than it was said to be."""
    return error.code is Code.PRECONDITION_FAILED and "size" in error.details
