"""What was published and is not yet acknowledged by the hub.

Source: Azure/azure-webpubsub, client-spec.md: a publish with an ack id is answered once, and the
service remembers the ids that succeeded, per connection and across recoveries. So a publish keeps
its id until it is settled: whatever is sent again under the same id is executed at most once, and
`Duplicate` means that the first one had arrived.

    success, Duplicate       ACKED
    Forbidden, BadRequest    REFUSED: a further try would end the same way
    anything else            sent again under the same id, three times, then LOST

In flight is bounded twice: by `Flow` (what the path carries in a round trip), and by fixed limits,
because everything here is kept in memory. Bulk stops at the bound; what is urgent has a reserve.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from sidecar.errors import LimitExceeded
from sidecar.protocol.flow import Flow
from sidecar.protocol.publish import Outcome, Publish, Settled
from sidecar.protocol.webpubsub.frames import MAX_MESSAGE, Ack, Codec, SendToGroup

UNACKED_MESSAGES = 256
UNACKED_BYTES = 4 * 1024 * 1024
RESERVE_MESSAGES = 64  # on top, for what is urgent; far below the 1,000 ids the service remembers
RESERVE_BYTES = 1024 * 1024
RETRY_DELAYS = (0.5, 1.0, 2.0)  # seconds, after an answer that may be better next time

_FOR_GOOD = frozenset({"Forbidden", "BadRequest"})


class Room(IntEnum):
    """What may be published now."""

    NONE = 0
    URGENT = 1
    ANY = 2


@dataclass(slots=True, repr=False, eq=False)
class _Entry:
    """A publish on its way."""

    message: bytes | str  # as encoded, so that what is sent again is the same
    settled: Callable[[Outcome], None]
    total: int  # bytes on this link up to and with this message
    sent_at: float | None  # None: sent more than once, so its ack dates nothing (Karn's rule)
    failures: int = 0


class Unacked:
    """The publishes of one connection and its recoveries."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._entries: dict[int, _Entry] = {}
        self._bytes = 0
        self._total = 0
        self._last_id = 0
        self._resend: deque[int] = deque()
        self._retry_at: dict[int, float] = {}
        self.flow = Flow()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def room(self) -> Room:
        count, size = len(self._entries), self._bytes + MAX_MESSAGE
        if count >= UNACKED_MESSAGES + RESERVE_MESSAGES or size > UNACKED_BYTES + RESERVE_BYTES:
            return Room.NONE
        if count >= UNACKED_MESSAGES or size > UNACKED_BYTES or self._resend:
            return Room.URGENT
        return Room.ANY if self._bytes < self.flow.window else Room.URGENT

    def add(self, publish: Publish, *, now: float) -> bytes | str:
        """The message to send. Raises `LimitExceeded` for one that would kill the connection."""
        frame = SendToGroup(publish.group, publish.data, self._last_id + 1, ttl=publish.ttl)
        message = self._codec.encode_upstream(frame)
        if len(message) > MAX_MESSAGE:
            raise LimitExceeded("bytes of one message", size=len(message), limit=MAX_MESSAGE)
        self._last_id += 1
        self._bytes += len(message)
        self._entries[self._last_id] = _Entry(message, publish.settled, 0, now)
        self._send(self._entries[self._last_id], now)
        return message

    def receive_ack(self, ack: Ack, *, now: float) -> Settled | None:
        """Who is to be told what, if this ack settles a publish."""
        entry = self._entries.get(ack.ack_id)
        if entry is None:
            return None
        self.flow.seen(entry.total, now=now)
        if ack.success or ack.error_name == "Duplicate":
            return self._settle(ack.ack_id, Outcome.ACKED)
        if ack.error_name in _FOR_GOOD:
            return self._settle(ack.ack_id, Outcome.REFUSED)
        if entry.failures >= len(RETRY_DELAYS):
            return self._settle(ack.ack_id, Outcome.LOST)
        self._retry_at[ack.ack_id] = now + RETRY_DELAYS[entry.failures]
        entry.failures += 1
        return None

    def round_trip(self, ack: Ack, *, now: float) -> float | None:
        """What this ack says of the path; ask before `receive_ack`."""
        entry = self._entries.get(ack.ack_id)
        return None if entry is None or entry.sent_at is None else now - entry.sent_at

    def link_recovered(self) -> None:
        """A new link to the same connection: all is sent again, and nothing is known of it."""
        self.flow = Flow()
        self._total = 0
        self._retry_at.clear()
        self._resend = deque(self._entries)

    def next_resend(self, *, now: float) -> bytes | str | None:
        """The next message that is to be sent again, in the order of the ids."""
        while self._resend:
            entry = self._entries.get(self._resend.popleft())
            if entry is not None:
                self._send(entry, now)
                entry.sent_at = None
                return entry.message
        return None

    def abandon(self) -> list[Settled]:
        """The connection is gone for good, and this object with it: who is to be told LOST."""
        settled = [Settled(entry.settled, Outcome.LOST) for entry in self._entries.values()]
        self._entries.clear()
        return settled

    def next_deadline(self) -> float | None:
        return min(self._retry_at.values(), default=None)

    def handle_deadline(self, *, now: float) -> None:
        due = [ack_id for ack_id, at in self._retry_at.items() if at <= now]
        for ack_id in due:
            del self._retry_at[ack_id]
            self._resend.append(ack_id)

    def _send(self, entry: _Entry, now: float) -> None:
        self._total += len(entry.message)
        entry.total = self._total
        self.flow.sent(self._total, now=now)

    def _settle(self, ack_id: int, outcome: Outcome) -> Settled:
        entry = self._entries.pop(ack_id)
        self._retry_at.pop(ack_id, None)
        self._bytes -= len(entry.message)
        return Settled(entry.settled, outcome)
