"""Azure Web PubSub's subprotocols: frames, and two encodings of them.

Four names, two codecs: the reliable subprotocols number what the service sends and can recover
a dropped connection; the plain ones cannot, but their frames look the same.
"""

from __future__ import annotations

from sidecar.errors import ProtocolError
from sidecar.protocol.webpubsub.frames import JSON_SUBPROTOCOL, PROTOBUF_SUBPROTOCOL, Codec
from sidecar.protocol.webpubsub.json import JsonCodec
from sidecar.protocol.webpubsub.protobuf import ProtobufCodec

JSON_PLAIN_SUBPROTOCOL = "json.webpubsub.azure.v1"
PROTOBUF_PLAIN_SUBPROTOCOL = "protobuf.webpubsub.azure.v1"

RELIABLE_SUBPROTOCOLS = frozenset({JSON_SUBPROTOCOL, PROTOBUF_SUBPROTOCOL})

_CODECS: dict[str, type[JsonCodec] | type[ProtobufCodec]] = {
    JSON_SUBPROTOCOL: JsonCodec,
    JSON_PLAIN_SUBPROTOCOL: JsonCodec,
    PROTOBUF_SUBPROTOCOL: ProtobufCodec,
    PROTOBUF_PLAIN_SUBPROTOCOL: ProtobufCodec,
}

SUBPROTOCOLS = tuple(_CODECS)


def codec_for(subprotocol: str) -> Codec:
    """The codec of a subprotocol, whose name is matched without regard to case."""
    name = subprotocol.lower()
    if name not in _CODECS:
        raise ProtocolError(f"subprotocol {subprotocol!r}; expected one of {', '.join(_CODECS)}")
    return _CODECS[name](name)
