"""One byte stream, one direction: absolute offsets and credit.

The rules are QUIC's (RFC 9000 §2.2, §4.1), because they are idempotent: a message may come
twice, late or never, and the next one repairs it.

* Data below what was received is trimmed; data above it is dropped and answered, once per
  hole, by the offset expected (`rewind`).
* Credit only grows; an older grant is ignored. A sender that has bytes and no credit says
  `blocked` after a second, and once a second from there, which restates a lost grant, and asks
  for what was lost if the receiver had no more the second before.
* `end` carries the final offset and the SHA-256 of what was sent from `start` on; `skip`
  names bytes that are gone at the source, and the digest begins anew behind them; `reset`
  breaks the stream off.
* A stream does not know its connection. What is sent again comes from its source, by offset.

Offsets and sizes are bytes, `now` is seconds. The digest itself is computed by whoever moves
the bytes, beside them; here is only from where it counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sidecar.errors import CallError, Code, Invalid, LimitExceeded, default_retry
from sidecar.protocol.envelope import (
    Blocked,
    Credit,
    End,
    Envelope,
    Reset,
    Rewind,
    Skip,
    dumps,
    error_from,
    error_map,
    sentence,
)

BLOCKED_AFTER = 1.0  # seconds without progress before `blocked`
SAME_HOLE = 8  # rewinds to one offset before the stream counts as broken
GRANT_STEP = 384 * 1024  # bytes consumed, or half of a small window: then credit is restated
REWIND_AGAIN = 1.0  # seconds until a rewind that changed nothing is repeated; doubles
RESET_DETAILS = 1024  # bytes of what a `reset` tells beside its sentence
SKIPS = 64  # ranges of missing bytes that a receiver remembers

STDIN, STDOUT, STDERR, CONTENT = 0, 1, 2, 3
CHANGES = 16  # of files.watch


class SendStream:
    """The sending side. Bytes come from a source that can be read again by offset."""

    def __init__(
        self, id: bytes, n: int, *, limit: int, start: int = 0, sent: int | None = None
    ) -> None:
        """`sent`: an earlier process may have sent all up to there; `resume` has to follow."""
        self.id = id
        self.n = n
        self.next = start  # offset of the next byte to send
        self.high = start if sent is None else sent  # one past the highest byte ever sent
        self.start = start  # where the digest begins
        self.received = start  # the receiver has everything below
        self.limit = limit
        self._hashed = start
        self._blocked_at: float | None = None

    @property
    def allowance(self) -> int:
        """How many bytes may be sent now."""
        return max(0, self.limit - self.next)

    def sent(self, size: int) -> int:
        """`size` bytes go out at `next`; how many of them, the last ones, the digest lacks."""
        self.next += size
        self.high = max(self.high, self.next)
        fresh = max(0, self.next - self._hashed)
        self._hashed = max(self._hashed, self.next)
        self._blocked_at = None
        return fresh

    def skip(self, to: int) -> Skip:
        """The source has nothing below `to` any more. A receiver that has more ignores it."""
        return Skip(self.id, self.n, self.next, to)

    def skip_to(self, offset: int) -> Skip:
        """Skip what the receiver cannot have more of, or has agreed to, and go on there. The
        digest begins anew, on both sides: what was hashed may be what is gone."""
        skip = self.skip(offset)
        self.next = self.start = offset
        self.high = max(self.high, offset)
        self._hashed = offset
        return skip

    def receive_credit(self, credit: Credit) -> bool:
        """A grant; True if it allows more than before. What was never sent cannot be acked."""
        if credit.received > self.high:
            raise Invalid(f"credit for {credit.received} bytes received, {self.high} were sent")
        self.received = max(self.received, credit.received)
        if credit.limit <= self.limit:
            return False
        self.limit = credit.limit
        self._blocked_at = None
        return True

    def rewind(self, offset: int) -> bool:
        """Go back to `offset`; False if that is not behind `next` (an old request)."""
        if offset >= self.next or offset < self.received:
            return False
        self.next = offset
        return True

    def advance(self) -> None:
        """Go on where the receiver is by its own account."""
        self.next = max(self.next, self.received)

    def resume(self, received: int, start: int, limit: int) -> bool:
        """A receiver asked for the stream at `received`, its digest begun at `start`, with
        credit up to `limit`. True if the digest has to begin anew, there."""
        if received > self.high or start > received:
            raise Invalid(
                f"resume at {received} with a digest from {start}: {self.high} bytes were sent"
            )
        self.received = received
        self.next = received
        self.limit = limit  # what the old receiver granted is worth nothing to a new one
        self._blocked_at = None
        if start == self.start and received <= self._hashed:
            return False
        self.start = self._hashed = received
        return True

    def end(self, sha256: bytes) -> End:
        return End(self.id, self.n, self.next, self.start, sha256)

    def blocked(self, now: float) -> Blocked | None:
        """Call it while bytes wait and `allowance` is 0; due a second later, then each second."""
        if self._blocked_at is None:
            self._blocked_at = now + BLOCKED_AFTER
        if now < self._blocked_at:
            return None
        self._blocked_at = now + BLOCKED_AFTER
        return Blocked(self.id, self.n, self.next)

    @property
    def blocked_at(self) -> float | None:
        """When `blocked` is due; None while the stream is not held up by credit."""
        return self._blocked_at


@dataclass(frozen=True, slots=True)
class Piece:
    """What a source has at an offset. `offset` is higher than asked where bytes are gone;
    `ended` says that nothing follows `data`."""

    offset: int
    data: bytes
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """The stream is complete: final offset, and the digest of the bytes from `start` on."""

    offset: int
    start: int
    sha256: bytes


class ReceiveStream:
    """The receiving side. `window` bytes may wait for whoever consumes them."""

    def __init__(self, id: bytes, n: int, *, window: int, start: int = 0) -> None:
        self.id = id
        self.n = n
        self.window = window
        self.received = start
        self.start = start  # where our digest begins
        self.consumed = start
        self.limit = start + window
        self.ended: Ended | None = None
        self.skipped: list[tuple[int, int]] = []
        self._final: End | None = None
        self._granted = self.limit
        self._hole: tuple[int, float] | None = None  # how often asked for `received`, when
        self._stuck_at: int | None = None  # what we had when the sender said `blocked` behind it
        self._answers: list[Envelope] = []

    def receive_data(self, offset: int, data: bytes, *, now: float) -> bytes:
        """What of `data` is new. Raises `LimitExceeded` for bytes beyond the credit granted
        and `Invalid` for bytes beyond the end: both break the stream off."""
        end = offset + len(data)
        if end > self._granted:
            raise LimitExceeded("stream data beyond its credit", size=end, limit=self._granted)
        if self._final is not None and end > self._final.offset:
            raise Invalid(f"stream data up to {end}, after an end at {self._final.offset}")
        if offset > self.received:
            self._missing(now)
            return b""
        if end <= self.received:
            return b""
        fresh = data[self.received - offset :] if offset < self.received else data
        self._advance(end)
        return fresh

    def receive_skip(self, offset: int, to: int, *, now: float) -> bool:
        """Bytes [offset, to) are gone at the source; True if the digest begins anew, at `to`.

        So it does also where nothing of them is missing: the sender cannot know that, and begins
        anew when it is told that we are at `to`. It is not done by one that came too late.
        """
        if to < offset:
            raise Invalid(f"a skip from {offset} back to {to}")
        if offset > self.received:
            self._missing(now)
            return False
        if self._final is not None and to > self._final.offset:
            raise Invalid(f"a skip to {to}, after an end at {self._final.offset}")
        if to < self.received or self.ended is not None:
            self.restate()  # the sender may be waiting to hear so
            return False
        self._note_skipped(to)
        self.start = to
        self.consumed += to - self.received  # nobody has to hold what never came
        self.limit = max(self.limit, self.consumed + self.window)
        self._advance(to)
        if self.ended is None:
            self.restate()  # the sender counts the skip against its credit
        return True

    def receive_end(self, end: End, *, now: float) -> None:
        """The end. Below what was received it is a lie; above it, something is missing."""
        if end.offset < self.received or (self._final and end.offset != self._final.offset):
            expected = self._final.offset if self._final else self.received
            raise Invalid(f"an end at {end.offset}, {expected} expected")
        self._final = end
        if self.ended is not None:  # our answer was lost
            self.restate()
        if end.offset > self.received:
            self._missing(now)
        self._settle()

    def never_began(self, sha256: bytes) -> None:
        """There is no such stream after all: it ends where it would have begun, and nobody is
        told. `sha256` is that of no bytes."""
        if self.ended is None and self.received == self.start:
            self.ended = Ended(self.start, self.start, sha256)

    def consume(self, size: int) -> None:
        """`size` bytes left the buffer; credit grows with them."""
        self.consumed += size
        self.limit = max(self.limit, self.consumed + self.window)
        if self.ended is None and self.limit - self._granted >= min(GRANT_STEP, self.window // 2):
            self.restate()

    def restate(self) -> None:
        """Say what we have and what may come, whether or not it was said before."""
        self._granted = max(self._granted, self.limit)
        done = self.ended is not None
        self._answers.append(Credit(self.id, self.n, self.received, self._granted, ended=done))

    def receive_blocked(self, blocked: Blocked, *, now: float) -> None:
        """The sender waits for credit at an offset. If we have less than that, and had so the
        last time, what is between did not arrive and nothing behind it will tell."""
        self.restate()
        if blocked.offset > self.received:
            if self._stuck_at == self.received:
                self._missing(now)
            self._stuck_at = self.received

    def resume(self) -> list[int]:
        """What `ask` says of this stream: received, digest begun at, limit."""
        self._hole = None
        self._granted = max(self._granted, self.limit)
        return [self.received, self.start, self._granted]

    def renew(self) -> None:
        """Another sender goes on, which hashes only what it sends itself; what the one before
        said of the end was about its own digest."""
        self.start = self.received
        self._final = None
        self._hole = None

    def answers(self) -> list[Envelope]:
        """Envelopes for the sender: credit and rewinds."""
        answers, self._answers = self._answers, []
        return answers

    @property
    def waiting(self) -> int:
        """Bytes received and not yet consumed; never more than `window`."""
        return self.received - self.consumed

    def _note_skipped(self, to: int) -> None:
        """At most `SKIPS` ranges, adjacent ones joined; the last one then grows over what came
        between, which tells too much rather than too little."""
        if to == self.received:
            return
        if self.skipped and (self.skipped[-1][1] == self.received or len(self.skipped) == SKIPS):
            self.skipped[-1] = (self.skipped[-1][0], to)
        else:
            self.skipped.append((self.received, to))

    def _advance(self, to: int) -> None:
        self.received = to
        self._hole = None
        self._settle()

    def _settle(self) -> None:
        final = self._final
        if final is not None and final.offset == self.received and self.ended is None:
            self.ended = Ended(final.offset, final.start, final.sha256)
            self.restate()

    def _missing(self, now: float) -> None:
        """Ask for the first missing byte: once per hole, and again after 1, 2, 4 ... seconds in
        vain, because on a slow path what is in flight behind the hole comes for many seconds."""
        asked = 0
        if self._hole is not None:  # always at `received`: `_advance` forgets it
            asked, when = self._hole
            if now - when < REWIND_AGAIN * 2 ** (asked - 1):
                return
        if asked >= SAME_HOLE:
            raise Invalid(f"{asked} requests for offset {self.received} brought nothing")
        self._hole = (asked + 1, now)
        self._answers.append(Rewind(self.id, self.n, self.received))


def reset_for(id: bytes, n: int, code: Code | str, message: str) -> Reset:
    """A `reset`; its sentence is bounded, for it may quote the peer."""
    return Reset(id, n, str(code), sentence(message[:500]))


def reset_with(id: bytes, n: int, error: CallError) -> Reset:
    """A `reset` that tells all of `error`, but for details that are too large for it."""
    details = error_map(error).get("details", {})
    reset = reset_for(id, n, error.code, error.message)
    return replace(reset, details=details) if len(dumps(details)) <= RESET_DETAILS else reset


def error_of(reset: Reset) -> CallError:
    """What the other side broke the stream off for."""
    content = {"code": reset.code, "message": reset.message, "started": "yes"}
    error = error_from({**content, "details": reset.details})
    error.retry = default_retry(error.code)
    return error
