"""Sending one stream: from a source that can be read again by offset, into a lane.

A source may have dropped what was not received yet. Bytes that were never sent are skipped at
once. Where some of them had been sent (the stream was rewound), the receiver may have more of
them than we know, and would ignore a skip: so its answer to the skip is waited for, and the
digest begins anew on both sides or on neither.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

import anyio

from sidecar.bell import Bell
from sidecar.clock import Clock
from sidecar.digest import Digest
from sidecar.errors import CallError, Started
from sidecar.protocol import envelope as wire
from sidecar.protocol.calls import defect
from sidecar.protocol.ids import show
from sidecar.protocol.outbox import Item, Lane, Outbox, Rank
from sidecar.protocol.streams import BLOCKED_AFTER, Piece, SendStream, error_of, reset_with

log = logging.getLogger(__name__)

END_AGAIN = 1.0  # seconds until an end that nobody took is said again; doubles
END_AGAIN_MOST = 30.0
EMPTY = hashlib.sha256().digest()  # of a stream without bytes


class Source(Protocol):
    """Bytes by offset, readable again from whatever was not released."""

    async def read(self, offset: int, size: int) -> Piece:
        """At most `size` bytes at `offset`; waits for them. Cancelling loses nothing."""
        ...

    def release(self, offset: int) -> None:
        """The receiver has everything below `offset`."""
        ...

    async def aclose(self) -> None: ...


class BytesSource:
    """A source in memory, for small things."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, offset: int, size: int) -> Piece:
        data = self._data[offset : offset + size]
        return Piece(offset, data, ended=offset + len(data) >= len(self._data))

    def release(self, offset: int) -> None:
        """Everything stays: it is small."""

    async def aclose(self) -> None:
        """Nothing is held."""


class Sender:
    """Pumps one source into the lane of an outbox until the receiver has all of it."""

    def __init__(
        self, stream: SendStream, source: Source, *, clock: Clock, wake: Callable[[], None]
    ) -> None:
        self.stream = stream
        self.final: int | None = None  # offset of the end, once known
        self.sha256: bytes | None = None
        self.error: CallError | None = None
        self._source = source
        self._clock = clock
        self._wake_channel = wake
        self._bell = Bell()
        self._outbox: Outbox | None = None
        self._lane: Lane | None = None
        self._epoch = 0
        self._end_sent = False
        self._end_pause = END_AGAIN
        self._end_due = math.inf  # nobody said that they have all: then it is said again
        self._end_acked = False
        self._reading: anyio.CancelScope | None = None
        self._digest = Digest()
        self._done = anyio.Event()

    def bind(self, outbox: Outbox | None) -> None:
        """Send to `outbox` from here on; None: wait until somebody asks."""
        self._begin_again()  # first: what the old lane still holds never left
        if self._outbox is not None and self._lane is not None:
            self._outbox.close_lane(self._lane)
        self._outbox = outbox
        self._lane = None if outbox is None else outbox.lane(Rank.BULK, self._bell.ring)

    def resume(self, received: int, start: int, limit: int) -> None:
        """A receiver says what it has; see `SendStream.resume`."""
        if self.stream.resume(received, start, limit):
            self._digest = Digest()
            self.sha256 = None
        self._source.release(received)
        self._begin_again()

    def receive(self, answer: wire.Credit | wire.Rewind | wire.Reset) -> None:
        """What the receiver says of this stream."""
        match answer:
            case wire.Credit():
                self.stream.receive_credit(answer)
                self._end_acked = self._end_acked or answer.ended
                self._source.release(self.stream.received)
                self._bell.ring()
            case wire.Rewind():
                self._rewind(answer.offset)
            case wire.Reset():
                self.stop(error_of(answer))

    def stop(self, error: CallError) -> None:
        """Break off; the receiver knows already, or never will."""
        self.error = self.error or error
        self._begin_again()

    @property
    def is_finished(self) -> bool:
        """The receiver has everything, or nobody wants it any more."""
        return self._end_acked or self.error is not None

    def last_word(self, received: int, start: int) -> wire.End | None:
        """The end once more, for another receiver of a stream that is finished, who has all of it;
        None for one who misses bytes: the source is closed."""
        if self.error is not None or self.sha256 is None or received != self.final:
            return None
        sha256 = EMPTY if start == received else self.sha256
        if start not in (received, self.stream.start):
            return None
        return wire.End(self.stream.id, self.stream.n, received, start, sha256)

    async def finished(self) -> None:
        """Until the receiver has everything, or the stream was broken off."""
        await self._done.wait()

    async def run(self) -> None:
        """Pump until finished. Cancelling releases the source and the lane."""
        try:
            while not self.is_finished:
                epoch = self._epoch
                if not await self._room(epoch):
                    continue
                piece = await self._read(epoch)
                if piece is not None:
                    await self._send(piece, epoch)
        except CallError as error:
            self._fail(error)
        except Exception:  # a source that fails in its own way ends its stream, nothing else
            log.exception("stream %d of call %s failed inside", self.stream.n, show(self.stream.id))
            self._fail(defect(started=Started.YES))
        finally:
            self._done.set()
            if self._outbox is not None and self._lane is not None:
                self._outbox.close_lane(self._lane)
            with anyio.CancelScope(shield=True):
                await self._source.aclose()

    async def _room(self, epoch: int) -> bool:
        """Until the next chunk may be made; False if something changed meanwhile."""
        while epoch == self._epoch and not self.is_finished:
            timeout = math.inf
            if self._lane is not None and self._lane.has_room:
                if self._at_end():
                    timeout = self._end_due - self._clock.now()
                    if not self._end_sent or timeout <= 0:
                        return True
                elif self.stream.allowance:
                    return True
                else:
                    timeout = self._blocked()
            with anyio.move_on_after(timeout):
                await self._bell.wait()
        return False

    def _blocked(self) -> float:
        now = self._clock.now()
        blocked = self.stream.blocked(now)
        if blocked is not None and self._outbox is not None:
            self._outbox.control(blocked, repeat=False)
            self._wake_channel()
        assert self.stream.blocked_at is not None
        return max(0.01, self.stream.blocked_at - now)

    async def _read(self, epoch: int) -> Piece | None:
        assert self._outbox is not None
        if self._at_end():  # found before; saying it again takes no credit
            return Piece(self.stream.next, b"", ended=True)
        size = min(self._outbox.chunk, self.stream.allowance)
        with anyio.CancelScope() as self._reading:
            piece = await self._source.read(self.stream.next, size)
        cancelled = self._reading.cancelled_caught
        self._reading = None
        return None if cancelled or epoch != self._epoch else piece

    async def _send(self, piece: Piece, epoch: int) -> None:
        assert self._lane is not None
        stream = self.stream
        at = stream.next
        if at < piece.offset < stream.high:
            await self._skip_sent(piece.offset, epoch)
            return
        parts: list[bytes] = []
        if piece.offset > at:
            parts.append(wire.encode(stream.skip_to(piece.offset)))
            self._digest = Digest()
        data = piece.data[: stream.allowance]  # a skip may have taken credit from it
        if data:
            parts += (wire.data_head(stream.id, stream.n, piece.offset, len(data)), data)
            fresh = stream.sent(len(data))
            if fresh:
                self._digest.update(data if fresh == len(data) else data[-fresh:])
        if parts:
            self._lane.offer(Item(b"".join(parts), lost=partial(self._lost, at)))
            self._wake_channel()
        await self._digest.ready()
        if piece.ended and len(data) == len(piece.data) and epoch == self._epoch:
            await self._end(epoch)

    async def _skip_sent(self, to: int, epoch: int) -> None:
        """The source has nothing below `to` any more, of which the receiver may have some, or
        more than that: tell it, and go on where it is by its own account."""
        stream = self.stream
        was_told = False
        while epoch == self._epoch and stream.received < to:
            if self._lane is not None and self._lane.has_room:
                skip = wire.encode(stream.skip(to))
                self._lane.offer(Item(skip, lost=self._bell.ring))
                self._wake_channel()
                was_told = True
            with anyio.move_on_after(BLOCKED_AFTER):
                await self._wait_received(to, epoch)
        if epoch != self._epoch:
            return
        if was_told and stream.received == to:
            stream.skip_to(to)
            self._digest = Digest()
        else:
            stream.advance()

    async def _wait_received(self, to: int, epoch: int) -> None:
        while epoch == self._epoch and self.stream.received < to:
            await self._bell.wait()

    async def _end(self, epoch: int) -> None:
        sha256 = await self._digest.digest()
        while self._lane is not None and not self._lane.has_room and epoch == self._epoch:
            await self._bell.wait()
        if epoch != self._epoch or self._lane is None:
            return
        at = self.stream.next
        self._end_pause = min(self._end_pause * 2, END_AGAIN_MOST) if self._end_sent else END_AGAIN
        self._end_due = self._clock.now() + self._end_pause
        self.final, self.sha256, self._end_sent = at, sha256, True
        end = wire.encode(self.stream.end(sha256))
        self._lane.offer(Item(end, lost=partial(self._lost, at)))
        self._wake_channel()

    def _at_end(self) -> bool:
        return self.final is not None and self.stream.next >= self.final

    def _rewind(self, offset: int) -> None:
        """Send again from `offset`; at the end itself, the end."""
        if self.stream.rewind(offset) or (self._end_sent and offset == self.stream.next):
            self._begin_again()

    def _lost(self, offset: int) -> None:
        """What began at `offset` may not have arrived: go back there, or to where the receiver
        is by its own account (chunks need not have the borders that they had before)."""
        self._rewind(max(offset, self.stream.received))

    def _begin_again(self) -> None:
        self._epoch += 1
        self._end_sent = False
        if self._lane is not None:
            for item in self._lane.retract():
                assert item.lost is not None
                item.lost()
        if self._reading is not None:
            self._reading.cancel()
        self._bell.ring()

    def fail(self, error: CallError) -> None:
        """Break off, and tell the receiver why."""
        if not self.is_finished:
            self._fail(error)
            self._begin_again()

    def _fail(self, error: CallError) -> None:
        self.error = error
        self._tell(reset_with(self.stream.id, self.stream.n, error))

    def _tell(self, envelope: wire.Envelope) -> None:
        if self._outbox is not None:
            self._outbox.control(envelope)
            self._wake_channel()
