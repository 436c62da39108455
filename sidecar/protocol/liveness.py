"""Whether the link still carries anything.

A half-open TCP connection looks idle for many minutes. So after 20 s of silence we send a `ping`
frame, and the service answers `pong` (Azure/azure-webpubsub, client-spec.md); if nothing at all
came 10 s after that, that is after 30 s of silence, the link is dead. WebSocket pings would be
answered by proxies too, which say nothing of the service behind them.
"""

from __future__ import annotations

PING_AFTER = 20.0  # seconds of silence
DEAD_AFTER = 10.0  # seconds of further silence
LATE = 5.0  # seconds; a timer that fires later than this means that *we* slept


class Liveness:
    """The silence on one link."""

    def __init__(
        self, *, now: float, ping_after: float = PING_AFTER, dead_after: float = DEAD_AFTER
    ) -> None:
        self._ping_after = ping_after
        self._dead_after = dead_after
        self._heard_at = now
        self._waiting_since: float | None = None  # a ping went out, and nothing came since
        self._asked_at: float | None = None  # a ping went out, and its pong did not come
        self.ping_is_due = False
        self.is_dead = False

    @property
    def is_asked(self) -> bool:
        """Whether a pong is still to come."""
        return self._asked_at is not None

    def receive_frame(self, *, now: float) -> None:
        self._heard_at = now
        self._waiting_since = None

    def receive_pong(self, *, now: float) -> float | None:
        """The round trip in seconds, if this pong answers a ping."""
        asked, self._asked_at = self._asked_at, None
        return None if asked is None else now - asked

    def ask(self, *, now: float) -> None:
        """Have a ping sent, and expect something in return."""
        self.ping_is_due = True
        self._waiting_since = self._asked_at = now

    def next_deadline(self) -> float:
        if self._waiting_since is None:
            return self._heard_at + self._ping_after
        return self._waiting_since + self._dead_after

    def handle_deadline(self, *, now: float) -> None:
        deadline = self.next_deadline()
        if now < deadline:
            return
        if self._waiting_since is None or now > deadline + LATE:
            self.ask(now=now)
        else:
            self.is_dead = True
