"""`wire.cddl` and the codec say the same: what one makes, the other accepts."""

from __future__ import annotations

import re
from importlib import resources

import cbor2
import pycddl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import CallError, Code, ProtocolError, Started
from sidecar.protocol import envelope as wire

TEXT = (resources.files("sidecar.protocol") / "wire.cddl").read_text()
SCHEMA = pycddl.Schema(TEXT)

ID = st.binary(min_size=16, max_size=16)
DIGEST = st.binary(min_size=32, max_size=32)
UINT = st.integers(0, (1 << 64) - 1)
WORD = st.text(max_size=20)
WORDS = st.lists(WORD, max_size=3)
WINDOW = st.lists(UINT, min_size=2, max_size=2)
VERSIONS = st.lists(UINT, min_size=1, max_size=3)
PLAIN = st.recursive(
    st.none() | st.booleans() | UINT | WORD | st.binary(max_size=20) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORD, inner, max_size=3),
    max_leaves=6,
)
CBOR = PLAIN.map(cbor2.dumps)
ERROR = st.builds(
    lambda code, started: wire.error_map(CallError(code, "a sentence", started=started, size=8)),
    st.sampled_from(Code),
    st.sampled_from(Started),
)
NONE = st.none()

KINDS: dict[type[wire.Envelope], st.SearchStrategy[wire.Envelope]] = {
    wire.Head: st.builds(wire.Head, ID, UINT, UINT),
    wire.Attach: st.builds(
        wire.Attach, WORD, ID, VERSIONS, WINDOW, WORDS, NONE | ID, NONE | UINT, NONE | WORD
    ),
    wire.Detach: st.builds(wire.Detach),
    wire.Call: st.builds(
        wire.Call, ID, WORD, CBOR, UINT, NONE | UINT, NONE | WORD, NONE | WORD, NONE | ID
    ),
    wire.Cancel: st.builds(wire.Cancel, ID),
    wire.Ask: st.builds(
        wire.Ask, ID, st.dictionaries(UINT, st.lists(UINT, min_size=3, max_size=3), max_size=3)
    ),
    wire.EventAck: st.builds(wire.EventAck, UINT),
    wire.Window: st.builds(wire.Window, UINT, UINT, UINT, UINT),
    wire.Attached: st.builds(
        wire.Attached, ID, ID, ID, ID, UINT, UINT, UINT, UINT, WINDOW, WORDS,
        st.dictionaries(WORD, UINT, max_size=3),
    ),
    wire.Accepted: st.builds(wire.Accepted, ID),
    wire.Result: st.builds(
        wire.Result, ID, NONE | CBOR, NONE | ERROR,
        st.dictionaries(UINT, st.tuples(UINT, NONE | DIGEST).map(list), max_size=3), UINT,
    ),
    wire.State: st.builds(
        wire.State, ID, st.sampled_from(["accepted", "started", "ended", "resend", "unknown_call"]),
        st.dictionaries(UINT, UINT, max_size=3),
    ),
    wire.Event: st.builds(wire.Event, UINT, UINT, WORD, NONE | ID, PLAIN),
    wire.Gap: st.builds(wire.Gap, ID, UINT, WORD, NONE | UINT, NONE | UINT),
    wire.Refused: st.builds(wire.Refused, ID, ERROR),
    wire.Credit: st.builds(wire.Credit, ID, UINT, UINT, UINT, st.booleans()),
    wire.End: st.builds(wire.End, ID, UINT, UINT, UINT, DIGEST),
    wire.Reset: st.builds(wire.Reset, ID, UINT, WORD, WORD),
    wire.Rewind: st.builds(wire.Rewind, ID, UINT, UINT),
    wire.Skip: st.builds(wire.Skip, ID, UINT, UINT, UINT),
    wire.Hello: st.builds(wire.Hello, WORD, ID, UINT, VERSIONS, WORD, WORD),
    wire.Blocked: st.builds(wire.Blocked, NONE | ID, NONE | UINT, UINT),
    wire.Unsupported: st.builds(wire.Unsupported, UINT),
}  # fmt: skip

ID16 = b"i" * 16

# One of each kind, written as values of CBOR: what another language would send.
EXAMPLES: dict[str, list[object]] = {
    "head": [0, {0: ID16, 1: 10, 2: 1}],
    "attach": [1, {0: "c1", 1: ID16, 2: [1], 3: [4194304, 128]}],
    "detach": [2, {}],
    "call": [3, {0: ID16, 1: "sidecar.ping", 2: b"\xa0"}],
    "cancel": [4, {0: ID16}],
    "ask": [5, {0: ID16, 1: {1: [100, 0, 1124]}}],
    "event-ack": [6, {0: 9}],
    "window": [7, {0: 1, 1: 2, 2: 3, 3: 4}],
    "attached": [
        16,
        {0: ID16, 1: ID16, 2: ID16, 3: ID16, 4: 1, 5: 1, 6: 0, 7: 1, 8: [4194304, 128]},
    ],
    "accepted": [17, {0: ID16}],
    "result": [18, {0: ID16, 1: b"\xa0", 3: {1: [5, b"d" * 32], 2: [0, None]}, 4: 3}],
    "state": [19, {0: ID16, 1: "started", 2: {0: 5}}],
    "event": [20, {0: 1, 1: 1700000000000, 2: "exec.started", 4: {"pid": 7}}],
    "gap": [21, {0: ID16, 1: 1, 3: "new_series"}],
    "refused": [
        22,
        {0: ID16, 1: {"code": "limit", "message": "m", "started": "no", "retry": "new_id"}},
    ],
    "data": [32, ID16, 1, 0, b"bytes"],
    "credit": [33, {0: ID16, 1: 1, 2: 5, 3: 10, 4: True}],
    "end": [34, {0: ID16, 1: 1, 2: 5, 3: 0, 4: b"d" * 32}],
    "reset": [35, {0: ID16, 1: 1, 2: "cancelled"}],
    "rewind": [36, {0: ID16, 1: 1, 2: 5}],
    "skip": [37, {0: ID16, 1: 1, 2: 5, 3: 9}],
    "hello": [64, {0: "r1", 1: ID16, 2: 1, 3: [1]}],
    "blocked": [65, {}],
    "unsupported": [66, {0: 40}],
}

every_kind = pytest.mark.parametrize(
    "kind", [pytest.param(kind, id=kind.__name__) for kind in wire.TYPES]
)
every_example = pytest.mark.parametrize("name", EXAMPLES)


def is_in_schema(data: bytes) -> bool:
    try:
        SCHEMA.validate_cbor(data)
    except pycddl.ValidationError:
        return False
    return True


@every_kind
def test_every_envelope_is_in_the_schema_and_comes_back(kind: type[wire.Envelope]) -> None:
    @given(envelope=KINDS[kind])
    def check(envelope: wire.Envelope) -> None:
        encoded = wire.encode(envelope)
        SCHEMA.validate_cbor(encoded)
        assert wire.decode(encoded) == [envelope]

    check()


@given(id=ID, n=UINT, offset=UINT, data=st.binary(max_size=300))
def test_stream_data_is_in_the_schema_and_comes_back(
    id: bytes, n: int, offset: int, data: bytes
) -> None:
    encoded = wire.encode_data(id, n, offset, data)
    SCHEMA.validate_cbor(encoded)
    assert wire.decode(encoded) == [wire.Data(id, n, offset, data)]


def test_the_schema_names_the_kinds_that_the_codec_knows() -> None:
    (alternatives,) = re.findall(r"^envelope = (.*?)\n\n", TEXT, re.DOTALL | re.MULTILINE)
    names = re.split(r"\s*/\s*", alternatives)
    kinds = [re.sub("(?<!^)(?=[A-Z])", "-", kind.__name__).lower() for kind in wire.TYPES]
    assert sorted(names) == sorted([*kinds, "data"]) == sorted(EXAMPLES)


@every_example
def test_examples_of_the_schema_are_decoded(name: str) -> None:
    encoded = cbor2.dumps(EXAMPLES[name])
    SCHEMA.validate_cbor(encoded)
    (envelope,) = wire.decode(encoded)
    assert type(envelope).__name__.lower() == name.replace("-", "")


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "data"])
def test_keys_of_later_versions_are_allowed_and_ignored(name: str) -> None:
    number, content = EXAMPLES[name]
    assert isinstance(content, dict)
    later = cbor2.dumps([number, {**content, 99: "later"}])
    SCHEMA.validate_cbor(later)
    assert wire.decode(later) == wire.decode(cbor2.dumps(EXAMPLES[name]))


def breakages() -> list[tuple[str, list[object]]]:
    """Each example with one value replaced by another type, or left out."""
    broken: list[tuple[str, list[object]]] = []
    for name, (number, *rest) in EXAMPLES.items():
        if isinstance(rest[0], dict):
            for key in rest[0]:
                if (name, key) == ("event", 4):  # may be anything
                    continue
                content = {**rest[0], key: 1.5}
                broken.append((f"{name}-{key}-float", [number, content]))
                if isinstance(rest[0][key], bytes) and (name, key) not in {
                    ("call", 2),
                    ("result", 1),
                }:
                    content = {**rest[0], key: b"short"}
                    broken.append((f"{name}-{key}-short", [number, content]))
        else:
            for place in range(4):
                row: list[object] = [*rest]
                row[place] = 1.5
                broken.append((f"{name}-{place}-float", [number, *row]))
    return broken


@pytest.mark.parametrize("item", [pytest.param(item, id=name) for name, item in breakages()])
def test_what_the_schema_refuses_is_refused_by_the_codec(item: list[object]) -> None:
    encoded = cbor2.dumps(item)
    assert not is_in_schema(encoded)
    with pytest.raises(ProtocolError):
        wire.decode(encoded)
