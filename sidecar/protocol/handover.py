"""A new connection that opens before the old one closes.

What is not acknowledged when a connection ends is handed back, and what the hub had not delivered
is gone with it; both are repaired, at the price of a pause. A handover avoids the price:

    1  the successor is dialled while the old connection does all the work
    2  the hub says `connected` to it; from now on, what comes for us comes on both
    3  nothing more is published on the old one, and a ping goes out on it
    4  all is acknowledged and the pong has come, so what was under way has arrived; or time is up
    5  the old one is closed, and the successor takes over, with what it has heard meanwhile

What came on the successor is kept until then and passed on after what came on the old one, so
that the order of each connection holds. It repeats some of it: envelopes are idempotent. To the
owners of publishes, to readers and to controllers it is a new connection, with the one repair
that follows each: correctness does not depend on any of this.
"""

from __future__ import annotations

import math

from sidecar.protocol.connection import Connection, Link
from sidecar.protocol.webpubsub.frames import Codec, Connected, Disconnected, Downstream, Message

DRAIN = 2.0  # seconds for the old connection to deliver what is under way
HELD_MESSAGES = 512  # the service ends a session at 1,000 that are not acknowledged
HELD_BYTES = 4 * 1024 * 1024

BEFORE_EXPIRY, AFTER_EXPIRY = 2.0, 15.0  # seconds: a hub that closes then, closes because of it


class Successor:
    """The connection that will take over, from its websocket to the switch."""

    def __init__(self, codec: Codec, link: Link) -> None:
        self.link = link
        self.connection = Connection(codec)
        self.held: list[Message] = []
        self._held_bytes = 0
        self._pongs_to_come = 0
        self._until = math.inf

    @property
    def is_open(self) -> bool:
        """Whether the hub has said `connected`."""
        return self.link.is_proven

    @property
    def has_waited(self) -> bool:
        """Whether the pong of the old connection has come, or too much is held to wait for it."""
        is_full = len(self.held) >= HELD_MESSAGES or self._held_bytes >= HELD_BYTES
        return self.is_open and (self._pongs_to_come == 0 or is_full)

    def receive(self, frame: Downstream, size: int, *, old: Link, now: float) -> None:
        """A frame of `size` bytes came on the successor."""
        self.link.liveness.receive_frame(now=now)
        match frame:
            case Connected():
                self.connection.receive_connected(frame)
                if not self.is_open:
                    self._begin_drain(old, now)
            case Message(sequence_id=number):
                if number is None or self.connection.sequence.receive(number, size, now=now):
                    self.held.append(frame)
                    self._held_bytes += size
            case Disconnected():
                self.link.farewell = frame.reason

    def receive_old_pong(self) -> None:
        """The old connection answered a ping."""
        self._pongs_to_come = max(0, self._pongs_to_come - 1)

    def next_deadline(self) -> float:
        """When the old connection has had its time."""
        return self._until

    def _begin_drain(self, old: Link, now: float) -> None:
        self.link.is_proven = True
        self.connection.since = now
        self._until = now + DRAIN
        self._pongs_to_come = 2 if old.liveness.is_asked else 1  # the first answers what was asked
        old.liveness.ask(now=now)


def is_around_expiry(late: float) -> bool:
    """Whether a connection that the hub closed `late` seconds after its token lapsed was closed
    because of that."""
    return -BEFORE_EXPIRY <= late <= AFTER_EXPIRY
