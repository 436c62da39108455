"""One hub message <-> envelopes. The only door to cbor2.

A hub message is a CBOR sequence (RFC 8742) of envelopes; what is ready together travels
together. An envelope is `[type, {uint: value}]`; a reader ignores keys it does not know.
A type below 64 that it does not know is answered by `unsupported`; from 64 on it is ignored.
Stream data alone is flat, `[32, call id, n, offset, bytes]`, because it is hot. The wire is
written down in `wire.cddl` beside this file, and the tests hold both to it.

A message that belongs to an attachment starts with a `head`: the attachment id, which holds
for every envelope in the message, and the running totals of bytes and messages sent to that
attachment, this one included (see `window`). Messages without a head are `attach`,
`attached`, `hello`, and calls that came by REST with their answers.

Times on the wire are milliseconds, sizes bytes, call ids 16 bytes (UUIDv7, RFC 9562).

Rules for reading: definite lengths only, no tags, no duplicate keys, depth 16, and a fresh
decoder for every message, so that nothing of one message can live on in the next.
"""

from __future__ import annotations

import io
import reprlib
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from functools import partial
from typing import Any, NoReturn, TypeVar

import cbor2

from sidecar.errors import CallError, Code, ProtocolError, Retry, Started
from sidecar.protocol.fields import WORDS, is_bytes, is_id, is_uint
from sidecar.protocol.kinds import (
    TYPES,
    Accepted,
    Any_,
    Ask,
    Attach,
    Attached,
    Blocked,
    Call,
    Cancel,
    Credit,
    Data,
    Detach,
    End,
    Envelope,
    Event,
    EventAck,
    Gap,
    Head,
    Hello,
    Refused,
    Reset,
    Result,
    Rewind,
    Skip,
    State,
    Strange,
    Unsupported,
    Window,
)
from sidecar.protocol.record import Record, record

__all__ = [
    "Accepted",
    "Any_",
    "Ask",
    "Attach",
    "Attached",
    "Blocked",
    "Call",
    "Cancel",
    "Credit",
    "Data",
    "data_head",
    "DATA_TYPE",
    "decode",
    "Detach",
    "dumps",
    "encode",
    "encode_data",
    "End",
    "Envelope",
    "error_from",
    "error_map",
    "Event",
    "EventAck",
    "Gap",
    "Head",
    "Hello",
    "IGNORABLE",
    "join",
    "loads",
    "MAX_DEPTH",
    "MAX_ENVELOPES",
    "MAX_SENTENCE",
    "Refused",
    "Reset",
    "Result",
    "Rewind",
    "sentence",
    "Skip",
    "State",
    "Strange",
    "TYPES",
    "Unsupported",
    "Window",
]

MAX_DEPTH = 16  # nested containers; RFC 8949 §10 asks decoders for a bound
IGNORABLE = 64  # types from here on may be ignored by who does not know them
MAX_ENVELOPES = 16_384  # in one hub message; keeps the time to parse it below 0.1 s
MAX_SENTENCE = 2_000  # characters of an error's message
DATA_TYPE = 32


@record
class _Field(Record):
    name: str
    key: int
    check: Callable[[Any], bool]
    default: Callable[[], Any] | None  # None: the field is required


def _plan(kind: type[Envelope]) -> tuple[_Field, ...]:
    plan = []
    for item in fields(kind):  # type: ignore[arg-type]
        default: Callable[[], Any] | None = None
        if item.default_factory is not MISSING:
            default = item.default_factory
        elif item.default is not MISSING:
            default = partial(_same, item.default)
        plan.append(_Field(item.name, item.metadata["key"], item.metadata["check"], default))
    return tuple(plan)


def _same(value: Any) -> Any:
    return value


_PLANS: dict[type[Envelope], tuple[_Field, ...]] = {kind: _plan(kind) for kind in TYPES}
_BY_TYPE: dict[int, type[Envelope]] = {kind.TYPE: kind for kind in TYPES}


def encode(envelope: Envelope) -> bytes:
    """One envelope as CBOR. Several of them, joined, are one hub message."""
    content = {}
    for item in _PLANS[type(envelope)]:
        value = getattr(envelope, item.name)
        if item.default is None or value != item.default():
            content[item.key] = value
    return cbor2.dumps([envelope.TYPE, content])


_DATA_START = b"\x85\x18\x20\x50"  # array(5), 32, bytes(16)


def _uint_head(major: int, value: int) -> bytes:
    """The head of a CBOR item (RFC 8949 §3) in its shortest form."""
    if value < 24:
        return bytes((major << 5 | value,))
    for width, info in ((1, 24), (2, 25), (4, 26), (8, 27)):
        if value < 1 << (8 * width):
            return bytes((major << 5 | info,)) + value.to_bytes(width, "big")
    raise ValueError(f"{value} does not fit in 64 bits")


def data_head(id: bytes, n: int, offset: int, size: int) -> bytes:
    """Everything of a data envelope before its bytes, written by hand: cbor2 would copy a
    256 KiB payload two more times. The result is the same standard CBOR."""
    return b"".join((_DATA_START, id, _uint_head(0, n), _uint_head(0, offset), _uint_head(2, size)))


def encode_data(id: bytes, n: int, offset: int, data: bytes) -> bytes:
    """A data envelope."""
    return data_head(id, n, offset, len(data)) + data


def dumps(value: Any) -> bytes:
    """A plain value (the arguments of a call, the value of a result) as CBOR."""
    return cbor2.dumps(value)


def loads(data: bytes) -> Any:
    """One plain value; raises `ProtocolError` for broken CBOR, tags, depth or trailing bytes."""
    stream = io.BytesIO(data)
    value = _item(_decoder(stream))
    if stream.tell() != len(data):
        raise ProtocolError(
            f"{len(data) - stream.tell()} bytes after the end of a CBOR value, none expected"
        )
    return value


def loads_sequence(data: bytes) -> tuple[list[Any], int]:
    """The values at the start of a CBOR sequence (RFC 8742), as far as they are whole, and where
    the rest begins. Raises `ProtocolError`."""
    stream = io.BytesIO(data)
    decoder = _decoder(stream)
    values: list[Any] = []
    end = 0
    while end < len(data):
        try:
            values.append(_item(decoder))
        except ProtocolError as error:
            if isinstance(error.__cause__, cbor2.CBORDecodeEOF):
                break
            raise
        end = stream.tell()
    return values, end


def decode(message: bytes) -> list[Any_]:
    """The envelopes of one hub message; raises `ProtocolError` if any of it is broken."""
    size = len(message)
    if not size:
        raise ProtocolError("an empty hub message, at least one envelope expected")
    stream = io.BytesIO(message)
    decoder: cbor2.CBORDecoder | None = None
    envelopes: list[Any_] = []
    at = 0
    while at < size:
        if len(envelopes) == MAX_ENVELOPES:
            raise ProtocolError(f"more than {MAX_ENVELOPES} envelopes in one hub message")
        hot = _hot_data(message, at)
        if hot is not None:
            data, at = hot
            envelopes.append(data)
            stream.seek(at)
            continue
        decoder = decoder or _decoder(stream)
        envelopes.append(_envelope(_item(decoder)))
        at = stream.tell()
    return envelopes


def _hot_data(message: bytes, at: int) -> tuple[Data, int] | None:
    """Stream data in the form that `data_head` writes, without cbor2: it reads its file in
    small steps, which is ten times the cost of one slice for 256 KiB. Anything else is None
    and goes the common way."""
    if not message.startswith(_DATA_START, at):
        return None
    id = message[at + 4 : at + 20]
    fields: list[int] = []
    at += 20
    for major in (0, 0, 2):
        head = message[at : at + 9]
        if not head or head[0] >> 5 != major:
            return None
        info = head[0] & 31
        if info < 24:
            fields.append(info)
            at += 1
        elif info < 28:
            width = 1 << (info - 24)
            if len(head) <= width:
                return None
            fields.append(int.from_bytes(head[1 : 1 + width], "big"))
            at += 1 + width
        else:
            return None
    n, offset, size = fields
    data = message[at : at + size]
    return (Data(id, n, offset, data), at + size) if len(data) == size else None


def _refuse_tag(*_: Any) -> NoReturn:
    raise ProtocolError("a CBOR tag, none is expected here")


# cbor2 turns these tags into Python objects by itself; naming each is the only way to say no.
_KNOWN_TAGS = (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261,
               1004, 43000, 55799)  # fmt: skip
_NO_TAGS: dict[int, Any] = {number: _refuse_tag for number in _KNOWN_TAGS}


def _decoder(stream: io.BytesIO) -> cbor2.CBORDecoder:
    """Reads one item after the other. It reads ahead, and on BytesIO goes back to the end of
    each item, so `stream.tell()` says where the next one begins."""
    return cbor2.CBORDecoder(
        stream,
        tag_hook=_refuse_tag,
        semantic_decoders=_NO_TAGS,
        max_depth=MAX_DEPTH,
        allow_indefinite=False,
        allow_duplicate_keys=False,
    )


def _item(decoder: cbor2.CBORDecoder) -> Any:
    try:
        return decoder.decode()
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, MemoryError) as error:
        cause: BaseException = error.__cause__ or error
        raise ProtocolError(f"broken CBOR: {cause}") from error


def _envelope(item: Any) -> Any_:
    if type(item) is not list or not item or not is_uint(item[0]):
        raise ProtocolError(f"an envelope is [type, map], got {_show(item)}")
    number = item[0]
    if number == DATA_TYPE:
        return _data(item)
    kind = _BY_TYPE.get(number)
    if kind is None:
        return Strange(number)
    if len(item) != 2 or type(item[1]) is not dict:
        raise ProtocolError(f"{kind.__name__} is [{number}, map], got {_show(item)}")
    return _fill(kind, item[1])


def _data(item: list[Any]) -> Data:
    if len(item) == 5:
        _, id, n, offset, data = item
        if is_id(id) and is_uint(n) and is_uint(offset) and is_bytes(data):
            return Data(id, n, offset, data)
    raise ProtocolError(f"stream data is [32, id, n, offset, bytes], got {_show(item)}")


def _fill(kind: type[Envelope], content: dict[Any, Any]) -> Envelope:
    values = []
    for item in _PLANS[kind]:
        value = content.get(item.key, MISSING)
        if value is MISSING:
            if item.default is None:
                raise ProtocolError(f"{kind.__name__} without its {item.name}")
            value = item.default()
        elif not item.check(value):
            raise ProtocolError(
                f"{kind.__name__}.{item.name} is {WORDS[item.check]}, got {_show(value)}"
            )
        values.append(value)
    return kind(*values)


def _show(value: Any) -> str:
    """A few characters of `value`, for a sentence; never all of somebody's data."""
    text = f"{type(value).__name__} {reprlib.repr(value)}"
    return text if len(text) <= 60 else text[:57] + "..."


def sentence(text: str) -> str:
    """`text` as it may travel: at most 2,000 characters, none of them a lone surrogate."""
    if len(text) > MAX_SENTENCE:
        text = text[: MAX_SENTENCE - 3] + "..."
    return text.encode(errors="backslashreplace").decode()


def error_map(error: CallError) -> dict[str, Any]:
    """How an error travels. Its sentence is bounded, for it may quote the peer, and made valid
    UTF-8, for it may quote a file name."""
    content: dict[str, Any] = {
        "code": str(error.code),
        "message": sentence(error.message),
        "started": str(error.started),
        "retry": str(error.retry),
    }
    if error.details:
        content["details"] = {name: _plain(value) for name, value in error.details.items()}
    return content


def _plain(value: Any) -> Any:
    """`value`, unless it is a number that CBOR has only as a tag, which no reader here takes."""
    is_large = type(value) is int and not -(1 << 64) <= value < 1 << 64
    return str(value) if is_large else value


def error_from(content: dict[str, Any]) -> CallError:
    """The error that travelled; a code of a later version counts as `internal`, by its words."""
    try:
        code = Code(content.get("code", ""))
    except ValueError:
        code = Code.INTERNAL
    error = CallError(
        code,
        str(content.get("message", "")),
        started=_member(Started, content.get("started"), Started.UNKNOWN),
        retry=_member(Retry, content.get("retry"), Retry.NEVER),
    )
    details = content.get("details")
    if isinstance(details, dict):  # not as keywords: they may be called `started`, too
        error.details = {str(name): value for name, value in details.items()}
    return error


E_ = TypeVar("E_", Started, Retry)


def _member(kind: type[E_], value: Any, otherwise: E_) -> E_:
    try:
        return kind(value)
    except ValueError:
        return otherwise


def join(envelopes: Iterable[Envelope]) -> bytes:
    """Several envelopes as one hub message."""
    return b"".join(map(encode, envelopes))
