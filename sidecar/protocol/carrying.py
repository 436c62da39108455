"""What a channel carries over the connection that it has: acks and pings, publishes, messages.

Which connection that is, and when there is one, is decided by `protocol.channel`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from sidecar.protocol.channel_events import Event, Received
from sidecar.protocol.connection import Connection, Counters, Link
from sidecar.protocol.publish import Publish
from sidecar.protocol.unacked import Room
from sidecar.protocol.webpubsub.frames import Ack, Codec, Message


class Carrying(ABC):
    """One connection at a time, and the websocket that carries it right now, if there is one."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._connection = Connection(codec)
        self._link: Link | None = None
        self._events: list[Event] = []
        self.counters = Counters()

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether messages flow."""

    @property
    @abstractmethod
    def is_handing_over(self) -> bool:
        """Whether this connection is only waited for: another one stands ready."""

    @property
    def connection_id(self) -> str | None:
        return self._connection.id

    @property
    def connected_since(self) -> float | None:
        """When the service first said `connected`; recoveries do not count."""
        return self._connection.since

    @property
    def unacked(self) -> int:
        """Publishes that are not settled."""
        return len(self._connection.unacked)

    @property
    def chunk(self) -> int:
        """Bytes that the path to the hub carries in about 10 ms, between 8 and 256 KiB."""
        return self._connection.unacked.flow.chunk

    def events(self) -> list[Event]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    @property
    def has_control(self) -> bool:
        """Whether an ack or a ping is due."""
        return self._link is not None and self._link.has_control(self._connection)

    def next_control(self) -> bytes | str | None:
        """The next ack or ping that is due; they go before everything else."""
        frame = None if self._link is None else self._link.control(self._connection)
        if frame is None:
            return None
        message = self._codec.encode_upstream(frame)
        self.counters.sent(message)
        return message

    def room(self, *, now: float) -> Room:
        """What `publish` may be given now."""
        if not self.is_open or self._link is None or self.is_handing_over:
            return Room.NONE
        room = self._connection.unacked.room
        return Room.URGENT if room is Room.ANY and self._link.is_over_rate(now=now) else room

    def publish(self, publish: Publish, *, now: float) -> bytes | str:
        """The message to send; it is kept until it is settled. Raises `LimitExceeded`, before
        anything happened, for one that is larger than the service takes."""
        assert self.is_open
        message = self._connection.unacked.add(publish, now=now)
        self._count(message, now)
        return message

    def next_resend(self, *, now: float) -> bytes | str | None:
        """The next publish that is to be sent again; the caller sends what is urgent first."""
        if not self.is_open:
            return None
        message = self._connection.unacked.next_resend(now=now)
        if message is not None:
            self._count(message, now)
        return message

    def _receive_data(self, frame: Message, size: int, now: float) -> None:
        number = frame.sequence_id  # None on a plain subprotocol, which numbers nothing
        if number is None or self._connection.sequence.receive(number, size, now=now):
            self._events.append(Received(frame))

    def _receive_ack(self, frame: Ack, now: float) -> None:
        unacked = self._connection.unacked
        self.counters.measured(unacked.round_trip(frame, now=now))
        settled = unacked.receive_ack(frame, now=now)
        if settled is not None:
            self._events.append(settled)

    def _count(self, message: bytes | str, now: float) -> None:
        self.counters.sent(message)
        if self._link is not None and self._link.bucket is not None:
            self._link.bucket.take(len(message), now=now)
