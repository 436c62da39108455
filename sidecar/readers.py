"""Event readers: a cursor that sends records to one attachment.

Live is a replay that has caught up: there is one code path. What the hub did not acknowledge
before its connection was lost is read from the journal again, and records that the journal no
longer has are named by a `gap`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import anyio

from sidecar.bell import Bell
from sidecar.journal import Reader
from sidecar.protocol import envelope as wire
from sidecar.protocol.journal import Gap, GapReason
from sidecar.protocol.outbox import BATCH, Item, Outbox, Rank

RECORDS = 512  # records that may share one hub message


class EventReader:
    """Follows the journal for one attachment."""

    def __init__(self, reader: Reader, outbox: Outbox, *, wake: Callable[[], None]) -> None:
        self._reader = reader
        self._wake = wake
        self._room = anyio.Event()
        self._moved = Bell()
        self._waiting = anyio.CancelScope()
        self._lane = outbox.lane(Rank.EVENTS, self._on_room)

    async def run(self) -> None:
        """Until the attachment ends or the task is cancelled; closes the reader."""
        try:
            while not self._lane.is_closed:
                await self._step()
        finally:
            self.close()

    def close(self) -> None:
        """Free the reader's place at once; `run` ends when it notices, once the lane is closed.
        A second call is harmless."""
        self._reader.close()
        self._moved.ring()

    async def caught_up(self, seq: int) -> None:
        """Until the events up to `seq` were handed to the outbox, or the attachment ended."""
        while self._reader.cursor < seq and not self._lane.is_closed:
            await self._moved.wait()

    async def _step(self) -> None:
        if not self._lane.has_room:
            await self._room.wait()
            self._room = anyio.Event()
            return
        item = await self._next()
        if self._lane.is_closed:
            return
        if item is not None:
            self._lane.offer(item)
            self._wake()
            self._moved.ring()
            return
        with anyio.CancelScope() as self._waiting:
            await self._reader.wait()

    def ack(self, seq: int) -> None:
        """Everything up to `seq` was processed. Raises `Invalid` for what was never sent."""
        self._reader.ack(seq)

    async def _next(self) -> Item | None:
        batch = await self._reader.read(max_bytes=BATCH, max_records=RECORDS)
        parts = [record for _, record in batch.records]
        if batch.gap is not None:
            parts.insert(0, self._encode(batch.gap))
        if not parts:
            return None
        lost = partial(self._rewind, self._reader.start, self._reader.series, batch.gap)
        return Item(b"".join(parts), lost=lost)

    def _encode(self, gap: Gap) -> bytes:
        is_between = gap.why is GapReason.NEW_SERIES
        return wire.encode(
            wire.Gap(
                self._reader.series,
                gap.from_seq,
                str(gap.why),
                gap.to_seq,
                gap.bytes,
                (self._reader.cursor or None) if is_between else None,
            )
        )

    def _rewind(self, start: int, series: bytes, gap: Gap | None) -> None:
        """What began behind `start` was lost, and with it everything queued after it."""
        if series == self._reader.series:
            start = min(self._reader.cursor, start)
        self._reader.rewind(start, series=series, gap=gap)
        self._lane.retract()
        self._room.set()
        self._waiting.cancel()

    def _on_room(self) -> None:
        self._room.set()
        if self._lane.is_closed:
            self._waiting.cancel()
