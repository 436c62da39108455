"""A file of the sandbox to this machine: beside its place, checked, and put there in one step.

What came is kept when it breaks off, and belongs to one version of the file (its etag): the next
try takes up where this one stopped, and never mixes two versions. A file that came in one piece
was checked by the digest of its stream; one that came in several is compared as a whole.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio.to_thread import run_sync as in_thread

from sidecar.client.answered import mode_of, size_of, text_of, time_of
from sidecar.client.localfile import sha256_of
from sidecar.client.localpart import LocalPart, remove_older, token_of
from sidecar.client.uploading import AGAIN, OnProgress, Patience, ignore_progress
from sidecar.errors import CallError, Code, Started, show_path
from sidecar.protocol.streams import CONTENT

if TYPE_CHECKING:
    from sidecar.client.run import Run

Path = str | bytes

CHANGED = {Code.SOURCE_CHANGED, Code.PRECONDITION_FAILED}  # it is not the version it was


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What came; times are nanoseconds."""

    size: int
    etag: str
    mode: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Downloading:
    """One download into `directory`, a descriptor that stays the caller's, as `name`."""

    run: Run
    path: Path
    directory: int
    name: bytes
    on_progress: OnProgress = ignore_progress

    async def carry_out(self) -> Downloaded:
        """Raises `CallError`, and `OSError` for what is wrong here. A file that changes meanwhile
        is begun anew once."""
        try:
            return await self._version()
        except CallError as error:
            if error.code not in CHANGED:
                raise
        try:
            return await self._version()
        except CallError as error:
            if error.code is not Code.PRECONDITION_FAILED:
                raise
            message = f"{show_path(self.path)} changes again and again"
            raise CallError(Code.SOURCE_CHANGED, message, started=Started.YES) from None

    async def _version(self) -> Downloaded:
        """The file as it is now."""
        found = await self.run.call("files.stat", {"path": self.path, "follow": True})
        _check_type(self.path, found["type"])
        size, version = size_of(found["size"]), text_of(found["etag"])
        token = token_of(f"{self.run.id}:{os.fsdecode(self.path)}", version)
        part = await in_thread(LocalPart, self.directory, self.name, token)
        keep = True
        try:
            if part.size > size:
                part.truncate()
            etag = version if size else None  # one of procfs has another each time
            answer = await self._fill(part, etag)
            mode, mtime_ns = mode_of(answer["mode"]), time_of(answer["mtime_ns"])
            await in_thread(part.commit, mode, mtime_ns)
            keep = False
        except CallError as error:
            keep = error.code not in CHANGED
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await in_thread(partial(part.close, keep=keep))
        await in_thread(remove_older, self.directory, self.name, token)
        return Downloaded(part.size, text_of(answer["etag"]), mode, mtime_ns)

    async def _fill(self, part: LocalPart, etag: str | None) -> dict[str, Any]:
        """All bytes into the part; the answer of `files.read`."""
        patience = Patience()
        has_begun_anew = False
        while True:
            began = part.size
            try:
                answer = await self._receive(part, etag)
                if began:
                    await self._compare(part, etag)
            except CallError as error:
                if error.code is Code.DIGEST_MISMATCH and not has_begun_anew:
                    has_begun_anew = True
                    part.truncate()
                elif error.code not in AGAIN:
                    raise
                await patience.wait(part.size, error)
            else:
                return answer

    async def _receive(self, part: LocalPart, etag: str | None) -> dict[str, Any]:
        """What is missing. Without an etag nothing can be, but all of it."""
        if etag is None:
            await in_thread(part.truncate)
        self.on_progress(part.size)
        arguments = {"path": self.path, "offset": part.size}
        arguments |= {} if etag is None else {"etag": etag}
        async with self.run.open("files.read", arguments) as call:
            answer: dict[str, Any] = await call.wait()
            content: bytes | None = answer.get("content")
            if content is not None:
                await in_thread(part.write, [content])
                self.on_progress(part.size)
                return answer
            receiver = call.receiver(CONTENT)
            while chunks := await receiver.receive_all():
                await in_thread(part.write, chunks)
                self.on_progress(part.size)
        return answer

    async def _compare(self, part: LocalPart, etag: str | None) -> None:
        """The part is made of several transmissions: is it the file?"""
        found = await self.run.call("files.stat", {"path": self.path, "follow": True, "hash": True})
        if found["etag"] != etag:
            message = f"{show_path(self.path)} changed while it was read"
            raise CallError(Code.SOURCE_CHANGED, message, started=Started.YES)
        if found["sha256"] != await sha256_of(part.fd, 0, part.size):
            message = f"what came of {show_path(self.path)} is not what is there"
            raise CallError(Code.DIGEST_MISMATCH, message, started=Started.YES)


def _check_type(path: Path, kind: str) -> None:
    if kind == "directory":
        raise CallError(Code.IS_DIRECTORY, f"{show_path(path)} is a directory", path=path)
    if kind != "file":
        raise CallError(Code.UNSUPPORTED, f"{show_path(path)} is a {kind}", path=path)
