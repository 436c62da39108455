"""Frames to and from the protobuf subprotocols: binary messages, no copy but the last.

Source: Azure/azure-webpubsub, protocols/protobuf.webpubsub.azure.v1/webpubsub.v1.proto.

Written by hand, because a dozen messages do not carry a dependency and its generated code.
Encoding gathers pieces and joins them once; decoding walks offsets and cuts out only the
leaves, so a payload is copied once in each direction.

The literal keys are those of `wire`; every one we know fits one byte. Scalars with their default
value are left out, as proto3 does. Fields we do not know are skipped. Of a field that is repeated
although it is singular, the last one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sidecar.errors import ProtocolError
from sidecar.protocol.webpubsub import payload
from sidecar.protocol.webpubsub.frames import (
    PROTOBUF_SUBPROTOCOL,
    Ack,
    Connected,
    DataType,
    Disconnected,
    Downstream,
    JoinGroup,
    LeaveGroup,
    Message,
    Ping,
    Pong,
    SendEvent,
    SendToGroup,
    SequenceAck,
    Unknown,
    Upstream,
)
from sidecar.protocol.webpubsub.wire import (
    fields,
    number,
    optional,
    read_text,
    text,
    varint,
    wrap,
)

_DATA_KEYS = {
    DataType.TEXT: b"\x0a",
    DataType.BINARY: b"\x12",
    DataType.PROTOBUF: b"\x1a",
    DataType.JSON: b"\x22",
}
_DATA_TYPES = {key[0]: data_type for data_type, key in _DATA_KEYS.items()}


class ProtobufCodec:
    """The protobuf subprotocols, reliable or plain."""

    is_binary = True

    def __init__(self, subprotocol: str = PROTOBUF_SUBPROTOCOL) -> None:
        self.subprotocol = subprotocol

    def encode_upstream(self, frame: Upstream) -> bytes:
        match frame:
            case SendToGroup():
                return b"".join(wrap(b"\x0a", _send_to_group(frame)))
            case SequenceAck():
                return b"".join(wrap(b"\x42", number(b"\x08", frame.sequence_id)))
            case JoinGroup():
                return b"".join(wrap(b"\x32", _membership(frame)))
            case LeaveGroup():
                return b"".join(wrap(b"\x3a", _membership(frame)))
            case SendEvent():
                return b"".join(wrap(b"\x2a", _event(frame)))
            case Ping():
                return b"\x4a\x00"
            case Unknown():
                raise TypeError(f"{frame!r} has no encoding")

    def encode_downstream(self, frame: Downstream) -> bytes:
        match frame:
            case Message():
                return self.template(frame)(frame.sequence_id)
            case Ack():
                return b"".join(wrap(b"\x0a", _ack(frame)))
            case Connected():
                return b"".join(wrap(b"\x1a", wrap(b"\x0a", _connected(frame))))
            case Disconnected():
                return b"".join(wrap(b"\x1a", wrap(b"\x12", text(b"\x12", frame.reason))))
            case Pong():
                return b"\x22\x00"
            case Unknown():
                raise TypeError(f"{frame!r} has no encoding")

    def template(self, message: Message) -> Callable[[int | None], bytes]:
        parts = [*text(b"\x0a", message.source), *text(b"\x12", message.group)]
        parts += wrap(b"\x1a", _data(message.data_type, message.data))
        parts += _metadata(b"\x2a", message.metadata)
        size = sum(map(len, parts))

        def finish(sequence_id: int | None) -> bytes:
            # The order of fields is free, so the one that differs between receivers is last.
            last = b"" if sequence_id is None else b"\x20" + varint(sequence_id)
            return b"".join((b"\x12", varint(size + len(last)), *parts, last))

        return finish

    def decode_upstream(self, message: bytes | str) -> Upstream:
        data = _binary(message)
        frame: Upstream | None = None
        for key, start, end in fields(data, 0, len(data)):
            match key:
                case 0x0A:
                    frame = _read_send_to_group(data, start, end)
                case 0x2A:
                    frame = _read_event(data, start, end)
                case 0x32:
                    frame = JoinGroup(*_read_membership(data, start, end))
                case 0x3A:
                    frame = LeaveGroup(*_read_membership(data, start, end))
                case 0x42:
                    frame = SequenceAck(_read_number(data, start, end, 0x08))
                case 0x4A:
                    frame = Ping()
                case _:
                    frame = frame or Unknown(f"upstream field {key >> 3}")
        if frame is None:
            raise ProtocolError("an upstream message without content; expected one of its kinds")
        return frame

    def decode_downstream(self, message: bytes | str) -> Downstream:
        data = _binary(message)
        frame: Downstream | None = None
        for key, start, end in fields(data, 0, len(data)):
            match key:
                case 0x12:
                    frame = _read_message(data, start, end)
                case 0x0A:
                    frame = _read_ack(data, start, end)
                case 0x1A:
                    frame = _read_system(data, start, end)
                case 0x22:
                    frame = Pong()
                case _:
                    frame = frame or Unknown(f"downstream field {key >> 3}")
        if frame is None:
            raise ProtocolError("a downstream message without content; expected one of its kinds")
        return frame

    def overhead(self, group: str, size: int) -> int:
        # Five keys with a length of up to 5 bytes, ack id (11), no echo (2), ttl (6).
        return size + len(group.encode()) + 5 * 6 + 11 + 2 + 6


# writing -----------------------------------------------------------------------------------


def _data(data_type: DataType, data: bytes) -> list[bytes]:
    return [_DATA_KEYS[data_type], varint(len(data)), data]


def _metadata(key: bytes, metadata: Mapping[str, str] | None) -> list[bytes]:
    parts: list[bytes] = []
    for name, value in (metadata or {}).items():
        parts += wrap(key, [*text(b"\x0a", name), *text(b"\x12", value)])
    return parts


def _send_to_group(frame: SendToGroup) -> list[bytes]:
    parts = [*text(b"\x0a", frame.group), *optional(b"\x10", frame.ack_id)]
    parts += wrap(b"\x1a", _data(frame.data_type, frame.data))
    if frame.no_echo:
        parts.append(b"\x20\x01")
    parts += optional(b"\x28", frame.ttl)
    parts += _metadata(b"\x32", frame.metadata)
    return parts


def _event(frame: SendEvent) -> list[bytes]:
    parts = text(b"\x0a", frame.event)
    parts += wrap(b"\x12", _data(frame.data_type, frame.data))
    parts += optional(b"\x18", frame.ack_id)
    return parts


def _membership(frame: JoinGroup | LeaveGroup) -> list[bytes]:
    return [*text(b"\x0a", frame.group), *optional(b"\x10", frame.ack_id)]


def _ack(frame: Ack) -> list[bytes]:
    parts = [*number(b"\x08", frame.ack_id), *number(b"\x10", frame.success)]
    if frame.error_name is not None:
        error = [*text(b"\x0a", frame.error_name), *text(b"\x12", frame.error_message)]
        parts += wrap(b"\x1a", error)
    return parts


def _connected(frame: Connected) -> list[bytes]:
    return [
        *text(b"\x0a", frame.connection_id),
        *text(b"\x12", frame.user_id),
        *text(b"\x1a", frame.reconnection_token),
    ]


# reading -----------------------------------------------------------------------------------


def _binary(message: bytes | str) -> bytes:
    if isinstance(message, str):
        raise ProtocolError("a text message; the protobuf subprotocols use binary ones")
    return message


def _read_number(data: bytes, start: int, end: int, wanted: int) -> int:
    found = 0
    for key, value, _ in fields(data, start, end):
        if key == wanted:
            found = value
    return found


def _read_data(data: bytes, start: int, end: int) -> tuple[DataType, bytes] | None:
    """The payload of a MessageData; None if it is of a kind that we do not know."""
    found: tuple[DataType, bytes] | None = None
    for key, first, last in fields(data, start, end):
        data_type = _DATA_TYPES.get(key)
        if data_type is not None:
            found = data_type, data[first:last]
    if found is not None:
        payload.check(*found)
    return found


def _read_entry(data: bytes, start: int, end: int, into: dict[str, str]) -> None:
    name = value = ""
    for key, first, last in fields(data, start, end):
        if key == 0x0A:
            name = read_text(data, first, last)
        elif key == 0x12:
            value = read_text(data, first, last)
    into[name] = value


def _read_send_to_group(data: bytes, start: int, end: int) -> Upstream:
    group = ""
    ack_id = ttl = None
    content = None
    no_echo = False
    metadata: dict[str, str] = {}
    for key, first, last in fields(data, start, end):
        match key:
            case 0x0A:
                group = read_text(data, first, last)
            case 0x10:
                ack_id = first
            case 0x1A:
                content = _read_data(data, first, last)
            case 0x20:
                no_echo = first != 0
            case 0x28:
                ttl = first
            case 0x32:
                _read_entry(data, first, last, metadata)
            case 0x3A:
                return Unknown("stream start")
    data_type, body = payload.required(content, "sendToGroup", metadata)
    return SendToGroup(group, body, ack_id, data_type, no_echo, ttl, metadata or None)


def _read_event(data: bytes, start: int, end: int) -> Upstream:
    event = ""
    ack_id = None
    content = None
    metadata: dict[str, str] = {}
    for key, first, last in fields(data, start, end):
        match key:
            case 0x0A:
                event = read_text(data, first, last)
            case 0x12:
                content = _read_data(data, first, last)
            case 0x18:
                ack_id = first
            case 0x22:
                _read_entry(data, first, last, metadata)
            case 0x2A:
                return Unknown("stream start")
    data_type, body = payload.required(content, "event", metadata)
    return SendEvent(event, body, ack_id, data_type)


def _read_membership(data: bytes, start: int, end: int) -> tuple[str, int | None]:
    group = ""
    ack_id = None
    for key, first, last in fields(data, start, end):
        if key == 0x0A:
            group = read_text(data, first, last)
        elif key == 0x10:
            ack_id = first
    return group, ack_id


def _read_ack(data: bytes, start: int, end: int) -> Ack:
    ack_id = 0
    success = False
    name = message = None
    for key, first, last in fields(data, start, end):
        if key == 0x08:
            ack_id = first
        elif key == 0x10:
            success = first != 0
        elif key == 0x1A:
            name, message = _read_strings(data, first, last, (0x0A, 0x12))
            name = name or ""
    return Ack(ack_id, success, name, message)


def _read_strings(data: bytes, start: int, end: int, keys: Iterable[int]) -> list[str | None]:
    """The strings of a message under `keys`, in that order; None for one that is not there."""
    found = {
        key: read_text(data, first, last)
        for key, first, last in fields(data, start, end)
        if key in keys
    }
    return [found.get(key) for key in keys]


def _read_message(data: bytes, start: int, end: int) -> Downstream:
    source = ""
    group = sequence_id = None
    content: tuple[DataType, bytes] | None = DataType.TEXT, b""  # the end of a stream has none
    metadata: dict[str, str] = {}
    for key, first, last in fields(data, start, end):
        match key:
            case 0x0A:
                source = read_text(data, first, last)
            case 0x12:
                group = read_text(data, first, last)
            case 0x1A:
                content = _read_data(data, first, last)
            case 0x20:
                sequence_id = first
            case 0x2A:
                _read_entry(data, first, last, metadata)
    if source not in ("group", "server"):
        return Unknown(f"message from {source!r}")
    if content is None:
        return Unknown("message with data of a kind that is not known")
    return Message(source, content[1], group, content[0], sequence_id, metadata=metadata or None)


def _read_system(data: bytes, start: int, end: int) -> Downstream:
    frame: Downstream = Unknown("system message")
    for key, first, last in fields(data, start, end):
        if key == 0x0A:
            connection_id, user_id, token = _read_strings(data, first, last, (0x0A, 0x12, 0x1A))
            frame = Connected(connection_id or "", user_id or None, token)
        elif key == 0x12:
            (reason,) = _read_strings(data, first, last, (0x12,))
            frame = Disconnected(reason or "")
    return frame
