"""What the hub does with the frames of its clients: groups, rights, acks, fan-out.

Source: Microsoft Learn, reference-json-reliable-webpubsub-subprotocol; where it is silent,
Azure/azure-webpubsub tools/emulator.

An ack is sent only for a frame that has an ack id, and after the fan-out; it means that the hub
took the frame, not that anyone received it. An id that succeeded before is answered `Duplicate`
and does nothing; one that failed may be used again. A frame without an ack id fails in silence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sidecar.errors import CallError, Invalid, ProtocolError
from sidecar.hub.delivery import Delivery
from sidecar.hub.faults import Faults
from sidecar.hub.metadata import check_metadata
from sidecar.hub.permissions import Permissions, Right, check_group
from sidecar.hub.registry import Registry
from sidecar.hub.session import HubSession
from sidecar.hub.settings import HubSettings
from sidecar.protocol.webpubsub.frames import (
    Ack,
    Codec,
    Disconnected,
    JoinGroup,
    LeaveGroup,
    Message,
    Ping,
    Pong,
    SendEvent,
    SendToGroup,
    SequenceAck,
    Unknown,
)

MAX_TTL = 300  # seconds
OVERFLOW = 1008  # close code: there will be nothing to recover

_Acked = JoinGroup | LeaveGroup | SendToGroup | SendEvent


@dataclass(slots=True)
class Traffic:
    """Messages and payload bytes: published by clients or REST, and delivered to connections."""

    messages_in: int = 0
    bytes_in: int = 0
    messages_out: int = 0
    bytes_out: int = 0


class Refusal(Exception):
    """Why a frame was not carried out; `name` is what the ack says."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Relay:
    """Sessions and the traffic between them. Does no I/O; `now` is the caller's clock."""

    def __init__(self, limits: HubSettings, faults: Faults) -> None:
        self.registry = Registry()
        self.traffic = Traffic()
        self._limits = limits
        self._faults = faults

    # sessions

    def open(
        self,
        connection_id: str,
        user_id: str | None,
        groups: Iterable[str],
        permissions: Permissions,
        codec: Codec,
        *,
        is_reliable: bool,
        expires_at: float,
    ) -> HubSession:
        session = HubSession(
            connection_id,
            user_id,
            permissions,
            codec,
            is_reliable=is_reliable,
            limits=self._limits,
            expires_at=expires_at,
        )
        self.registry.add(session)
        for group in groups:
            self.registry.join(session, group)
        return session

    def end(self, session: HubSession, code: int, reason: str = "") -> None:
        """Destroy `session` and close its WebSocket; what was queued is not written."""
        session.end()
        self.registry.remove(session)
        if session.link is not None:
            session.link.close(code, reason)

    def dismiss(self, session: HubSession, reason: str) -> None:
        """Close `session` for the application: it gets what is queued, and the reason."""
        session.say(Disconnected(f"Application server closed the connection. Reason: {reason}"))
        session.end(flush=True)
        self.registry.remove(session)
        if session.link is not None:
            session.link.close(1000)

    def expire(self, *, now: float) -> None:
        """End the sessions whose time to recover is over."""
        for session in self.registry:
            if session.has_lapsed(now=now):
                self.end(session, 1000)

    # messages

    def send(
        self,
        receivers: Collection[HubSession],
        message: Message,
        *,
        now: float,
        ttl: int | None = None,
        excluded: Collection[str] = (),
    ) -> None:
        """Hand `message` to `receivers`, less those whose connection id is in `excluded`."""
        delivery = Delivery(message, now + ttl if ttl else None)
        traffic = self.traffic
        traffic.messages_in += 1
        traffic.bytes_in += delivery.size
        for session in receivers:
            if session.connection_id in excluded:
                continue
            traffic.messages_out += 1
            traffic.bytes_out += delivery.size
            if not session.deliver(delivery):
                self.end(session, OVERFLOW, "too many unacknowledged messages")

    def receive(self, session: HubSession, message: bytes | str, *, now: float) -> None:
        """Carry out one WebSocket message of a client; raises `ProtocolError` if it is broken."""
        match session.codec.decode_upstream(message):
            case SequenceAck(sequence_id):
                session.acknowledge(sequence_id)
            case Ping():
                session.say(Pong())
            case Unknown(kind):
                raise ProtocolError(f"a frame of the kind {kind[:60]!r}, which this hub lacks")
            case frame:
                self._answer(session, frame, now)

    def _answer(self, session: HubSession, frame: _Acked, now: float) -> None:
        ack = self._carry_out(session, frame, now)
        if ack is None or self._faults.loses_ack(session):
            return
        delay = self._faults.ack_delay
        session.say(ack, not_before=now + delay if delay else None)

    def _carry_out(self, session: HubSession, frame: _Acked, now: float) -> Ack | None:
        ack_id = frame.ack_id
        if ack_id is not None and ack_id in session.acks:
            return Ack(ack_id, False, "Duplicate", f"ack id {ack_id} has succeeded before")
        try:
            self._act(session, frame, now)
        except Refusal as refusal:
            return None if ack_id is None else Ack(ack_id, False, refusal.name, str(refusal))
        except CallError as error:
            return None if ack_id is None else Ack(ack_id, False, "BadRequest", error.message)
        if ack_id is None:
            return None
        session.acks.remember(ack_id)
        return Ack(ack_id, True)

    def _act(self, session: HubSession, frame: _Acked, now: float) -> None:
        match frame:
            case SendToGroup():
                self._publish(session, frame, now)
            case JoinGroup(group):
                _demand(session, Right.JOIN, group)
                self.registry.join(session, group)
            case LeaveGroup(group):
                _demand(session, Right.JOIN, group)
                self.registry.leave(session, group)
            case SendEvent(event):
                raise Refusal("InternalServerError", f"nothing handles the event {event[:60]!r}")

    def _publish(self, session: HubSession, frame: SendToGroup, now: float) -> None:
        _demand(session, Right.SEND, frame.group)
        check_ttl(frame.ttl)
        if frame.metadata:
            check_metadata(frame.metadata)
        message = Message(
            "group",
            frame.data,
            frame.group,
            frame.data_type,
            from_user_id=session.user_id,
            metadata=frame.metadata,
        )
        excluded = (session.connection_id,) if frame.no_echo else ()
        members = self.registry.of_group(frame.group)
        self.send(members, message, now=now, ttl=frame.ttl, excluded=excluded)


def check_ttl(ttl: int | None) -> None:
    if ttl is not None and not 0 <= ttl <= MAX_TTL:
        raise Invalid(f"a time to live of {ttl} seconds; expected 0 to {MAX_TTL}")


def _demand(session: HubSession, right: Right, group: str) -> None:
    check_group(group)
    if not session.permissions.allows(right, group):
        raise Refusal("Forbidden", f"no right to {right} for the group {group[:60]!r}")
