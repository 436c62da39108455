"""What the channel knows of one connection, and of the websocket that carries it right now.

A `Connection` is what the service remembers under a connection id: it outlives a websocket by
recovery, and all that is numbered (sequence ids, ack ids) is numbered within it. A `Link` is one
websocket, from upgrade to drop. Neither changes the state of the channel: `protocol.channel` does.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.protocol.channel_events import Timing
from sidecar.protocol.liveness import Liveness
from sidecar.protocol.ratelimit import TokenBucket
from sidecar.protocol.sequence_acks import SequenceAcks
from sidecar.protocol.unacked import Unacked
from sidecar.protocol.webpubsub.frames import Codec, Connected, Ping, SequenceAck, Upstream


class Connection:
    """Empty until the service has said `connected`."""

    def __init__(self, codec: Codec) -> None:
        self.id: str | None = None
        self.reconnection_token: str | None = None
        self.since: float | None = None
        self.sequence = SequenceAcks()
        self.unacked = Unacked(codec)

    def receive_connected(self, frame: Connected) -> None:
        """The service says `connected` again whenever it renews the reconnection token."""
        self.id = frame.connection_id
        if frame.reconnection_token is not None:
            self.reconnection_token = frame.reconnection_token

    def link_recovered(self) -> None:
        self.sequence.restate()
        self.unacked.link_recovered()


class Link:
    """One websocket. `bucket` is None where no rate applies."""

    def __init__(self, timing: Timing, *, bucket: TokenBucket | None, now: float) -> None:
        self.opened_at = now
        self.bucket = bucket
        self.farewell: str | None = None  # the reason that a `disconnected` frame gave
        self.is_proven = False  # the service knows us: `connected`, or any frame of a recovery
        self.gives_up_at = now + timing.first_frame  # unless it is proven
        self.liveness = Liveness(
            now=now, ping_after=timing.ping_after, dead_after=timing.dead_after
        )

    def is_over_rate(self, *, now: float) -> bool:
        return self.bucket is not None and not self.bucket.is_ready(now=now)

    def has_control(self, connection: Connection) -> bool:
        return self.liveness.ping_is_due or (self.is_proven and connection.sequence.is_due)

    def control(self, connection: Connection) -> Upstream | None:
        """A ping or an ack that is due. Taking it makes it sent."""
        if self.liveness.ping_is_due:
            self.liveness.ping_is_due = False
            return Ping()
        if self.is_proven and connection.sequence.is_due:
            return SequenceAck(connection.sequence.take())
        return None

    def next_deadline(self, connection: Connection) -> float:
        if not self.is_proven:
            return self.gives_up_at
        deadlines = (
            self.liveness.next_deadline(),
            connection.sequence.next_deadline(),
            connection.unacked.next_deadline(),
            None if self.bucket is None else self.bucket.ready_at(),
        )
        return min(deadline for deadline in deadlines if deadline is not None)

    def handle_deadline(self, connection: Connection, *, now: float) -> str | None:
        """Why the link is of no more use, or None if it is."""
        if not self.is_proven:
            is_late = now >= self.gives_up_at
            return "the hub accepted the connection and is silent" if is_late else None
        self.liveness.handle_deadline(now=now)
        if self.liveness.is_dead:
            return "the link went silent: no answer to a ping"
        connection.sequence.handle_deadline(now=now)
        connection.unacked.handle_deadline(now=now)
        self.is_over_rate(now=now)  # fills the bucket, so that `ready_at` is over
        return None


@dataclass(slots=True, repr=False, eq=False)
class Counters:
    """Since the start. Messages are WebSocket messages; bytes are theirs, without framing."""

    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    connections: int = 0
    recoveries: int = 0
    handovers: int = 0  # of the connections
    round_trip: float | None = None  # seconds, smoothed as in RFC 6298

    def received(self, message: bytes | str) -> None:
        self.messages_in += 1
        self.bytes_in += len(message)

    def sent(self, message: bytes | str) -> None:
        self.messages_out += 1
        self.bytes_out += len(message)

    def measured(self, trip: float | None) -> None:
        """A round trip in seconds; None is ignored."""
        if trip is not None:
            before = trip if self.round_trip is None else self.round_trip
            self.round_trip = before + (trip - before) / 8
