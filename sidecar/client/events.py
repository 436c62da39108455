"""Events of a run, from a cursor that is the caller's to keep.

Each iterator has an attachment of its own, so that one who reads slowly holds up nobody, not
even his own calls. It yields every event once and in order, through any number of drops; what
cannot be had any more is yielded as a `Gap`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio

from sidecar.bell import Bell
from sidecar.client.attachment import RemoteAttachment
from sidecar.clock import Clock
from sidecar.errors import CallError
from sidecar.protocol import envelope as wire
from sidecar.protocol.attach import VERSION
from sidecar.protocol.names import Subject
from sidecar.protocol.outbox import Outboxes

ACK_EVERY = 64  # events that a durable reader processes between two acks
ACK_AFTER = 0.1  # seconds of quiet until the last ones are acked


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the events of a run. Keep it, and go on from it later."""

    series: bytes | None = None
    seq: int = 0

    def __str__(self) -> str:
        return f"{self.series.hex() if self.series else '-'}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """From `str(cursor)`; a bare number is a place in whatever series there is."""
        series, _, seq = text.rpartition(":")
        return cls(bytes.fromhex(series) if series not in ("", "-") else None, int(seq))


@dataclass(frozen=True, slots=True)
class Event:
    """A numbered record of what happened. `time` is seconds since the epoch."""

    cursor: Cursor
    time: float
    name: str
    call: bytes | None
    data: Any

    @property
    def seq(self) -> int:
        return self.cursor.seq


@dataclass(frozen=True, slots=True)
class Gap:
    """Events `first` to `last`, both included, cannot be had any more, and why."""

    cursor: Cursor
    first: int
    last: int | None
    why: str
    bytes: int | None


@dataclass(slots=True)
class _Batch:
    """The events of one hub message; its window opens when all were taken."""

    size: int
    left: int


class EventStream(RemoteAttachment):
    """`async for event in run.events(after=cursor)`. Close it, or leave its `async with`."""

    def __init__(
        self,
        subject: Subject,
        controller: str,
        group: str,
        outboxes: Outboxes,
        *,
        clock: Clock,
        wake: Callable[[], None],
        window: Callable[[], tuple[int, int]],
        after: Cursor,
        reader: str | None,
        on_close: Callable[[EventStream], None],
    ) -> None:
        super().__init__(
            subject, controller, group, outboxes, clock=clock, wake=wake, window=window
        )
        self.cursor = after  # what was yielded last
        self._received = after
        self._reader = reader
        self._queue: deque[tuple[Event | Gap, _Batch]] = deque()
        self._bell = Bell()
        self._acked = after.seq
        self._on_close = on_close
        self._has_closed = False

    def attach_request(self, nonce: bytes, window: tuple[int, int]) -> wire.Attach:
        return wire.Attach(
            self._controller,
            nonce,
            [VERSION],
            list(window),
            series=self._received.series,
            after=self._received.seq,
            reader=self._reader,
        )

    def on_attached(self, answer: wire.Attached) -> None:
        if self._received.series is None:
            self._received = Cursor(answer.series, self._received.seq)
        self._acked = 0  # said again: a sidecar that was killed may not have noted it
        self._ack_if_processed()
        for _, batch in self._queue:  # they wait in a window that is gone
            batch.size = 0

    def receive_events(self, events: list[wire.Event | wire.Gap], size: int) -> None:
        fresh = [item for item in map(self._take, events) if item is not None]
        if not fresh:
            return
        batch = _Batch(size, len(fresh))
        self.hold(size)
        self._queue.extend((item, batch) for item in fresh)
        self._bell.ring()

    def _take(self, item: wire.Event | wire.Gap) -> Event | Gap | None:
        """The event if it is the next one. A repeated one is dropped; a hole means that
        something was lost on the way, and mends itself by attaching anew."""
        if isinstance(item, wire.Gap):
            return self._take_gap(item)
        if item.seq <= self._received.seq:
            return None
        if item.seq != self._received.seq + 1:
            if not self.is_attaching:
                self.begin()
            return None
        self._received = Cursor(self._received.series, item.seq)
        return Event(self._received, item.time_ms / 1000, item.name, item.call, item.data)

    def _take_gap(self, gap: wire.Gap) -> Gap | None:
        if gap.series != self._received.series:
            self._received = Cursor(gap.series, min(gap.after or 0, self._received.seq))
            self._acked = min(self._acked, self._received.seq)
        elif gap.last is None or gap.last <= self._received.seq:
            return None
        else:
            self._received = Cursor(gap.series, gap.last)
        return Gap(self._received, gap.first, gap.last, gap.why, gap.bytes)

    async def receive(self) -> Event | Gap:
        """The next event; waits for it. Cancelling loses nothing. Raises `CallError` if the
        sidecar refuses the cursor."""
        self._ack_if_due()
        while not self._queue:
            if self.refused is not None:
                raise self.refused
            if self._has_closed:
                raise anyio.ClosedResourceError
            with anyio.move_on_after(ACK_AFTER if self._reader else None):
                await self._bell.wait()
            if not self._queue:
                self._ack_if_processed()
        item, batch = self._queue.popleft()
        batch.left -= 1
        if not batch.left and batch.size:
            self.release(batch.size)
        self.cursor = item.cursor
        return item

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event | Gap:
        try:
            return await self.receive()
        except anyio.ClosedResourceError:
            raise StopAsyncIteration from None

    def _ack_if_due(self) -> None:
        """What was yielded before is processed once the next one is asked for."""
        if self.cursor.seq - self._acked >= ACK_EVERY:
            self._ack_if_processed()

    def _ack_if_processed(self) -> None:
        """A number that was yielded of an earlier series means nothing in this one."""
        if self._reader is None or self.answer is None:
            return
        if self.cursor.series == self.answer.series and self.cursor.seq > self._acked:
            self._acked = self.cursor.seq
            self._say(wire.EventAck(self._acked))

    def _fail(self, error: CallError) -> None:
        super()._fail(error)
        self._bell.ring()

    async def __aenter__(self) -> EventStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Detach. A second call is harmless."""
        if self._has_closed:
            return
        self._ack_if_processed()
        self._has_closed = True
        self._bell.ring()
        self._on_close(self)
