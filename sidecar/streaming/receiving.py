"""Receiving one stream: bytes in order, credit as they are consumed, the digest at the end."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable

from sidecar.bell import Bell
from sidecar.clock import Clock
from sidecar.digest import Digest
from sidecar.errors import CallError, Code, Started
from sidecar.protocol import envelope as wire
from sidecar.protocol.streams import ReceiveStream, error_of, reset_for
from sidecar.streaming.sending import EMPTY

JOINED = 4 * 1024  # bytes; received chunks that wait are joined up to this size

SendEnvelope = Callable[[wire.Envelope], None]


class Receiver:
    """Collects one incoming stream and hands its bytes over in order."""

    def __init__(self, stream: ReceiveStream, *, send: SendEnvelope, clock: Clock) -> None:
        self.stream = stream
        self.error: CallError | None = None
        self.on_progress: Callable[[], None] | None = None
        self.position = stream.received  # offset of the next byte to hand over
        self._began = stream.received
        self._send = send
        self._clock = clock
        self._chunks: deque[bytes | int] = deque()  # a number: a skip to it, a new digest from it
        self._digest: Digest | None = Digest()  # None: whoever takes the bytes hashes them
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
                    self._chunks.append(self.stream.received)
            case wire.End():
                self.stream.receive_end(envelope, now=now)
            case wire.Blocked():
                self.stream.receive_blocked(envelope, now=now)
            case wire.Reset() if self.stream.ended is None:
                self.error = error_of(envelope)

    def _queue(self, data: bytes) -> None:
        """Small chunks are joined: else each byte of the window might cost an object."""
        last = self._chunks[-1] if self._chunks else None
        if isinstance(last, bytes) and len(last) + len(data) <= JOINED:
            self._chunks[-1] = last + data
        else:
            self._chunks.append(data)

    @property
    def is_ready(self) -> bool:
        """Whether `receive` would return or raise without waiting for the sender."""
        has_bytes = any(isinstance(chunk, bytes) for chunk in self._chunks)  # a skip is no chunk
        return has_bytes or self.error is not None or self.stream.ended is not None

    def finish_at(self, offset: int, sha256: bytes | None) -> None:
        """The result says where this stream ends: enough, if nothing is missing.

        Its digest is of the first transmission. Who took the stream up later can only go by it
        if there was nothing left to take."""
        if self.error is not None or self.stream.ended is not None or sha256 is None:
            return
        if self.stream.received == offset and self._began in (0, offset):
            sha256 = EMPTY if self._began else sha256
            self.feed(wire.End(self.stream.id, self.stream.n, offset, self.stream.start, sha256))

    def renew(self) -> None:
        """Another process will go on with this stream, which cannot know what the one before had
        hashed: the digest begins anew with what comes from here on."""
        if self.error is None and self.stream.ended is None and self.stream.received:
            self.stream.renew()
            self._began = self.stream.received
            self._chunks.append(self.stream.received)

    def never_began(self) -> None:
        """The result came, and this stream is not among those that it names: it is empty."""
        if self.error is None:
            self.stream.never_began(EMPTY)
            self._ring()

    def leave_digest(self) -> None:
        """Before the first byte is taken: who takes them hashes them in a thread that it needs
        anyway, and gives what it found to `check_digest` at the end."""
        self._digest = None

    async def receive(self) -> bytes:
        """The next bytes; b"" at the end, after the digest was found right. Raises `CallError`.
        Cancelling loses nothing."""
        while True:
            while self._chunks:
                if self._digest is not None:
                    await self._digest.ready()
                chunk = self._chunks.popleft()
                if isinstance(chunk, bytes):
                    self._consume(chunk)
                    return chunk
                self.position = chunk
                if self._digest is not None:
                    self._digest = Digest()
            if self.error is not None:
                raise self.error
            if self.stream.ended is not None:
                if self._digest is not None:
                    self.check_digest(await self._digest.digest())
                return b""
            await self._bell.wait()

    async def receive_all(self) -> list[bytes]:
        """All chunks that wait; [] at the end. Else like `receive`."""
        chunks = [await self.receive()]
        while chunks[0] and self._chunks and (self._digest is None or self._digest.has_room):
            chunk = self._chunks.popleft()
            if isinstance(chunk, int):
                self._chunks.appendleft(chunk)
                break
            self._consume(chunk)
            chunks.append(chunk)
        return chunks if chunks[0] else []

    def _consume(self, chunk: bytes) -> None:
        self.position += len(chunk)
        if self._digest is not None:
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

    def check_digest(self, found: bytes) -> None:
        """Raises `digest_mismatch` unless that is the SHA-256 of what the sender sent."""
        ended = self.stream.ended
        assert ended is not None
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
