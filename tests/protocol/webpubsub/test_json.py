"""The JSON codec against literal text, itself, and garbage."""

from __future__ import annotations

import json

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
from sidecar.protocol.webpubsub.json import JsonCodec

codec = JsonCodec()

UPSTREAM = [
    pytest.param(
        SendToGroup("out.a", b"\0\1\2", ack_id=3, no_echo=True),
        '{"type":"sendToGroup","group":"out.a","ackId":3,"noEcho":true,'
        '"dataType":"binary","data":"AAEC"}',
        id="send",
    ),
    pytest.param(
        SendToGroup("g", b'a"b', data_type=DataType.TEXT, ttl=60, metadata={"a": "b"}),
        '{"type":"sendToGroup","group":"g","noEcho":false,"ttlSeconds":60,'
        '"metadata":{"a":"b"},"dataType":"text","data":"a\\"b"}',
        id="send-text-ttl-metadata",
    ),
    pytest.param(
        SendToGroup("g", b'{"a":[1,null]}', ack_id=0, data_type=DataType.JSON),
        '{"type":"sendToGroup","group":"g","ackId":0,"noEcho":false,'
        '"dataType":"json","data":{"a":[1,null]}}',
        id="send-json-ack-zero",
    ),
    pytest.param(
        SendToGroup("g", b"\x0a\x00", data_type=DataType.PROTOBUF),
        '{"type":"sendToGroup","group":"g","noEcho":false,"dataType":"protobuf","data":"CgA="}',
        id="send-protobuf",
    ),
    pytest.param(
        SendEvent("e", b"\1", ack_id=2),
        '{"type":"event","event":"e","ackId":2,"dataType":"binary","data":"AQ=="}',
        id="event",
    ),
    pytest.param(JoinGroup("g", 1), '{"type":"joinGroup","group":"g","ackId":1}', id="join"),
    pytest.param(JoinGroup("g"), '{"type":"joinGroup","group":"g"}', id="join-without-ack"),
    pytest.param(
        LeaveGroup("g", 2**64 - 1),
        '{"type":"leaveGroup","group":"g","ackId":18446744073709551615}',
        id="leave-largest-ack",
    ),
    pytest.param(SequenceAck(300), '{"type":"sequenceAck","sequenceId":300}', id="sequence-ack"),
    pytest.param(Ping(), '{"type":"ping"}', id="ping"),
]

DOWNSTREAM = [
    pytest.param(Ack(7, True), '{"type":"ack","ackId":7,"success":true}', id="ack"),
    pytest.param(
        Ack(7, False, "Forbidden", "no"),
        '{"type":"ack","ackId":7,"success":false,"error":{"name":"Forbidden","message":"no"}}',
        id="ack-failed",
    ),
    pytest.param(
        Connected("c1", "sb-1", "rt"),
        '{"type":"system","event":"connected","userId":"sb-1","connectionId":"c1",'
        '"reconnectionToken":"rt"}',
        id="connected",
    ),
    pytest.param(
        Connected("c1"), '{"type":"system","event":"connected","connectionId":"c1"}', id="anonymous"
    ),
    pytest.param(
        Disconnected("bye"),
        '{"type":"system","event":"disconnected","message":"bye"}',
        id="disconnected",
    ),
    pytest.param(
        Message("group", b"\0\1\2", group="out.a", sequence_id=41, from_user_id="u"),
        '{"sequenceId":41,"type":"message","from":"group","group":"out.a","fromUserId":"u",'
        '"dataType":"binary","data":"AAEC"}',
        id="group-message",
    ),
    pytest.param(
        Message("server", b"[1]", data_type=DataType.JSON, metadata={"k": ""}),
        '{"type":"message","from":"server","metadata":{"k":""},"dataType":"json","data":[1]}',
        id="server-message",
    ),
    pytest.param(Pong(), '{"type":"pong"}', id="pong"),
]


@pytest.mark.parametrize("frame, text", UPSTREAM)
def test_upstream_frame_and_text(frame: Upstream, text: str) -> None:
    assert codec.encode_upstream(frame) == text
    assert codec.decode_upstream(text) == frame


@pytest.mark.parametrize("frame, text", DOWNSTREAM)
def test_downstream_frame_and_text(frame: Downstream, text: str) -> None:
    assert codec.encode_downstream(frame) == text
    assert codec.decode_downstream(text) == frame


def test_data_is_json_unless_the_sender_says_otherwise() -> None:
    frame = codec.decode_upstream('{"type":"sendToGroup","group":"g","data":{"a": 1.5}}')
    assert frame == SendToGroup("g", b'{"a":1.5}', data_type=DataType.JSON)


def test_the_type_is_matched_without_regard_to_case() -> None:
    assert codec.decode_upstream('{"type":"JOINGROUP","group":"G"}') == JoinGroup("G")


def test_null_counts_as_absent() -> None:
    frame = codec.decode_upstream('{"type":"joinGroup","group":"g","ackId":null}')
    assert frame == JoinGroup("g")
    text = '{"type":"system","event":"connected","connectionId":"c","userId":null}'
    assert codec.decode_downstream(text) == Connected("c")


def test_metadata_without_data_is_empty_text() -> None:
    frame = codec.decode_upstream('{"type":"sendToGroup","group":"g","metadata":{"a":"b"}}')
    assert frame == SendToGroup("g", b"", data_type=DataType.TEXT, metadata={"a": "b"})


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"invoke","invocationId":"7"}',
        '{"type":"sendToGroup","group":"g","stream":{"streamId":"f"}}',
    ],
)
def test_upstream_kinds_we_do_not_know_are_unknown(text: str) -> None:
    assert isinstance(codec.decode_upstream(text), Unknown)


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"streamAck","streamId":"f1","expectedSequenceId":2}',
        '{"type":"system","event":"weather"}',
        '{"type":"message","from":"moon","data":1}',
        '{"type":"message","from":"server","dataType":"cbor","data":"AA=="}',
    ],
)
def test_downstream_kinds_we_do_not_know_are_unknown(text: str) -> None:
    assert isinstance(codec.decode_downstream(text), Unknown)


@pytest.mark.parametrize(
    "text, sentence",
    [
        pytest.param("", "not JSON", id="empty"),
        pytest.param("{", "not JSON", id="cut"),
        pytest.param("[" * 100_000, "not JSON", id="deep"),
        pytest.param("[]", "expected an object", id="array"),
        pytest.param("{}", "'type' is absent", id="no-type"),
        pytest.param('{"type":7}', "'type' is 7", id="type-number"),
        pytest.param('{"type":"joinGroup"}', "'group' is absent", id="no-group"),
        pytest.param('{"type":"joinGroup","group":"\\ud800"}', "surrogate", id="half-a-pair"),
        pytest.param('{"type":"joinGroup","group":"g","ackId":-1}', "-1", id="negative"),
        pytest.param('{"type":"joinGroup","group":"g","ackId":true}', "True", id="boolean-id"),
        pytest.param(
            '{"type":"sequenceAck","sequenceId":18446744073709551616}', "64 bits", id="too-large"
        ),
        pytest.param('{"type":"sendToGroup","group":"g"}', "without data", id="no-data"),
        pytest.param('{"type":"sendToGroup","group":"g","data":null}', "null", id="data-null"),
        pytest.param('{"type":"sendToGroup","group":"g","data":NaN}', "NaN", id="nan"),
        pytest.param('{"type":"sendToGroup","group":"g","data":1e999}', "passed on", id="infinite"),
        pytest.param(
            '{"type":"sendToGroup","group":"g","dataType":"text","data":1}', "string", id="text"
        ),
        pytest.param(
            '{"type":"sendToGroup","group":"g","dataType":"binary","data":"AA"}',
            "not base64",
            id="no-padding",
        ),
        pytest.param(
            '{"type":"sendToGroup","group":"g","dataType":"binary","data":"A A=="}',
            "not base64",
            id="blank-in-base64",
        ),
        pytest.param(
            '{"type":"sendToGroup","group":"g","dataType":"binary","data":"é==="}',
            "not base64",
            id="not-ascii",
        ),
        pytest.param(
            '{"type":"sendToGroup","group":"g","data":1,"noEcho":"yes"}', "true or", id="no-echo"
        ),
        pytest.param(
            '{"type":"sendToGroup","group":"g","data":1,"metadata":{"a":1}}',
            "string",
            id="metadata",
        ),
    ],
)
def test_broken_upstream_messages_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(ProtocolError, match=sentence):
        codec.decode_upstream(text)


def test_binary_messages_are_refused() -> None:
    with pytest.raises(ProtocolError, match="binary message"):
        codec.decode_upstream(b"{}")


def test_unknown_frames_cannot_be_sent() -> None:
    with pytest.raises(TypeError):
        codec.encode_upstream(Unknown("x"))
    with pytest.raises(TypeError):
        codec.encode_downstream(Unknown("x"))


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
metadata = st.none() | st.dictionaries(names, names, min_size=1)
ids = st.none() | st.integers(0, 2**64 - 1)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
).filter(lambda value: value is not None)
contents = (
    st.tuples(st.just(DataType.BINARY), st.binary())
    | st.tuples(st.just(DataType.PROTOBUF), st.binary())
    | st.tuples(st.just(DataType.TEXT), names.map(str.encode))
    | st.tuples(
        st.just(DataType.JSON), values.map(lambda v: json.dumps(v, separators=(",", ":")).encode())
    )
)


@given(names, contents, ids, st.booleans(), st.none() | st.integers(0, 300), metadata)
def test_any_send_survives_the_round_trip(
    group: str,
    content: tuple[DataType, bytes],
    ack_id: int | None,
    no_echo: bool,
    ttl: int | None,
    about: dict[str, str] | None,
) -> None:
    data_type, data = content
    frame = SendToGroup(group, data, ack_id, data_type, no_echo, ttl, about)
    text = codec.encode_upstream(frame)
    assert codec.decode_upstream(text) == frame
    if data_type is DataType.BINARY and not about:
        assert len(text.encode()) <= codec.overhead(group, len(data))


@given(names, contents, ids, metadata)
def test_any_message_survives_the_round_trip(
    group: str,
    content: tuple[DataType, bytes],
    sequence_id: int | None,
    about: dict[str, str] | None,
) -> None:
    data_type, data = content
    frame = Message("group", data, group, data_type, sequence_id, "u", about)
    assert codec.decode_downstream(codec.encode_downstream(frame)) == frame


@given(st.text(max_size=64) | values.map(json.dumps))
def test_garbage_is_read_or_refused_and_nothing_else(garbage: str) -> None:
    for decode in (codec.decode_upstream, codec.decode_downstream):
        try:
            decode(garbage)
        except ProtocolError as error:
            assert str(error)
