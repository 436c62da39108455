"""Which subprotocol is spoken by which codec."""

from __future__ import annotations

import pytest

from sidecar.errors import ProtocolError
from sidecar.protocol.webpubsub import codec_for
from sidecar.protocol.webpubsub.json import JsonCodec
from sidecar.protocol.webpubsub.protobuf import ProtobufCodec


@pytest.mark.parametrize(
    "name, kind, is_binary",
    [
        ("json.reliable.webpubsub.azure.v1", JsonCodec, False),
        ("json.webpubsub.azure.v1", JsonCodec, False),
        ("protobuf.reliable.webpubsub.azure.v1", ProtobufCodec, True),
        ("protobuf.webpubsub.azure.v1", ProtobufCodec, True),
    ],
)
def test_each_subprotocol_has_its_codec(name: str, kind: type, is_binary: bool) -> None:
    codec = codec_for(name)
    assert isinstance(codec, kind)
    assert codec.subprotocol == name
    assert codec.is_binary is is_binary


def test_the_name_is_matched_without_regard_to_case() -> None:
    assert codec_for("JSON.webpubsub.azure.V1").subprotocol == "json.webpubsub.azure.v1"


def test_another_subprotocol_is_refused_by_name() -> None:
    with pytest.raises(ProtocolError, match=r"mqtt.*expected one of json\.reliable"):
        codec_for("mqtt")
