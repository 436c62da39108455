"""Which numbered messages are new, and when to tell the service what arrived.

Source: Azure/azure-webpubsub, client-spec.md, 3.2. A reliable connection numbers its data
messages from 1, also across recoveries. After a recovery the service repeats everything not yet
acknowledged, so whatever is not above the largest number seen is a repetition. An ack is
cumulative, and means *received*: it waits for no handler, because the service destroys a
connection with 1,000 messages or 16 MB unacknowledged.
"""

from __future__ import annotations

ACK_AFTER = 0.1  # seconds after the first unacknowledged message
ACK_MESSAGES = 64
ACK_BYTES = 1024 * 1024


class SequenceAcks:
    """The receiving side of one connection and its recoveries."""

    def __init__(self) -> None:
        self.largest = 0
        self.is_due = False
        self._messages = 0
        self._bytes = 0
        self._deadline: float | None = None

    def receive(self, sequence_id: int, size: int, *, now: float) -> bool:
        """Whether the message is new. A repetition is acknowledged too: its ack was lost."""
        is_new = sequence_id > self.largest
        self.largest = max(sequence_id, self.largest)
        self._messages += 1
        self._bytes += size
        if self._messages >= ACK_MESSAGES or self._bytes >= ACK_BYTES:
            self.is_due = True
        if self._deadline is None:
            self._deadline = now + ACK_AFTER
        return is_new

    def restate(self) -> None:
        """After a recovery: the last ack may not have arrived."""
        self.is_due = self.largest > 0

    def take(self) -> int:
        """The number to acknowledge now."""
        self.is_due = False
        self._messages = self._bytes = 0
        self._deadline = None
        return self.largest

    def next_deadline(self) -> float | None:
        return self._deadline

    def handle_deadline(self, *, now: float) -> None:
        if self._deadline is not None and now >= self._deadline:
            self.is_due = True
            self._deadline = None
