"""How fast to publish: two token buckets, of messages and of bytes.

Azure's guidance for one unit with small groups is 400 messages in and 4,000 out a second for
everybody together (Learn, concept-performance); one sidecar takes a tenth of it. Urgent
messages may overdraw, at most by one burst; bulk then waits until the debt is paid.
"""

from __future__ import annotations

from sidecar.protocol import limits
from sidecar.protocol.record import Record, record

_EPSILON = 1e-6  # so that a bucket is ready at the very time that `ready_at` gave


@record
class RateLimit(Record):
    """Sustained rates a second, and how much may be saved up while nothing is sent."""

    messages: float = limits.RATE_MESSAGES
    bytes: float = limits.RATE_BYTES
    burst_messages: float = limits.BURST_MESSAGES
    burst_bytes: float = limits.BURST_BYTES


class TokenBucket:
    """What may be sent under a `RateLimit`. It is full at first."""

    def __init__(self, limit: RateLimit, *, now: float) -> None:
        self._limit = limit
        self._messages = float(limit.burst_messages)
        self._bytes = float(limit.burst_bytes)
        self._at = now

    def take(self, size: int, *, now: float) -> None:
        """One message of `size` bytes is sent, ready or not."""
        self._refill(now)
        self._messages = max(self._messages - 1.0, -self._limit.burst_messages)
        self._bytes = max(self._bytes - size, -self._limit.burst_bytes)

    def is_ready(self, *, now: float) -> bool:
        """Whether bulk may be sent. One message of any size is then allowed."""
        self._refill(now)
        return self._missing() <= _EPSILON

    def ready_at(self) -> float | None:
        """When bulk may go on, or None if it may already."""
        missing = self._missing()
        return self._at + missing if missing > _EPSILON else None

    def _missing(self) -> float:
        """Seconds until there is a whole message, and no debt of bytes."""
        messages = (1.0 - self._messages) / self._limit.messages
        return max(0.0, messages, -self._bytes / self._limit.bytes)

    def _refill(self, now: float) -> None:
        limit, passed = self._limit, max(0.0, now - self._at)
        self._messages = min(limit.burst_messages, self._messages + passed * limit.messages)
        self._bytes = min(limit.burst_bytes, self._bytes + passed * limit.bytes)
        self._at = max(now, self._at)
