"""The frames of Azure Web PubSub's reliable subprotocols, free of their encoding.

Source: Azure/azure-webpubsub, protocols/client/client-spec.md and
protocols/protobuf.webpubsub.azure.v1/webpubsub.v1.proto.

One frame is one WebSocket message. `json` and `protobuf` beside this file turn frames
into text or binary messages and back; both know both directions, because the embedded
hub speaks the other side. A frame of a kind that is not listed here decodes to `Unknown`
and is ignored by clients (the service adds kinds); a frame that cannot be parsed raises
`ProtocolError`.

Payloads are always `bytes`; `data_type` says what the sender called them. What we send
ourselves is always BINARY.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Protocol

from sidecar.protocol.record import Record, record

MAX_MESSAGE = 1_000_000  # bytes of one WebSocket message; the service says "1 MB"

JSON_SUBPROTOCOL = "json.reliable.webpubsub.azure.v1"
PROTOBUF_SUBPROTOCOL = "protobuf.reliable.webpubsub.azure.v1"


class DataType(StrEnum):
    """How the sender labelled a payload."""

    BINARY = "binary"
    TEXT = "text"
    JSON = "json"
    PROTOBUF = "protobuf"


# client to service -----------------------------------------------------------------------


@record
class JoinGroup(Record):
    group: str
    ack_id: int | None = None


@record
class LeaveGroup(Record):
    group: str
    ack_id: int | None = None


@record
class SendToGroup(Record):
    group: str
    data: bytes
    ack_id: int | None = None
    data_type: DataType = DataType.BINARY
    no_echo: bool = False
    ttl: int | None = None  # seconds, 0 to 300; 0 or None = no limit
    metadata: Mapping[str, str] | None = None


@record
class SendEvent(Record):
    """A custom event for the hub's event handler; the sidecar sends none."""

    event: str
    data: bytes
    ack_id: int | None = None
    data_type: DataType = DataType.BINARY


@record
class SequenceAck(Record):
    sequence_id: int


@record
class Ping(Record):
    pass


# service to client -----------------------------------------------------------------------


@record
class Connected(Record):
    """May come at any time; the newest reconnection token is the one to keep."""

    connection_id: str
    user_id: str | None = None
    reconnection_token: str | None = None


@record
class Disconnected(Record):
    reason: str = ""


@record
class Ack(Record):
    ack_id: int
    success: bool
    error_name: str | None = None
    error_message: str | None = None


@record
class Message(Record):
    """Data. `source` is "group" or "server" and set by the service: it cannot be forged."""

    source: str
    data: bytes
    group: str | None = None
    data_type: DataType = DataType.BINARY
    sequence_id: int | None = None
    from_user_id: str | None = None  # JSON only
    metadata: Mapping[str, str] | None = None


@record
class Pong(Record):
    pass


@record
class Unknown(Record):
    """A kind of frame that this version does not know."""

    kind: str


Upstream = JoinGroup | LeaveGroup | SendToGroup | SendEvent | SequenceAck | Ping | Unknown
Downstream = Connected | Disconnected | Ack | Message | Pong | Unknown


class Codec(Protocol):
    """Frames to WebSocket messages and back. JSON travels as text, protobuf as binary."""

    subprotocol: str
    is_binary: bool

    def encode_upstream(self, frame: Upstream) -> bytes | str: ...
    def encode_downstream(self, frame: Downstream) -> bytes | str: ...
    def decode_upstream(self, message: bytes | str) -> Upstream: ...
    def decode_downstream(self, message: bytes | str) -> Downstream: ...

    def overhead(self, group: str, size: int) -> int:
        """Upper bound of the encoded size of a `SendToGroup` of `size` bytes to `group`."""
        ...

    def template(self, message: Message) -> Callable[[int | None], bytes | str]:
        """`message` for many receivers: encoded once, then finished by each sequence id.

        The `sequence_id` of `message` itself is ignored.
        """
        ...
