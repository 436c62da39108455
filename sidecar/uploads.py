"""Uploads with an id: which call writes one now, and which parts may still lie somewhere.

One call at a time writes an upload. A newer one takes it over: who lost its connection and asks
again need not wait until the sidecar has noticed. Parts that nobody went on with are removed when
their last byte is a day old, through hands, at the start and once an hour; while there are none,
nothing runs.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from sidecar.bell import Bell
from sidecar.clock import Clock
from sidecar.errors import CallError, Code, Started, show_path
from sidecar.hands.interface import FileHands, Path
from sidecar.protocol.limits import TAKEOVER_TIME, UPLOAD_MEMORY, UPLOAD_SWEEP, UPLOAD_TIME
from sidecar.threads import in_thread
from sidecar.timer import sleep_until
from sidecar.uploadnotes import Note, UploadNotes, note_name

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Claim:
    """Of the call that writes an upload."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)
    is_taken_over: bool = False


class Uploads:
    """All uploads of a sidecar."""

    def __init__(self, hands: FileHands, clock: Clock, notes: UploadNotes) -> None:
        self._hands = hands
        self._clock = clock
        self._notes = notes
        self._claims: dict[str, _Claim] = {}
        self._begun = Bell()

    @asynccontextmanager
    async def claim(self, path: Path, upload: bytes) -> AsyncIterator[None]:
        """Only this call has the upload in the block; an older one that has it ends with
        `conflict`, and so does this one if a newer comes."""
        name = note_name(path, upload)
        with anyio.move_on_after(TAKEOVER_TIME):
            while (older := self._claims.get(name)) is not None:
                older.is_taken_over = True
                older.scope.cancel()
                await older.ended.wait()
        if name in self._claims:
            raise CallError(
                Code.CONFLICT, f"another call writes {show_path(path)} and does not let go of it"
            )
        claim = self._claims[name] = _Claim()
        try:
            with claim.scope:
                yield
        finally:
            del self._claims[name]
            claim.ended.set()
        if claim.scope.cancelled_caught:
            raise CallError(
                Code.CONFLICT,
                f"a newer call has taken over the upload of {show_path(path)}",
                started=Started.YES,
            )

    async def begin(self, path: Path, upload: bytes) -> bool:
        """Note that there may be a part from now on; whether that was not known before. Raises
        `LimitExceeded`."""
        note = Note(path, upload, self._clock.wall())
        is_new = await in_thread(self._notes.put, note)
        self._begun.ring()
        return is_new

    async def end(self, path: Path, upload: bytes) -> None:
        """There is no part any more."""
        await in_thread(self._notes.drop, note_name(path, upload))

    async def run(self) -> None:
        """Sweep, until cancelled."""
        while True:
            await self.sweep()
            while not self._notes:
                await self._begun.wait()
            await sleep_until(self._clock, self._clock.now() + UPLOAD_SWEEP)

    async def sweep(self) -> None:
        """Remove the parts that are a day old, and forget those that are gone."""
        for note in self._notes.all():
            if note.name in self._claims:
                continue
            try:
                async with self.claim(note.path, note.upload):  # whoever wants it now is newer
                    await self._sweep(note)
            except CallError as error:
                if error.code is Code.HANDS_AWAY:
                    return  # until the next time

    async def _sweep(self, note: Note) -> None:
        try:
            is_gone = await self._hands.discard(note.path, note.upload, older_than=UPLOAD_TIME)
        except CallError as error:
            if error.code is Code.HANDS_AWAY:
                raise
            is_gone = self._clock.wall() - note.wall > UPLOAD_MEMORY
            log.info("the part of an upload cannot be looked at: %s", error.code)
        if is_gone:
            await self.end(note.path, note.upload)
