"""One session of the hub: what it keeps of a connection while WebSockets come and go.

Sources: Azure/azure-webpubsub protocols/client/client-spec.md (recovery, sequence ids) and
tools/emulator (sizes of the memory of acks and of the buffer).

A reliable session numbers its messages from 1 and holds each until the client has acknowledged
it; after a recovery it sends all of them again, in order, behind a new `connected`. A plain
session holds a message until it is written, and ends with its WebSocket. Acks, pongs and system
frames are never numbered and die with the WebSocket: a client asks again with the same ack id.

Nothing here does I/O. The WebSocket is a `Link`, which is woken when `next_message` has something
to give. Times are seconds on the caller's clock.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from sidecar.hub.delivery import Delivery
from sidecar.hub.permissions import Permissions
from sidecar.hub.settings import MAX_WAITING_REPLIES, HubSettings
from sidecar.protocol.webpubsub.frames import Codec, Connected, Downstream

ACKS_REMEMBERED = 1000


class Link(Protocol):
    """The WebSocket under a session, as far as the hub touches it."""

    def wake(self) -> None:
        """There may be a message to write."""

    def close(self, code: int, reason: str = "") -> None:
        """Write what waits, then close; cut off a peer that does not take it."""

    def abort(self) -> None:
        """Cut the TCP connection."""


class State(Enum):
    """Whether a WebSocket is there; ENDED is final."""

    DETACHED = auto()
    ATTACHED = auto()
    ENDED = auto()


class AckMemory:
    """The latest ack ids that succeeded, over all kinds of frames."""

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._known: set[int] = set()

    def __contains__(self, ack_id: int) -> bool:
        return ack_id in self._known

    def remember(self, ack_id: int) -> None:
        if ack_id in self._known:
            return
        if len(self._order) == ACKS_REMEMBERED:
            self._known.remove(self._order.popleft())
        self._order.append(ack_id)
        self._known.add(ack_id)


@dataclass(slots=True, eq=False)
class _Held:
    sequence_id: int
    delivery: Delivery


class HubSession:
    """A connection id, its rights and groups, and what is still to be received under it."""

    def __init__(
        self,
        connection_id: str,
        user_id: str | None,
        permissions: Permissions,
        codec: Codec,
        *,
        is_reliable: bool,
        limits: HubSettings,
        expires_at: float = math.inf,
    ) -> None:
        self.connection_id = connection_id
        self.user_id = user_id
        self.permissions = permissions
        self.codec = codec
        self.is_reliable = is_reliable
        self.expires_at = expires_at  # of its access token, in seconds since the epoch
        self.groups: set[str] = set()
        self.acks = AckMemory()
        self.link: Link | None = None
        self.state = State.DETACHED
        self._limits = limits
        self._is_forgotten = False
        self._kept_until = 0.0  # means something while DETACHED
        self._last_id = 0  # of the newest message
        self._last_written = 0
        self._last_released = 0
        self._held: deque[_Held] = deque()  # reliable: until acknowledged; plain: until written
        self._held_bytes = 0
        self._queue: deque[_Held | bytes | str] = deque()  # to be written, in this order
        self._replies = 0  # entries of the queue that are frames already
        self._delayed: deque[tuple[float, bytes | str]] = deque()  # not before this time

    # the life of the session

    def attach(self, link: Link, connected: Connected) -> None:
        """A WebSocket is there: `connected` first, then all that is held, from the oldest."""
        self.link = link
        self.state = State.ATTACHED
        self._queue = deque([self.codec.encode_downstream(connected), *self._held])
        self._replies = 1
        link.wake()

    def detach(self, *, now: float) -> None:
        """The WebSocket is gone; the session waits for a recovery, if it can have one."""
        self.link = None
        if self.state is State.ENDED or not self.is_reliable or self._is_forgotten:
            self.end()
            return
        self.state = State.DETACHED
        self._kept_until = now + self._limits.retention
        self._drop_queue()

    def end(self, *, flush: bool = False) -> None:
        """No recovery from here on; `flush` leaves what is queued for the WebSocket to write."""
        self.state = State.ENDED
        if not flush:
            self._drop_queue()
            self._held.clear()
            self._held_bytes = 0

    def forget(self) -> None:
        """Refuse the next recovery, as if the service had lost its memory of this session."""
        self._is_forgotten = True

    def can_recover(self, *, now: float) -> bool:
        if not self.is_reliable or self._is_forgotten or self.state is State.ENDED:
            return False
        return self.state is State.ATTACHED or now < self._kept_until

    def has_lapsed(self, *, now: float) -> bool:
        return self.state is State.DETACHED and not self.can_recover(now=now)

    # towards the client

    def say(self, frame: Downstream, *, not_before: float | None = None) -> None:
        """Queue a frame that is not numbered; without a WebSocket it is lost."""
        if self.link is None:
            return
        encoded = self.codec.encode_downstream(frame)
        if not_before is None:
            self._queue.append(encoded)
            self._replies += 1
        else:
            self._delayed.append((not_before, encoded))
        self.link.wake()

    def deliver(self, delivery: Delivery) -> bool:
        """Queue a message. False if the buffer is over its limits now: the session must end."""
        if self.state is State.ENDED:
            return True
        self._last_id += 1
        held = _Held(self._last_id, delivery)
        self._held.append(held)
        self._held_bytes += delivery.size
        if self.link is not None:
            self._queue.append(held)
            self.link.wake()
        return (
            len(self._held) <= self._limits.max_unacked_messages
            and self._held_bytes <= self._limits.max_unacked_bytes
        )

    def acknowledge(self, sequence_id: int) -> None:
        """The client has everything up to here. Ids that were never written change nothing."""
        if self.is_reliable:
            self._release(min(sequence_id, self._last_written))

    @property
    def is_congested(self) -> bool:
        """So many replies wait that the client should not be read from."""
        return self._replies + len(self._delayed) > MAX_WAITING_REPLIES

    def next_deadline(self) -> float | None:
        """When `next_message` may give something although nobody wakes the link."""
        return self._delayed[0][0] if self._delayed else None

    def next_message(self, *, now: float) -> bytes | str | None:
        """The next WebSocket message to write, or None."""
        if self._delayed and self._delayed[0][0] <= now:
            return self._delayed.popleft()[1]
        while self._queue:
            item = self._queue.popleft()
            if not isinstance(item, _Held):
                self._replies -= 1
                return item
            if item.sequence_id <= self._last_released:
                continue  # acknowledged since a recovery queued it again
            if item.delivery.has_expired(now):
                self._held.remove(item)
                self._held_bytes -= item.delivery.size
                continue
            self._last_written = max(self._last_written, item.sequence_id)
            if self.is_reliable:
                return item.delivery.encode(self.codec, item.sequence_id)
            self._release(item.sequence_id)
            return item.delivery.encode(self.codec, None)
        return None

    def _release(self, sequence_id: int) -> None:
        self._last_released = max(self._last_released, sequence_id)
        while self._held and self._held[0].sequence_id <= sequence_id:
            self._held_bytes -= self._held.popleft().delivery.size

    def _drop_queue(self) -> None:
        self._queue.clear()
        self._delayed.clear()
        self._replies = 0
