"""The codec of envelopes: literal bytes in both directions, and whatever may come from outside."""

from __future__ import annotations

import time

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.errors import CallError, Code, Invalid, ProtocolError, Retry, Started
from sidecar.protocol import envelope as wire

A, B, C, D = b"a" * 16, b"b" * 16, b"c" * 16, b"d" * 16
Z = b"z" * 32

# In the bytes, {A} is the id A, and so on.
LITERALS = [
    pytest.param(
        wire.Head(A, 70000, 3),
        "82 00 a3 00 50 {A} 01 1a 00 01 11 70 02 03",
        id="head",
    ),
    pytest.param(
        wire.Attach("c1", B, [1], [4194304, 128]),
        "82 01 a4 00 62 63 31 01 50 {B} 02 81 01 03 82 1a 00 40 00 00 18 80",
        id="attach",
    ),
    pytest.param(
        wire.Attach("c1", B, [1, 2], [4194304, 128], ["x"], C, 7, "platform"),
        "82 01 a8 00 62 63 31 01 50 {B} 02 82 01 02 03 82 1a 00 40 00 00 18 80 04 81 61 78 05 "
        "50 {C} 06 07 07 68 70 6c 61 74 66 6f 72 6d",
        id="attach-full",
    ),
    pytest.param(
        wire.Detach(),
        "82 02 a0",
        id="detach",
    ),
    pytest.param(
        wire.Call(A, "exec.run", b"\xa0"),
        "82 03 a3 00 50 {A} 01 68 65 78 65 63 2e 72 75 6e 02 41 a0",
        id="call",
    ),
    pytest.param(
        wire.Call(A, "exec.run", b"\xa0", 1048576, 5000, "00-1-2-01", "c1", D),
        "82 03 a8 00 50 {A} 01 68 65 78 65 63 2e 72 75 6e 02 41 a0 03 1a 00 10 00 00 04 19 13 "
        "88 05 69 30 30 2d 31 2d 32 2d 30 31 06 62 63 31 07 50 {D}",
        id="call-full",
    ),
    pytest.param(
        wire.Cancel(A),
        "82 04 a1 00 50 {A}",
        id="cancel",
    ),
    pytest.param(
        wire.Ask(A),
        "82 05 a1 00 50 {A}",
        id="ask",
    ),
    pytest.param(
        wire.Ask(A, {1: [100, 0, 1124]}),
        "82 05 a2 00 50 {A} 01 a1 01 83 18 64 00 19 04 64",
        id="ask-streams",
    ),
    pytest.param(
        wire.EventAck(9),
        "82 06 a1 00 09",
        id="event-ack",
    ),
    pytest.param(
        wire.Window(1, 2, 3, 4),
        "82 07 a4 00 01 01 02 02 03 03 04",
        id="window",
    ),
    pytest.param(
        wire.Attached(B, A, C, D, 2, 1, 8, 1, [4194304, 128]),
        "82 10 a9 00 50 {B} 01 50 {A} 02 50 {C} 03 50 {D} 04 02 05 01 06 08 07 01 08 82 1a 00 "
        "40 00 00 18 80",
        id="attached",
    ),
    pytest.param(
        wire.Attached(B, A, C, D, 2, 1, 8, 1, [4194304, 128], ["x"], {"calls": 256}),
        "82 10 ab 00 50 {B} 01 50 {A} 02 50 {C} 03 50 {D} 04 02 05 01 06 08 07 01 08 82 1a 00 "
        "40 00 00 18 80 09 81 61 78 0a a1 65 63 61 6c 6c 73 19 01 00",
        id="attached-full",
    ),
    pytest.param(
        wire.Accepted(A),
        "82 11 a1 00 50 {A}",
        id="accepted",
    ),
    pytest.param(
        wire.Result(A),
        "82 12 a1 00 50 {A}",
        id="result",
    ),
    pytest.param(
        wire.Result(A, b"\xa0", None, {1: [5, Z], 2: [0, None]}, 7),
        "82 12 a4 00 50 {A} 01 41 a0 03 a2 01 82 05 58 20 {Z} 02 82 00 f6 04 07",
        id="result-streams",
    ),
    pytest.param(
        wire.Result(A, error={"code": "limit"}),
        "82 12 a2 00 50 {A} 02 a1 64 63 6f 64 65 65 6c 69 6d 69 74",
        id="result-error",
    ),
    pytest.param(
        wire.State(A, "started", {0: 4}),
        "82 13 a3 00 50 {A} 01 67 73 74 61 72 74 65 64 02 a1 00 04",
        id="state",
    ),
    pytest.param(
        wire.Event(1, 1700000000000, "exec.started"),
        "82 14 a3 00 01 01 1b 00 00 01 8b cf e5 68 00 02 6c 65 78 65 63 2e 73 74 61 72 74 65 64",
        id="event",
    ),
    pytest.param(
        wire.Event(1, 1700000000000, "exec.started", A, {"pid": 7}),
        "82 14 a5 00 01 01 1b 00 00 01 8b cf e5 68 00 02 6c 65 78 65 63 2e 73 74 61 72 74 65 "
        "64 03 50 {A} 04 a1 63 70 69 64 07",
        id="event-call",
    ),
    pytest.param(
        wire.Gap(C, 1, "new_series"),
        "82 15 a3 00 50 {C} 01 01 03 6a 6e 65 77 5f 73 65 72 69 65 73",
        id="gap",
    ),
    pytest.param(
        wire.Gap(C, 1, "evicted", 9, 1000),
        "82 15 a5 00 50 {C} 01 01 03 67 65 76 69 63 74 65 64 02 09 04 19 03 e8",
        id="gap-full",
    ),
    pytest.param(
        wire.Refused(B, {"code": "limit"}),
        "82 16 a2 00 50 {B} 01 a1 64 63 6f 64 65 65 6c 69 6d 69 74",
        id="refused",
    ),
    pytest.param(
        wire.Credit(A, 1, 10, 2000),
        "82 18 21 a4 00 50 {A} 01 01 02 0a 03 19 07 d0",
        id="credit",
    ),
    pytest.param(
        wire.Credit(A, 1, 10, 2000, True),
        "82 18 21 a5 00 50 {A} 01 01 02 0a 03 19 07 d0 04 f5",
        id="credit-ended",
    ),
    pytest.param(
        wire.End(A, 1, 10, 0, Z),
        "82 18 22 a5 00 50 {A} 01 01 02 0a 03 00 04 58 20 {Z}",
        id="end",
    ),
    pytest.param(
        wire.Reset(A, 1, "cancelled"),
        "82 18 23 a3 00 50 {A} 01 01 02 69 63 61 6e 63 65 6c 6c 65 64",
        id="reset",
    ),
    pytest.param(
        wire.Reset(A, 1, "cancelled", "why"),
        "82 18 23 a4 00 50 {A} 01 01 02 69 63 61 6e 63 65 6c 6c 65 64 03 63 77 68 79",
        id="reset-why",
    ),
    pytest.param(
        wire.Rewind(A, 1, 10),
        "82 18 24 a3 00 50 {A} 01 01 02 0a",
        id="rewind",
    ),
    pytest.param(
        wire.Skip(A, 1, 10, 20),
        "82 18 25 a4 00 50 {A} 01 01 02 0a 03 14",
        id="skip",
    ),
    pytest.param(
        wire.Hello("r1", D, 2, [1]),
        "82 18 40 a4 00 62 72 31 01 50 {D} 02 02 03 81 01",
        id="hello",
    ),
    pytest.param(
        wire.Hello("r1", D, 2, [1], "pod", "isolated"),
        "82 18 40 a6 00 62 72 31 01 50 {D} 02 02 03 81 01 04 63 70 6f 64 05 68 69 73 6f 6c 61 "
        "74 65 64",
        id="hello-full",
    ),
    pytest.param(
        wire.Blocked(),
        "82 18 41 a0",
        id="blocked",
    ),
    pytest.param(
        wire.Blocked(A, 1, 10),
        "82 18 41 a3 00 50 {A} 01 01 02 0a",
        id="blocked-stream",
    ),
    pytest.param(
        wire.Unsupported(40),
        "82 18 42 a1 00 18 28",
        id="unsupported",
    ),
]

envelope_and_bytes = pytest.mark.parametrize("envelope, text", LITERALS)


def unspell(text: str) -> bytes:
    return bytes.fromhex(text.format(A=A.hex(), B=B.hex(), C=C.hex(), D=D.hex(), Z=Z.hex()))


@envelope_and_bytes
def test_an_envelope_becomes_these_bytes(envelope: wire.Envelope, text: str) -> None:
    assert wire.encode(envelope) == unspell(text)


@envelope_and_bytes
def test_these_bytes_become_an_envelope(envelope: wire.Envelope, text: str) -> None:
    assert wire.decode(unspell(text)) == [envelope]


def test_every_kind_has_its_literal_bytes() -> None:
    assert {type(row.values[0]) for row in LITERALS} == set(wire.TYPES)


def test_numbers_of_types_are_unique_and_only_hints_may_be_ignored() -> None:
    numbers = {kind.TYPE: kind for kind in wire.TYPES}
    assert len(numbers) == len(wire.TYPES)
    assert {kind for number, kind in numbers.items() if number >= wire.IGNORABLE} == {
        wire.Hello,
        wire.Blocked,
        wire.Unsupported,
    }


# stream data ----------------------------------------------------------------------------------


def test_stream_data_is_flat() -> None:
    encoded = unspell("85 18 20 50 {A} 01 19 01 2c 42 68 69")
    assert wire.encode_data(A, 1, 300, b"hi") == encoded
    assert wire.decode(encoded) == [wire.Data(A, 1, 300, b"hi")]


@pytest.mark.parametrize("number", [0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1])
def test_the_head_of_stream_data_is_what_cbor2_would_write(number: int) -> None:
    expected = cbor2.dumps([32, A, number, number, b"x" * 300])
    assert wire.encode_data(A, number, number, b"x" * 300) == expected
    assert wire.data_head(A, number, number, 300) + b"x" * 300 == expected


def test_an_offset_beyond_64_bits_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="does not fit in 64 bits"):
        wire.data_head(A, 1, 1 << 64, 0)


def test_stream_data_in_another_valid_form_is_read_just_the_same() -> None:
    long_form = unspell("9a 00 00 00 05 18 20 50 {A} 18 01 1b 00 00 00 00 00 00 00 02 58 01 78")
    assert wire.decode(long_form) == [wire.Data(A, 1, 2, b"x")]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("85 18 20 50 {A} 01 00 42 68", id="too-few-bytes"),
        pytest.param("85 18 20 50 {A} 01 00 5b ff ff ff ff ff ff ff ff 68", id="far-too-few"),
        pytest.param("85 18 20 50 {A} 01 00", id="no-bytes"),
        pytest.param("85 18 20 50 {A} 01 19 01", id="half-a-number"),
        pytest.param("85 18 20 50 {A} 1c 00 41 68", id="reserved-length"),
        pytest.param("85 18 20 50 {A} 1f 00 41 68", id="indefinite-number"),
        pytest.param("85 18 20 50 {A} 20 00 41 68", id="negative-stream"),
        pytest.param("85 18 20 50 {A} 01 00 61 68", id="text"),
        pytest.param("85 18 20 4f 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 01 00 40", id="id"),
        pytest.param("84 18 20 50 {A} 01 00", id="four-items"),
        pytest.param("82 18 20 a0", id="a-map"),
        pytest.param("86 18 20 50 {A} 01 00 40 00", id="six-items"),
    ],
)
def test_broken_stream_data_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        wire.decode(unspell(text))


# hub messages ---------------------------------------------------------------------------------


def test_a_message_holds_envelopes_of_all_kinds_in_order() -> None:
    envelopes = [wire.Head(A, 9, 1), wire.Cancel(B), wire.EventAck(7)]
    data = wire.encode_data(A, 1, 0, b"x" * 70_000)
    message = wire.join(envelopes[:2]) + data + data + wire.join(envelopes[2:]) + data
    big = wire.Data(A, 1, 0, b"x" * 70_000)
    assert wire.decode(message) == [*envelopes[:2], big, big, envelopes[2], big]


def test_an_empty_message_is_refused() -> None:
    with pytest.raises(ProtocolError, match="an empty hub message"):
        wire.decode(b"")


def test_one_broken_envelope_breaks_the_message() -> None:
    with pytest.raises(ProtocolError):
        wire.decode(wire.encode(wire.Detach()) + b"\x82\x04")


def test_a_type_that_is_not_known_is_told_apart() -> None:
    assert wire.decode(cbor2.dumps([40, {}])) == [wire.Strange(40)]
    assert wire.decode(cbor2.dumps([99, 1, 2, 3])) == [wire.Strange(99)]


def test_a_message_of_too_many_envelopes_is_refused() -> None:
    most = wire.encode(wire.Detach()) * wire.MAX_ENVELOPES
    assert len(wire.decode(most)) == 16_384
    with pytest.raises(ProtocolError, match="more than 16384 envelopes in one hub message"):
        wire.decode(most + wire.encode(wire.Detach()))


def test_defaults_that_can_change_are_not_shared() -> None:
    (first,) = wire.decode(wire.encode(wire.Ask(A)))
    (second,) = wire.decode(wire.encode(wire.Ask(A)))
    assert isinstance(first, wire.Ask)
    assert isinstance(second, wire.Ask)
    assert first.streams is not second.streams


@pytest.mark.parametrize(
    "item, sentence",
    [
        pytest.param(5, r"an envelope is \[type, map\], got int 5", id="a-number"),
        pytest.param([], r"an envelope is \[type, map\], got list \[\]", id="empty"),
        pytest.param([-1, {}], r"an envelope is \[type, map\]", id="negative-type"),
        pytest.param([True, {}], r"an envelope is \[type, map\]", id="true-is-no-type"),
        pytest.param([4], r"Cancel is \[4, map\], got list \[4\]", id="no-map"),
        pytest.param([4, [A]], r"Cancel is \[4, map\]", id="a-list"),
        pytest.param([4, {0: A}, 1], r"Cancel is \[4, map\]", id="three-items"),
        pytest.param([4, {}], "Cancel without its id", id="missing"),
        pytest.param([4, {0: b"short"}], "Cancel.id is 16 bytes, got bytes b'short'", id="short"),
        pytest.param([6, {0: -1}], "EventAck.seq is an unsigned integer, got int -1", id="sign"),
        pytest.param([6, {0: True}], "EventAck.seq is an unsigned integer, got bool", id="bool"),
        pytest.param([6, {0: 1.0}], "EventAck.seq is an unsigned integer, got float", id="float"),
        pytest.param([1, {0: A, 1: A, 2: [1], 3: [1, 2]}], "Attach.controller is text", id="text"),
        pytest.param([1, {0: "c", 1: A, 2: [1], 3: [1]}], "window is a list of two", id="window"),
        pytest.param([5, {0: A, 1: {1: [1, 2]}}], r"received, hashed from, limit", id="resume"),
        pytest.param([18, {0: A, 3: {1: [1, b"x"]}}], r"number to \[offset, digest\]", id="digest"),
        pytest.param([18, {0: A, 1: None}], "Result.value is a byte string", id="null"),
    ],
)
def test_what_is_wrong_is_said(item: object, sentence: str) -> None:
    with pytest.raises(ProtocolError, match=sentence):
        wire.decode(cbor2.dumps(item))


def test_a_sentence_never_shows_all_of_the_data() -> None:
    with pytest.raises(ProtocolError) as caught:
        wire.decode(cbor2.dumps([4, {0: b"secret" * 10_000}]))
    assert len(str(caught.value)) < 120


# hostile bytes --------------------------------------------------------------------------------

BOMBS = {
    "arrays": b"\x81" * 2_000_000,
    "maps": b"\xa1" * 2_000_000,
    "maps-as-keys": b"\x82\x03" + b"\xa1" * 2_000_000,
    "array-of-2-64": b"\x9b" + b"\xff" * 8,
    "array-of-2-31": b"\x9a\x7f\xff\xff\xff" + b"\x00" * 2_000_000,
    "bytes-of-2-62": b"\x5b\x3f" + b"\xff" * 7 + b"x" * 2_000_000,
    "text-of-2-40": b"\x7b\x00\x00\x01\x00\x00\x00\x00\x00" + b"x" * 2_000_000,
    "map-of-2-60": b"\xbb\x0f" + b"\xff" * 7,
    "numbers": b"\x00" * 2_000_000,
    "tiny-envelopes": b"\x81\x18\x63" * 666_666,
    "list-of-numbers": b"\x82\x00\x9a\x00\x1e\x84\x80" + b"\x00" * 2_000_000,
}


@pytest.mark.parametrize("bomb", [pytest.param(bomb, id=name) for name, bomb in BOMBS.items()])
def test_two_megabytes_of_malice_are_refused_quickly(bomb: bytes) -> None:
    start = time.perf_counter()
    with pytest.raises(ProtocolError):
        wire.decode(bomb)
    assert time.perf_counter() - start < 2.0  # it takes a tenth of that on a slow machine


@pytest.mark.parametrize("depth, is_fine", [(14, True), (15, False)])
def test_the_depth_of_an_envelope_is_bounded(depth: int, is_fine: bool) -> None:
    # The array and the map of the envelope are two levels of the sixteen.
    head = unspell("82 14 a4 00 01 01 02 02 61 65 04")
    message = head + b"\x81" * depth + b"\x00"
    if is_fine:
        assert isinstance(wire.decode(message)[0], wire.Event)
    else:
        with pytest.raises(ProtocolError, match="nesting depth"):
            wire.decode(message)


@pytest.mark.parametrize(
    "number",
    [*range(64), 100, 256, 258, 260, 261, 1004, 43000, 55799, 2**16, 2**32, 2**64 - 1],
)
@pytest.mark.parametrize("inner", ["80", "61 61", "41 61", "01", "82 01 02", "f5"])
def test_no_tag_is_accepted(number: int, inner: str) -> None:
    tag = bytes([0xDB]) + number.to_bytes(8, "big")
    message = unspell("82 14 a4 00 01 01 02 02 61 65 04") + tag + bytes.fromhex(inner)
    with pytest.raises(ProtocolError):
        wire.decode(message)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("9f 06 a1 00 01 ff", id="indefinite-array"),
        pytest.param("82 06 bf 00 01 ff", id="indefinite-map"),
        pytest.param(
            "82 04 a1 00 5f 48 61 61 61 61 61 61 61 61 48 61 61 61 61 61 61 61 61 ff", id="pieces"
        ),
        pytest.param("82 06 a2 00 01 00 01", id="duplicate-key"),
        pytest.param("82 01 a1 00 62 ff ff", id="not-utf-8"),
        pytest.param("82 01 a1 00 63 ed a0 80", id="a-lone-surrogate"),
        pytest.param("ff", id="break"),
        pytest.param("fc", id="reserved"),
        pytest.param("82 06", id="cut-off"),
    ],
)
def test_what_cbor_allows_and_we_do_not_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        wire.decode(unspell(text))


def decode_or_refuse(message: bytes) -> list[wire.Any_]:
    try:
        return wire.decode(message)
    except ProtocolError:
        return []


@given(message=st.binary(max_size=200))
@example(message=b"\x82\x18\x40\xa1\xa0\x00")
@example(message=b"\x82\x18\x40\xa1\xf9\x7e\x00\x00")
def test_any_bytes_are_envelopes_or_a_protocol_error(message: bytes) -> None:
    for envelope in decode_or_refuse(message):
        if isinstance(envelope, wire.Envelope):
            assert wire.decode(wire.encode(envelope)) == [envelope]


@given(data=st.data())
def test_damaged_envelopes_are_envelopes_or_a_protocol_error(data: st.DataObject) -> None:
    row = data.draw(st.sampled_from(LITERALS))
    message = bytearray(unspell(str(row.values[1])))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(message) - 1))
        message[place] = data.draw(st.integers(0, 255))
    decode_or_refuse(bytes(message))


# plain values ---------------------------------------------------------------------------------


def test_a_plain_value_comes_back() -> None:
    value = {"argv": ["true"], "stdin": b"\x00", "timeout": 1.5, "cwd": None, "live": True}
    assert wire.loads(wire.dumps(value)) == value


@pytest.mark.parametrize("data", [b"", b"\xa1", b"\xff", b"\x81" * 20, b"\xc0\x61a"])
def test_a_broken_value_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.loads(data)


def test_bytes_after_a_value_are_refused() -> None:
    with pytest.raises(ProtocolError, match="2 bytes after the end of a CBOR value"):
        wire.loads(b"\xa0\x00\x00")


@given(data=st.binary(max_size=100))
def test_any_bytes_are_a_value_or_a_protocol_error(data: bytes) -> None:
    try:
        wire.loads(data)
    except ProtocolError:
        return


# errors ---------------------------------------------------------------------------------------


def test_an_error_travels_with_its_details() -> None:
    error = Invalid("no such signal", signal="KIL", started=Started.YES)
    assert wire.error_map(error) == {
        "code": "invalid",
        "message": "no such signal",
        "started": "yes",
        "retry": "never",
        "details": {"signal": "KIL"},
    }
    there = wire.error_from(wire.error_map(error))
    assert (there.code, there.message) == (Code.INVALID, "no such signal")
    assert (there.started, there.retry) == (Started.YES, Retry.NEVER)
    assert there.details == {"signal": "KIL"}


def test_a_code_of_a_later_version_counts_as_internal() -> None:
    error = wire.error_from({"code": "too_green", "message": "it is", "retry": "perhaps"})
    assert (error.code, error.message) == (Code.INTERNAL, "it is")
    assert (error.started, error.retry) == (Started.UNKNOWN, Retry.NEVER)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"code": [], "message": 5, "started": {}, "retry": b"x", "details": 7},
        {1: 2, b"x": None},
    ],
)
def test_an_error_of_a_careless_peer_is_still_an_error(content: dict[str, object]) -> None:
    assert wire.error_from(content).code is Code.INTERNAL


def test_details_may_be_called_like_anything() -> None:
    details = {"started": 1, "code": 2, "self": 3, "message": 4, "retry": 5}
    error = wire.error_from({"code": "limit", "message": "m", "details": details})
    assert error.details == details
    assert error.message == "m"


def test_the_sentence_of_an_error_is_bounded_and_always_encodable() -> None:
    long = wire.error_map(CallError(Code.INVALID, "x" * 1_000_000))
    assert long["message"] == "x" * 1997 + "..."
    odd = wire.error_map(CallError(Code.INVALID, "name \udcff"))
    assert odd["message"] == "name \\udcff"
    assert wire.decode(wire.encode(wire.Result(A, error=odd)))
