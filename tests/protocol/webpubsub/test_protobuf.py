"""The protobuf codec against literal bytes, itself, and garbage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ProtocolError
from sidecar.protocol.webpubsub.frames import (
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
from sidecar.protocol.webpubsub.protobuf import ProtobufCodec

codec = ProtobufCodec()

# Keys, lengths and values in hexadecimal; a blank stands between the fields.
UPSTREAM = [
    pytest.param(
        SendToGroup("out.sb1", b"\0\1\2", ack_id=7, no_echo=True),
        "0a14 0a07 6f75742e736231 1007 1a05 1203 000102 2001",
        id="send",
    ),
    pytest.param(
        SendToGroup("g", b"hi", data_type=DataType.TEXT, ttl=60, metadata={"a": "b"}),
        "0a13 0a0167 1a04 0a02 6869 283c 3206 0a0161 120162",
        id="send-text-ttl-metadata",
    ),
    pytest.param(
        SendToGroup("g", b"{}", ack_id=0, data_type=DataType.JSON),
        "0a0b 0a0167 1000 1a04 2202 7b7d",
        id="send-json-ack-zero",
    ),
    pytest.param(
        SendToGroup("g", b"\x0a\x00", data_type=DataType.PROTOBUF),
        "0a09 0a0167 1a04 1a02 0a00",
        id="send-protobuf",
    ),
    pytest.param(SendToGroup("g", b""), "0a07 0a0167 1a02 1200", id="send-nothing"),
    pytest.param(SendEvent("e", b"\1", ack_id=2), "2a0a 0a0165 1203 1201 01 1802", id="event"),
    pytest.param(JoinGroup("g", 1), "3205 0a0167 1001", id="join"),
    pytest.param(JoinGroup("g"), "3203 0a0167", id="join-without-ack"),
    pytest.param(
        LeaveGroup("g", 2**64 - 1), "3a0e 0a0167 10ffffffffffffffffff01", id="leave-largest-ack"
    ),
    pytest.param(SequenceAck(300), "4203 08ac02", id="sequence-ack"),
    pytest.param(Ping(), "4a00", id="ping"),
]

DOWNSTREAM = [
    pytest.param(Ack(7, True), "0a04 0807 1001", id="ack"),
    pytest.param(
        Ack(7, False, "Forbidden", "no"),
        "0a13 0807 1a0f 0a09 466f7262696464656e 1202 6e6f",
        id="ack-failed",
    ),
    pytest.param(
        Connected("c1", "sb-1", "rt"), "1a10 0a0e 0a026331 120473622d31 1a027274", id="connected"
    ),
    pytest.param(Connected("c1"), "1a06 0a04 0a026331", id="connected-anonymous"),
    pytest.param(Disconnected("bye"), "1a07 1205 1203 627965", id="disconnected"),
    pytest.param(
        Message("group", b"\0\1", group="in.a", sequence_id=41),
        "1215 0a0567726f7570 1204696e2e61 1a0412020001 2029",
        id="group-message",
    ),
    pytest.param(
        Message("server", b"1", data_type=DataType.JSON, metadata={"k": ""}),
        "1212 0a06736572766572 1a03220131 2a03 0a016b",
        id="server-message",
    ),
    pytest.param(Pong(), "2200", id="pong"),
]


@pytest.mark.parametrize("frame, wire", UPSTREAM)
def test_upstream_frame_and_wire(frame: Upstream, wire: str) -> None:
    assert codec.encode_upstream(frame).hex() == wire.replace(" ", "")
    assert codec.decode_upstream(bytes.fromhex(wire)) == frame


@pytest.mark.parametrize("frame, wire", DOWNSTREAM)
def test_downstream_frame_and_wire(frame: Downstream, wire: str) -> None:
    assert codec.encode_downstream(frame).hex() == wire.replace(" ", "")
    assert codec.decode_downstream(bytes.fromhex(wire)) == frame


def test_a_template_differs_only_in_its_last_field() -> None:
    finish = codec.template(Message("group", b"\0\1", group="in.a"))
    assert finish(None).hex(" ", -32) == "12130a0567726f75701204696e2e611a0412020001"
    assert finish(41).hex(" ", -32) == "12150a0567726f75701204696e2e611a04120200012029"


def test_fields_in_another_order_and_unknown_ones_are_read() -> None:
    # sequence_id first, then a fixed64, a fixed32 and a varint nobody knows.
    wire = "121e 2029 790102030405060708 7d01020304 7001 1a03120107 0a0567726f7570"
    assert codec.decode_downstream(bytes.fromhex(wire)) == Message("group", b"\7", sequence_id=41)


def test_the_last_of_repeated_fields_counts() -> None:
    wire = "3206 0a0167 0a0168"
    assert codec.decode_upstream(bytes.fromhex(wire)) == JoinGroup("h")


def test_metadata_without_data_is_empty_text() -> None:
    wire = "0a0b 0a0167 3206 0a0161 120162"
    assert codec.decode_upstream(bytes.fromhex(wire)) == SendToGroup(
        "g", b"", data_type=DataType.TEXT, metadata={"a": "b"}
    )


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param("5200", id="invoke"),
        pytest.param("6a020a00", id="stream-data"),
        pytest.param("8a0100", id="two-byte-key"),
        pytest.param("0a05 0a0167 3a00", id="stream-start"),
        pytest.param("2a05 0a0165 2a00", id="stream-start-event"),
    ],
)
def test_upstream_kinds_we_do_not_know_are_unknown(wire: str) -> None:
    assert isinstance(codec.decode_upstream(bytes.fromhex(wire)), Unknown)


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param("2a00", id="invoke-response"),
        pytest.param("1a00", id="system"),
        pytest.param("1a021a00", id="system-kind"),
        pytest.param("1209 0a0378797a 1a021200", id="source"),
        pytest.param("120b 0a0567726f7570 1a02 2a00", id="data-kind"),
    ],
)
def test_downstream_kinds_we_do_not_know_are_unknown(wire: str) -> None:
    assert isinstance(codec.decode_downstream(bytes.fromhex(wire)), Unknown)


def test_an_unknown_kind_beside_a_known_one_is_passed_over() -> None:
    assert codec.decode_downstream(bytes.fromhex("2200 7a00")) == Pong()
    assert codec.decode_downstream(bytes.fromhex("7a00 2200")) == Pong()


@pytest.mark.parametrize(
    "wire, sentence",
    [
        pytest.param("", "without content", id="empty"),
        pytest.param("0a", "does not end", id="cut-after-key"),
        pytest.param("0a05 0a0167", "ends at offset 7", id="cut-in-message"),
        pytest.param("3204 0a0567 00", "its message at 6", id="field-leaves-message"),
        pytest.param("ff" * 11, "does not end", id="endless-varint"),
        pytest.param("0200", "field number 0", id="field-zero"),
        pytest.param("0b", "wire type 3", id="group"),
        pytest.param("3203 0a01ff", "not UTF-8", id="not-utf8"),
        pytest.param("0a03 0a0167", "without data", id="no-data"),
        pytest.param("0a05 0a0167 1a00", "without data", id="no-kind-of-data"),
        pytest.param("0a08 0a0167 1a03 0a01ff", "text data", id="text-not-utf8"),
        pytest.param("0a08 0a0167 1a03 22017b", "not JSON", id="json-not-json"),
        pytest.param("0a0a 0a0167 1a05 22034e614e", "NaN", id="json-nan"),
    ],
)
def test_broken_upstream_messages_are_refused(wire: str, sentence: str) -> None:
    with pytest.raises(ProtocolError, match=sentence):
        codec.decode_upstream(bytes.fromhex(wire))


def test_text_messages_are_refused() -> None:
    with pytest.raises(ProtocolError, match="text message"):
        codec.decode_downstream("{}")


def test_unknown_frames_cannot_be_sent() -> None:
    with pytest.raises(TypeError):
        codec.encode_upstream(Unknown("x"))
    with pytest.raises(TypeError):
        codec.encode_downstream(Unknown("x"))


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
metadata = st.none() | st.dictionaries(names, names, min_size=1)
ids = st.none() | st.integers(0, 2**64 - 1)


@given(names, st.binary(), ids, st.booleans(), st.none() | st.integers(0, 300), metadata)
def test_any_send_survives_the_round_trip(
    group: str,
    data: bytes,
    ack_id: int | None,
    no_echo: bool,
    ttl: int | None,
    about: dict[str, str] | None,
) -> None:
    frame = SendToGroup(group, data, ack_id, DataType.BINARY, no_echo, ttl, about)
    wire = codec.encode_upstream(frame)
    assert codec.decode_upstream(wire) == frame
    if not about:
        assert len(wire) <= codec.overhead(group, len(data))


@given(names, st.binary(), ids, metadata)
def test_any_message_survives_the_round_trip(
    group: str, data: bytes, sequence_id: int | None, about: dict[str, str] | None
) -> None:
    frame = Message("group", data, group, sequence_id=sequence_id, metadata=about)
    assert codec.decode_downstream(codec.encode_downstream(frame)) == frame


@given(st.binary(max_size=64))
def test_garbage_is_read_or_refused_and_nothing_else(garbage: bytes) -> None:
    for decode in (codec.decode_upstream, codec.decode_downstream):
        try:
            decode(garbage)
        except ProtocolError as error:
            assert str(error)
