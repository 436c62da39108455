"""How much one attachment may be sent: bytes and messages, granted by the receiving side.

The hub destroys a receiver's session at 16 MB or 1,000 messages that it has not acknowledged
(Azure/azure-webpubsub, client-spec.md), and a publisher cannot see how near that is. So each
side grants the other, per attachment, a window of both. Every message to an attachment states
its running totals; the receiver returns the highest totals that it saw, and absolute limits.
Because totals are absolute, a message that was lost leaks nothing: the next one accounts for it.

A `window` goes out after 384 KiB (a quarter of a small window), half the messages, or 20 ms, and
every 30 s as a sign of life. 384 KiB, because it costs both sides and the hub about as much as a
chunk of 256 KiB: one for each chunk took a fifth of all processor time. More would stall
the start of a stream, where `flow` allows 512 KiB; on slower paths the 20 ms come first.
"""

from __future__ import annotations

from sidecar.protocol.envelope import Blocked, Head, Window

WINDOW_BYTES = 4 * 1024 * 1024  # granted to one attachment by default
WINDOW_MESSAGES = 128
SHARED_BYTES = 8 * 1024 * 1024  # granted to all attachments of a process together
SHARED_MESSAGES = 500
STATE_AFTER_BYTES = 384 * 1024
STATE_AFTER = 0.020  # seconds
REPEAT_AFTER = 30.0  # seconds; an attachment lapses after three of them
BLOCKED_AFTER = 1.0  # seconds
SLACK = 512 * 1024  # bytes; one message (256 KiB chunk and what rides along) always fits


def share(attachments: int) -> tuple[int, int]:
    """The window of one of `attachments`: the default, or an equal part of the whole."""
    count = max(1, attachments)
    return (
        max(SLACK, min(WINDOW_BYTES, SHARED_BYTES // count)),
        max(16, min(WINDOW_MESSAGES, SHARED_MESSAGES // count)),
    )


class SendWindow:
    """What may still be sent to an attachment."""

    def __init__(self, attachment: bytes, limit_bytes: int, limit_messages: int) -> None:
        self.attachment = attachment
        self.bytes = 0
        self.messages = 0
        self.seen_bytes = 0
        self.seen_messages = 0
        self.limit_bytes = limit_bytes
        self.limit_messages = limit_messages
        self._blocked_at: float | None = None

    def room(self) -> int:
        """Bytes that the next message may have; 0 when it may not be sent at all."""
        if self.messages >= self.limit_messages:
            return 0
        return max(0, self.limit_bytes - self.bytes)

    @property
    def in_flight(self) -> int:
        """Bytes sent and not yet reported as seen."""
        return self.bytes - self.seen_bytes

    def head(self, size: int) -> Head:
        """The head of the next message, whose envelopes have `size` bytes without it."""
        self.bytes += size
        self.messages += 1
        self._blocked_at = None
        return Head(self.attachment, self.bytes, self.messages)

    def receive(self, window: Window) -> None:
        """What the receiver saw and grants; numbers only grow, older statements change nothing.
        It cannot have seen what was never sent: such a claim is cut to the truth."""
        self.seen_bytes = max(self.seen_bytes, min(window.seen_bytes, self.bytes))
        self.seen_messages = max(self.seen_messages, min(window.seen_messages, self.messages))
        self.limit_bytes = max(self.limit_bytes, window.limit_bytes)
        self.limit_messages = max(self.limit_messages, window.limit_messages)
        self._blocked_at = None

    def blocked(self, now: float) -> Blocked | None:
        """Call it while something waits and there is no room: due a second later, then again."""
        if self._blocked_at is None:
            self._blocked_at = now + BLOCKED_AFTER
        if now < self._blocked_at:
            return None
        self._blocked_at = now + BLOCKED_AFTER
        return Blocked(offset=self.bytes)

    @property
    def blocked_at(self) -> float | None:
        return self._blocked_at


class ReceiveWindow:
    """What an attachment may still send to us."""

    def __init__(self, size_bytes: int, size_messages: int, *, now: float) -> None:
        self.size_bytes = size_bytes
        self.size_messages = size_messages
        self.seen_bytes = 0
        self.seen_messages = 0
        self.lost_messages = 0
        self._held_bytes = 0
        self._held_messages = 0
        self._received_messages = 0
        self._stated = Window(0, 0, size_bytes, size_messages)
        self._due = now + REPEAT_AFTER

    def receive(self, head: Head, *, now: float) -> None:
        """A message arrived. Totals that jump tell how many messages never did."""
        if head.messages > self.seen_messages:  # not for one that carried only a `window`
            self._received_messages += 1
        self.seen_bytes = max(self.seen_bytes, head.bytes)
        self.seen_messages = max(self.seen_messages, head.messages)
        self.lost_messages = self.seen_messages - self._received_messages
        news_bytes = self.seen_bytes - self._stated.seen_bytes
        news_messages = self.seen_messages - self._stated.seen_messages
        many_bytes = min(STATE_AFTER_BYTES, self.size_bytes // 4)
        if news_bytes >= many_bytes or news_messages * 2 >= self.size_messages:
            self._due = now
        elif news_messages:
            self._due = min(self._due, now + STATE_AFTER)

    def resize(self, size_bytes: int, size_messages: int) -> None:
        """Grant more or less at once from here on; what was granted stays granted."""
        self.size_bytes = size_bytes
        self.size_messages = size_messages

    def hold(self, size: int) -> None:
        """`size` bytes of a message wait for a slow consumer: the window does not open for them."""
        self._held_bytes += size
        self._held_messages += 1

    def release(self, size: int, *, now: float) -> None:
        """They were consumed."""
        self._held_bytes -= size
        self._held_messages -= 1
        self._due = min(self._due, now + STATE_AFTER)

    def urge(self, *, now: float) -> None:
        """The peer says that it is blocked: state the window again."""
        self._due = now

    def next_deadline(self) -> float:
        return self._due

    def statement(self, *, now: float) -> Window | None:
        """The `window` to send, if one is due."""
        if now < self._due:
            return None
        old = self._stated
        self._stated = Window(
            self.seen_bytes,
            self.seen_messages,
            max(old.limit_bytes, self.seen_bytes - self._held_bytes + self.size_bytes),
            max(old.limit_messages, self.seen_messages - self._held_messages + self.size_messages),
        )
        self._due = now + REPEAT_AFTER
        return self._stated
