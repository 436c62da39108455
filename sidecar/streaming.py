"""Streams in motion: a `Sender` pumps a source into an outbox, a `Receiver` hands bytes over.

`protocol.streams` decides, these two do; platform and sidecar use the same pair. A sender is
bound to the outbox of whoever asked last and outlives connections and attachments: unbound,
it waits. What has to be sent again is read from the source again.

Digests are computed beside the bytes, in a thread (`sidecar.digest`).
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Protocol

import anyio

from sidecar.bell import Bell
from sidecar.clock import Clock
from sidecar.digest import Digest
from sidecar.errors import CallError, Code, Started, default_retry
from sidecar.protocol import envelope as wire
from sidecar.protocol.calls import defect
from sidecar.protocol.ids import show
from sidecar.protocol.outbox import Item, Lane, Outbox, Rank
from sidecar.protocol.streams import Piece, ReceiveStream, SendStream, reset_for

log = logging.getLogger(__name__)

JOINED = 4 * 1024  # bytes; received chunks that wait are joined up to this size

SendEnvelope = Callable[[wire.Envelope], None]


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
                self.stop(_error_of(answer))

    def stop(self, error: CallError) -> None:
        """Break off; the receiver knows already, or never will."""
        self.error = self.error or error
        self._begin_again()

    @property
    def is_finished(self) -> bool:
        """The receiver has everything, or nobody wants it any more."""
        return self._end_acked or self.error is not None

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
                    if not self._end_sent:
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
        size = min(self._outbox.flow.chunk, self.stream.allowance)
        with anyio.CancelScope() as self._reading:
            piece = await self._source.read(self.stream.next, size)
        cancelled = self._reading.cancelled_caught
        self._reading = None
        return None if cancelled or epoch != self._epoch else piece

    async def _send(self, piece: Piece, epoch: int) -> None:
        assert self._lane is not None
        stream = self.stream
        at = stream.next
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

    async def _end(self, epoch: int) -> None:
        sha256 = await self._digest.digest()
        while self._lane is not None and not self._lane.has_room and epoch == self._epoch:
            await self._bell.wait()
        if epoch != self._epoch or self._lane is None:
            return
        at = self.stream.next
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

    def _fail(self, error: CallError) -> None:
        self.error = error
        self._tell(reset_for(self.stream.id, self.stream.n, error.code, error.message))

    def _tell(self, envelope: wire.Envelope) -> None:
        if self._outbox is not None:
            self._outbox.control(envelope)
            self._wake_channel()


class Receiver:
    """Collects one incoming stream and hands its bytes over in order."""

    def __init__(self, stream: ReceiveStream, *, send: SendEnvelope, clock: Clock) -> None:
        self.stream = stream
        self.error: CallError | None = None
        self.on_progress: Callable[[], None] | None = None
        self._send = send
        self._clock = clock
        self._chunks: deque[bytes | None] = deque()  # None: a skip, the digest begins anew
        self._digest = Digest()
        self._bell = Bell()

    def feed(self, envelope: wire.Data | wire.Skip | wire.End | wire.Blocked | wire.Reset) -> None:
        """What the sender says. A broken rule breaks off this stream, and nothing else."""
        try:
            self._feed(envelope)
        except CallError as error:
            self.reset(error)
        self._answer()
        self._ring()

    def _ring(self) -> None:
        self._bell.ring()
        if self.on_progress is not None:
            self.on_progress()

    def _feed(self, envelope: wire.Data | wire.Skip | wire.End | wire.Blocked | wire.Reset) -> None:
        if self.error is not None:
            return
        now = self._clock.now()
        match envelope:
            case wire.Data():
                fresh = self.stream.receive_data(envelope.offset, envelope.data, now=now)
                if fresh:
                    self._queue(fresh)
            case wire.Skip():
                if self.stream.receive_skip(envelope.offset, envelope.to, now=now):
                    self._chunks.append(None)
            case wire.End():
                self.stream.receive_end(envelope, now=now)
            case wire.Blocked():
                self.stream.restate()
            case wire.Reset() if self.stream.ended is None:
                self.error = _error_of(envelope)

    def _queue(self, data: bytes) -> None:
        """Small chunks are joined: else each byte of the window might cost an object."""
        last = self._chunks[-1] if self._chunks else None
        if last is not None and len(last) + len(data) <= JOINED:
            self._chunks[-1] = last + data
        else:
            self._chunks.append(data)

    @property
    def is_ready(self) -> bool:
        """Whether `receive` would return or raise without waiting for the sender."""
        return bool(self._chunks) or self.error is not None or self.stream.ended is not None

    def finish_at(self, offset: int, sha256: bytes | None) -> None:
        """The result says where this stream ends: enough, if nothing is missing."""
        if self.error is None and self.stream.ended is None and sha256 is not None:
            if self.stream.received == offset:
                end = wire.End(self.stream.id, self.stream.n, offset, self.stream.start, sha256)
                self.feed(end)

    async def receive(self) -> bytes:
        """The next bytes; b"" at the end, after the digest was found right. Raises `CallError`.
        Cancelling loses nothing."""
        while True:
            while self._chunks:
                await self._digest.ready()
                chunk = self._chunks.popleft()
                if chunk is not None:
                    self._consume(chunk)
                    return chunk
                self._digest = Digest()
            if self.error is not None:
                raise self.error
            if self.stream.ended is not None:
                await self._verify()
                return b""
            await self._bell.wait()

    async def receive_all(self) -> list[bytes]:
        """All chunks that wait; [] at the end. Else like `receive`."""
        chunks = [await self.receive()]
        while chunks[0] and self._chunks and self._digest.has_room:
            chunk = self._chunks.popleft()
            if chunk is None:
                self._chunks.appendleft(None)
                break
            self._consume(chunk)
            chunks.append(chunk)
        return chunks if chunks[0] else []

    def _consume(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self.stream.consume(len(chunk))
        self._answer()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.receive():
            yield chunk

    def reset(self, error: CallError) -> None:
        """Tell the sender to stop, and whoever waits here why."""
        if self.error is None and self.stream.ended is None:
            self.error = error
            self._send(reset_for(self.stream.id, self.stream.n, error.code, error.message))
            self._ring()

    def abandon(self, error: CallError) -> None:
        """Nothing more will come, and there is nobody to tell."""
        if self.error is None and self.stream.ended is None:
            self.error = error
            self._ring()

    async def _verify(self) -> None:
        ended = self.stream.ended
        assert ended is not None
        found = await self._digest.digest()
        if ended.start != self.stream.start or found != ended.sha256:
            self.error = CallError(
                Code.DIGEST_MISMATCH,
                f"the bytes from {ended.start} to {ended.offset} are not the ones that were sent",
                started=Started.YES,
            )
            raise self.error

    def _answer(self) -> None:
        for envelope in self.stream.answers():
            self._send(envelope)


def _error_of(reset: wire.Reset) -> CallError:
    error = wire.error_from({"code": reset.code, "message": reset.message, "started": "yes"})
    error.retry = default_retry(error.code)
    return error
