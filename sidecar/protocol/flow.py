"""How much to have in flight towards one receiver: measured bandwidth times round trip.

Latency behind a bulk stream is (bytes in flight beyond bandwidth × round trip) / bandwidth, so
no fixed window is right both for a 1 MB/s and for a 50 MB/s user. The rule is that of BBR
(draft-ietf-ccwg-bbr), much simplified:

    rate   = highest delivery rate seen in the last second of samples
    trip   = lowest round trip seen on this path
    window = gain × rate × trip + 3 chunks,  gain 2 until the rate stopped growing, then 1.25
    chunk  = what the path carries in 10 ms, between 8 and 256 KiB

It bounds bulk only. Small, urgent messages pass beside it.
"""

from __future__ import annotations

from collections import deque

MIN_CHUNK = 8 * 1024
MAX_CHUNK = 256 * 1024
START_CHUNK = 64 * 1024
START_WINDOW = 512 * 1024
MAX_WINDOW = 16 * 1024 * 1024
CHUNK_TIME = 0.010  # seconds
RATE_MEMORY = 1.0  # seconds
STARTUP_GAIN = 2.0
STEADY_GAIN = 1.25
GROWTH = 1.25  # a round must raise the rate by this, or counts as flat
FLAT_ROUNDS = 3
SAMPLES = 4096  # messages in flight that are remembered


class Flow:
    """One path. Totals are bytes since the beginning; `now` is seconds."""

    def __init__(self) -> None:
        self.trip: float | None = None
        self.chunk = START_CHUNK
        self.window = START_WINDOW
        # total, at, delivered, at; of a receiver that never reports, the oldest are forgotten
        self._sent: deque[tuple[int, float, int, float]] = deque(maxlen=SAMPLES)
        self._delivered = 0
        self._delivered_at: float | None = None
        self._rates: deque[tuple[float, float]] = deque()  # at, bytes a second; falling
        self._gain = STARTUP_GAIN
        self._full_rate = 0.0
        self._flat = 0
        self._round_ends = 0

    @property
    def rate(self) -> float:
        """Bytes a second; 0.0 while unknown."""
        return self._rates[0][1] if self._rates else 0.0

    def sent(self, total: int, *, now: float) -> None:
        """A message went out; `total` bytes so far, with it."""
        if not self._sent:  # the path was idle: time without traffic is no evidence
            self._delivered_at = now
        started = now if self._delivered_at is None else self._delivered_at
        self._sent.append((total, now, self._delivered, started))

    def seen(self, total: int, *, now: float) -> None:
        """The receiver has seen everything up to `total`."""
        newest: tuple[int, float, int, float] | None = None
        while self._sent and self._sent[0][0] <= total:
            newest = self._sent.popleft()
        if newest is None:
            return
        reached, sent_at, delivered_then, delivered_at = newest
        trip = max(now - sent_at, 1e-5)
        self.trip = trip if self.trip is None else min(self.trip, trip)
        elapsed = max(now - delivered_at, now - sent_at, 1e-5)
        self._delivered = reached
        self._delivered_at = now
        self._learn((reached - delivered_then) / elapsed, now)
        if reached >= self._round_ends:
            self._round_ends = self._sent[-1][0] if self._sent else reached
            self._end_round()
        self._resize()

    def _learn(self, rate: float, now: float) -> None:
        while self._rates and self._rates[-1][1] <= rate:
            self._rates.pop()
        self._rates.append((now, rate))
        while len(self._rates) > 1 and self._rates[0][0] < now - RATE_MEMORY:
            self._rates.popleft()

    def _end_round(self) -> None:
        if self.rate >= self._full_rate * GROWTH:
            self._full_rate = self.rate
            self._flat = 0
            return
        self._flat += 1
        if self._flat >= FLAT_ROUNDS:
            self._gain = STEADY_GAIN

    def _resize(self) -> None:
        assert self.trip is not None
        self.chunk = int(min(MAX_CHUNK, max(MIN_CHUNK, self.rate * CHUNK_TIME)))
        window = self._gain * self.rate * self.trip + 3 * self.chunk
        self.window = int(min(MAX_WINDOW, max(4 * self.chunk, window)))
