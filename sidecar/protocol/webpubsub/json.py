"""Frames to and from the JSON subprotocols: text messages, bytes as base64.

Source: "The Azure Web PubSub supported JSON WebSocket subprotocol" and its reliable sister
(Microsoft Learn, reference-json-webpubsub-subprotocol), Azure/azure-webpubsub client-spec.md.

A payload never passes through the JSON writer: the frame around it is written first and the
base64 text is spliced in as the last member, which halves the cost of large messages.
Upstream, the `type` is matched without regard to case, as the service does. A member that is
null counts as absent, except `data`, where null is refused.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any

from sidecar.errors import ProtocolError
from sidecar.protocol.webpubsub import payload
from sidecar.protocol.webpubsub.frames import (
    JSON_SUBPROTOCOL,
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

_MAX_UINT64 = (1 << 64) - 1
_DATA_TYPES = {data_type.value: data_type for data_type in DataType}
_ABSENT = object()
_write = json.JSONEncoder(separators=(",", ":")).encode

_Members = dict[str, Any]


class JsonCodec:
    """The JSON subprotocols, reliable or plain."""

    is_binary = False

    def __init__(self, subprotocol: str = JSON_SUBPROTOCOL) -> None:
        self.subprotocol = subprotocol

    def encode_upstream(self, frame: Upstream) -> str:
        match frame:
            case SendToGroup():
                return _spliced(_send_to_group(frame), frame.data_type, frame.data)
            case SequenceAck():
                return f'{{"type":"sequenceAck","sequenceId":{frame.sequence_id}}}'
            case JoinGroup():
                return _write(_membership("joinGroup", frame))
            case LeaveGroup():
                return _write(_membership("leaveGroup", frame))
            case SendEvent():
                members = {"type": "event", "event": frame.event, "ackId": frame.ack_id}
                return _spliced(_present(members), frame.data_type, frame.data)
            case Ping():
                return '{"type":"ping"}'
            case Unknown():
                raise TypeError(f"{frame!r} has no encoding")

    def encode_downstream(self, frame: Downstream) -> str:
        match frame:
            case Message():
                return self.template(frame)(frame.sequence_id)
            case Ack():
                return _write(_ack(frame))
            case Connected():
                return _write(_connected(frame))
            case Disconnected():
                return _write({"type": "system", "event": "disconnected", "message": frame.reason})
            case Pong():
                return '{"type":"pong"}'
            case Unknown():
                raise TypeError(f"{frame!r} has no encoding")

    def template(self, message: Message) -> Callable[[int | None], str]:
        members = {
            "type": "message",
            "from": message.source,
            "group": message.group,
            "fromUserId": message.from_user_id,
            "metadata": dict(message.metadata) if message.metadata else None,
        }
        text = _spliced(_present(members), message.data_type, message.data)

        def finish(sequence_id: int | None) -> str:
            if sequence_id is None:
                return text
            return f'{{"sequenceId":{sequence_id},{text[1:]}'

        return finish

    def decode_upstream(self, message: bytes | str) -> Upstream:
        members = _parse(message)
        kind = _string(members, "type")
        match kind.lower():
            case "sendtogroup":
                return _read_send_to_group(members)
            case "sequenceack":
                return SequenceAck(_number(members, "sequenceId"))
            case "joingroup":
                return JoinGroup(_string(members, "group"), _optional_number(members, "ackId"))
            case "leavegroup":
                return LeaveGroup(_string(members, "group"), _optional_number(members, "ackId"))
            case "event":
                return _read_event(members)
            case "ping":
                return Ping()
            case _:
                return Unknown(kind)

    def decode_downstream(self, message: bytes | str) -> Downstream:
        members = _parse(message)
        kind = _string(members, "type")
        match kind:
            case "message":
                return _read_message(members)
            case "ack":
                return _read_ack(members)
            case "system":
                return _read_system(members)
            case "pong":
                return Pong()
            case _:
                return Unknown(kind)

    def overhead(self, group: str, size: int) -> int:
        # Base64, and what a frame with the longest ack id and ttl has around it.
        return (size + 2) // 3 * 4 + len(_write(group)) + 128


# writing -----------------------------------------------------------------------------------


def _present(members: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in members.items() if value is not None}


def _spliced(members: Mapping[str, object], data_type: DataType, data: bytes) -> str:
    """The frame of `members` with `data` as its last member."""
    head = f'{_write(members)[:-1]},"dataType":"{data_type}","data":'
    if data_type is DataType.JSON:
        return "".join((head, data.decode(), "}"))
    if data_type is DataType.TEXT:
        return "".join((head, _write(data.decode()), "}"))
    return "".join((head, '"', binascii.b2a_base64(data, newline=False).decode("ascii"), '"}'))


def _membership(kind: str, frame: JoinGroup | LeaveGroup) -> dict[str, object]:
    return _present({"type": kind, "group": frame.group, "ackId": frame.ack_id})


def _send_to_group(frame: SendToGroup) -> dict[str, object]:
    members = {
        "type": "sendToGroup",
        "group": frame.group,
        "ackId": frame.ack_id,
        "noEcho": frame.no_echo,
        "ttlSeconds": frame.ttl,
        "metadata": dict(frame.metadata) if frame.metadata else None,
    }
    return _present(members)


def _ack(frame: Ack) -> dict[str, object]:
    members: dict[str, object] = {
        "type": "ack",
        "ackId": frame.ack_id,
        "success": frame.success,
    }
    if frame.error_name is not None:
        members["error"] = _present({"name": frame.error_name, "message": frame.error_message})
    return members


def _connected(frame: Connected) -> dict[str, object]:
    members = {
        "type": "system",
        "event": "connected",
        "userId": frame.user_id,
        "connectionId": frame.connection_id,
        "reconnectionToken": frame.reconnection_token,
    }
    return _present(members)


# reading -----------------------------------------------------------------------------------


def _parse(message: bytes | str) -> _Members:
    if isinstance(message, bytes):
        raise ProtocolError("a binary message; the JSON subprotocols use text ones")
    members = payload.parse_json(message)
    if not isinstance(members, dict):
        raise ProtocolError(f"a JSON {type(members).__name__}; expected an object")
    return members


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ProtocolError(f"{what} is {_shown(value)}; expected a string")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can escape half a surrogate pair, UTF-8 cannot carry it
        raise ProtocolError(f"{what} has half a surrogate pair; expected Unicode text") from None
    return value


def _string(members: _Members, name: str) -> str:
    return _text(members.get(name), f"{name!r}")


def _optional_string(members: _Members, name: str) -> str | None:
    return None if members.get(name) is None else _string(members, name)


def _number(members: _Members, name: str) -> int:
    value = members.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_UINT64:
        raise ProtocolError(f"{name!r} is {_shown(value)}; expected an integer of 64 bits")
    return value


def _optional_number(members: _Members, name: str) -> int | None:
    return None if members.get(name) is None else _number(members, name)


def _boolean(members: _Members, name: str, default: bool | None = None) -> bool:
    value = members.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, bool):
        raise ProtocolError(f"{name!r} is {_shown(value)}; expected true or false")
    return value


def _metadata(members: _Members) -> dict[str, str]:
    value = members.get("metadata")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ProtocolError(f"'metadata' is {_shown(value)}; expected an object")
    return {_text(key, "a metadata key"): _text(item, "metadata") for key, item in value.items()}


def _shown(value: object) -> str:
    """A value for a sentence, cut short: it may be a megabyte."""
    if isinstance(value, str):
        return repr(value[:40])
    if isinstance(value, dict | list):
        return f"a JSON {type(value).__name__}"
    return "absent or null" if value is None else str(value)[:40]


def _data_type(members: _Members) -> DataType | None:
    """The type of the data, JSON by default; None for one that we do not know."""
    name = _optional_string(members, "dataType")
    if name is None:
        return DataType.JSON
    return _DATA_TYPES.get(name.lower())


def _content(members: _Members) -> tuple[DataType, bytes] | None:
    """The payload; None if there is none or it is of a type that we do not know."""
    data_type = _data_type(members)
    value = members.get("data", _ABSENT)
    if data_type is None or value is _ABSENT:
        return None
    if value is None:
        raise ProtocolError("'data' is null; expected a value")
    if data_type is DataType.JSON:
        return data_type, _rewritten(value)
    text = _text(value, "'data'")
    if data_type is DataType.TEXT:
        return data_type, text.encode()
    try:
        return data_type, binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:  # binascii.Error, or characters that are not ASCII
        raise ProtocolError(f"'data' is not base64: {error}") from None


def _rewritten(value: object) -> bytes:
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except ValueError as error:  # a number such as 1e999 has become infinite
        raise ProtocolError(f"'data' cannot be passed on as JSON: {error}") from None


def _read_send_to_group(members: _Members) -> Upstream:
    if members.get("stream") is not None:
        return Unknown("stream start")
    metadata = _metadata(members)
    data_type, data = payload.required(_content(members), "sendToGroup", metadata)
    return SendToGroup(
        _string(members, "group"),
        data,
        _optional_number(members, "ackId"),
        data_type,
        _boolean(members, "noEcho", default=False),
        _optional_number(members, "ttlSeconds"),
        metadata or None,
    )


def _read_event(members: _Members) -> Upstream:
    if members.get("stream") is not None:
        return Unknown("stream start")
    data_type, data = payload.required(_content(members), "event", _metadata(members))
    event = _string(members, "event")
    return SendEvent(event, data, _optional_number(members, "ackId"), data_type)


def _read_ack(members: _Members) -> Ack:
    name = message = None
    error = members.get("error")
    if isinstance(error, dict):
        name = _optional_string(error, "name") or ""
        message = _optional_string(error, "message")
    return Ack(_number(members, "ackId"), _boolean(members, "success"), name, message)


def _read_message(members: _Members) -> Downstream:
    source = _string(members, "from")
    if source not in ("group", "server"):
        return Unknown(f"message from {source!r}")
    content = _content(members)
    if content is None:
        if "data" in members:
            return Unknown("message with data of a kind that is not known")
        content = DataType.TEXT, b""  # the end of a stream has none
    return Message(
        source,
        content[1],
        _optional_string(members, "group"),
        content[0],
        _optional_number(members, "sequenceId"),
        _optional_string(members, "fromUserId"),
        _metadata(members) or None,
    )


def _read_system(members: _Members) -> Downstream:
    match _string(members, "event"):
        case "connected":
            return Connected(
                _string(members, "connectionId"),
                _optional_string(members, "userId"),
                _optional_string(members, "reconnectionToken"),
            )
        case "disconnected":
            return Disconnected(_optional_string(members, "message") or "")
        case event:
            return Unknown(f"system event {event!r}")
