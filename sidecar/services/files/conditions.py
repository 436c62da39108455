"""On which file a write may come to be: compare-and-swap on SHA-256.

The file is looked at before the first byte is taken, so that who comes too late learns it at once,
and hands compares its etag again immediately before the rename. If that is another one by then, the
file is looked at anew: it may have been touched only, or be one that the write may replace, too.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sidecar.context import CallContext
from sidecar.errors import CallError, Code, Started, show_path
from sidecar.hands.fileinterface import ABSENT, PRESENT, FileStat, Path, Upload, stat_of
from sidecar.services.files.filling import hash_file

ANY = "*"
LOOKS = 8  # at a file that changes each time; then `source_changed`

Condition = bytes | str | None  # a SHA-256, ANY, or none


@dataclass(frozen=True, slots=True)
class _Found:
    """What is there. Its digest, if that was asked for."""

    stat: FileStat
    sha256: bytes | None


class Conditions:
    """`if_match` and `if_none_match` of one call."""

    def __init__(
        self, ctx: CallContext, path: Path, if_match: Condition, if_none_match: Condition
    ) -> None:
        self._ctx = ctx
        self._path = path
        self._if_match = if_match
        self._if_none_match = if_none_match
        self._expect: str | None = None
        self._identity: Hashable = None  # of the file that was found

    async def look(self, *, started: Started = Started.NO) -> None:
        """Raises `precondition_failed` unless they hold of what is there now."""
        if self._if_match is None and self._if_none_match is None:
            return
        found = await self._find()
        sha256 = None if found is None else found.sha256
        if self._if_match == ANY and found is None:
            raise self._failed("if_match", "is not there", started)
        if isinstance(self._if_match, bytes) and sha256 != self._if_match:
            raise self._failed("if_match", "is not the file that was expected", started, sha256)
        if self._if_none_match == ANY and found is not None:
            raise self._failed("if_none_match", "is there", started, sha256)
        if sha256 is not None and sha256 == self._if_none_match:
            raise self._failed("if_none_match", "is that file", started, sha256)
        self._expect = ABSENT if found is None else found.stat.etag
        self._identity = None if found is None else (found.stat.device, found.stat.inode)
        if not self._needs_digest and found is not None:
            self._expect = PRESENT

    async def commit(self, upload: Upload, *, mode: int | None, mtime_ns: int | None) -> FileStat:
        """Of an upload to this path, while they hold. Raises `source_changed` for a file that
        changes faster than it can be looked at."""
        for _ in range(LOOKS):
            try:
                async with self._turn():
                    return await upload.commit(mode=mode, mtime_ns=mtime_ns, expect=self._expect)
            except CallError as error:
                if error.code is not Code.PRECONDITION_FAILED:
                    raise
            await self.look(started=Started.YES)
        raise CallError(
            Code.SOURCE_CHANGED,
            f"{show_path(self._path)} changed {LOOKS} times while it was to be replaced",
            started=Started.YES,
            path=self._path,
        )

    @property
    def _needs_digest(self) -> bool:
        return isinstance(self._if_match, bytes) or isinstance(self._if_none_match, bytes)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Nobody of us appends meanwhile to the file that the conditions are about."""
        if self._identity is None:
            yield
            return
        async with self._ctx.means.turns.hold(self._identity):
            yield

    async def _find(self) -> _Found | None:
        try:
            if not self._needs_digest:
                return _Found(await self._ctx.hands.stat(self._path, follow=True), None)
            for _ in range(LOOKS):
                if (found := await self._hashed()) is not None:
                    return found
        except CallError as error:
            if error.code is Code.NOT_FOUND:
                return None
            raise
        raise CallError(
            Code.SOURCE_CHANGED,
            f"{show_path(self._path)} changes while it is read",
            path=self._path,
        )

    async def _hashed(self) -> _Found | None:
        """None for a file that changed meanwhile."""
        fd = await self._ctx.hands.open(self._path)
        try:
            before = stat_of(os.fstat(fd))
            _, sha256 = await hash_file(fd, self._path)
            after = stat_of(os.fstat(fd))
        finally:
            os.close(fd)
        return _Found(after, sha256) if before.etag == after.etag else None

    def _failed(
        self, reason: str, what: str, started: Started, sha256: bytes | None = None
    ) -> CallError:
        return CallError(
            Code.PRECONDITION_FAILED,
            f"{show_path(self._path)} {what}",
            started=started,
            path=self._path,
            reason=reason,
            sha256=sha256,
        )
