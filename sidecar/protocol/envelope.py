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
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, NoReturn, TypeVar

import cbor2

from sidecar.errors import CallError, Code, ProtocolError, Retry, Started

MAX_DEPTH = 16  # nested containers; RFC 8949 §10 asks decoders for a bound
IGNORABLE = 64  # types from here on may be ignored by who does not know them
DATA_TYPE = 32


def _uint(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def _text(value: Any) -> bool:
    return type(value) is str


def _bytes(value: Any) -> bool:
    return type(value) is bytes


def _id(value: Any) -> bool:
    return type(value) is bytes and len(value) == 16


def _map(value: Any) -> bool:
    return type(value) is dict


def _texts(value: Any) -> bool:
    return type(value) is list and all(type(item) is str for item in value)


def _uints(value: Any) -> bool:
    return type(value) is list and all(_uint(item) for item in value)


def _offsets(value: Any) -> bool:
    return type(value) is dict and all(_uint(n) and _uint(at) for n, at in value.items())


def _resumes(value: Any) -> bool:
    return type(value) is dict and all(
        _uint(n) and _uints(at) and len(at) == 3 for n, at in value.items()
    )


def _ends(value: Any) -> bool:
    return type(value) is dict and all(
        _uint(n)
        and type(at) is list
        and len(at) == 2
        and _uint(at[0])
        and (at[1] is None or _bytes(at[1]))
        for n, at in value.items()
    )


def _bool(value: Any) -> bool:
    return type(value) is bool


def _any(value: Any) -> bool:
    return True


_WORDS: dict[Callable[[Any], bool], str] = {
    _uint: "an unsigned integer",
    _text: "text",
    _bytes: "a byte string",
    _id: "16 bytes",
    _map: "a map",
    _texts: "a list of text",
    _uints: "a list of unsigned integers",
    _offsets: "a map of unsigned integers",
    _resumes: "a map of stream number to [received, hashed from, limit]",
    _ends: "a map of stream number to [offset, digest]",
    _bool: "true or false",
    _any: "anything",
}


def key(number: int, check: Callable[[Any], bool], **options: Any) -> Any:
    """A field: its key in the map and what its value must be. A default makes it optional."""
    return field(metadata={"key": number, "check": check}, **options)


class Envelope:
    """Base of all envelopes but stream data."""

    __slots__ = ()
    TYPE: ClassVar[int]


@dataclass(frozen=True, slots=True)
class Head(Envelope):
    """First in every message of an attachment: whose it is, and the running totals."""

    TYPE: ClassVar[int] = 0
    attachment: bytes = key(0, _id)
    bytes: int = key(1, _uint)
    messages: int = key(2, _uint)


@dataclass(frozen=True, slots=True)
class Attach(Envelope):
    """A controller makes itself known. The same nonce gets the same answer."""

    TYPE: ClassVar[int] = 1
    controller: str = key(0, _text)
    nonce: bytes = key(1, _id)
    versions: list[int] = key(2, _uints)
    window: list[int] = key(3, _uints)  # bytes and messages granted to the sidecar
    features: list[str] = key(4, _texts, default_factory=list)
    series: bytes | None = key(5, _id, default=None)  # of the cursor
    after: int | None = key(6, _uint, default=None)  # the cursor; absent: no reader
    reader: str | None = key(7, _text, default=None)  # name of a durable reader


@dataclass(frozen=True, slots=True)
class Detach(Envelope):
    """The attachment ends; its calls go on."""

    TYPE: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class Call(Envelope):
    """Run a command. `arguments` is CBOR; its SHA-256 as received is part of the receipt."""

    TYPE: ClassVar[int] = 3
    id: bytes = key(0, _id)
    command: str = key(1, _text)
    arguments: bytes = key(2, _bytes)
    credit: int = key(3, _uint, default=0)  # for each stream that the command sends
    deadline_ms: int | None = key(4, _uint, default=None)  # from acceptance
    traceparent: str | None = key(5, _text, default=None)  # W3C Trace Context
    reply: str | None = key(6, _text, default=None)  # controller id; REST only
    incarnation: bytes | None = key(7, _id, default=None)  # REST only


@dataclass(frozen=True, slots=True)
class Cancel(Envelope):
    """Stop the call. One that overtakes its call fences the id: it will never run."""

    TYPE: ClassVar[int] = 4
    id: bytes = key(0, _id)


@dataclass(frozen=True, slots=True)
class Ask(Envelope):
    """What became of this call? Runs nothing; result and streams move to this attachment.

    `streams` says per stream what we have: received up to, digest begun at, credit limit.
    """

    TYPE: ClassVar[int] = 5
    id: bytes = key(0, _id)
    streams: dict[int, list[int]] = key(1, _resumes, default_factory=dict)


@dataclass(frozen=True, slots=True)
class EventAck(Envelope):
    """The durable reader of this attachment has processed events up to here."""

    TYPE: ClassVar[int] = 6
    seq: int = key(0, _uint)


@dataclass(frozen=True, slots=True)
class Window(Envelope):
    """The highest totals seen, and absolute limits up to which the peer may send."""

    TYPE: ClassVar[int] = 7
    seen_bytes: int = key(0, _uint)
    seen_messages: int = key(1, _uint)
    limit_bytes: int = key(2, _uint)
    limit_messages: int = key(3, _uint)


@dataclass(frozen=True, slots=True)
class Attached(Envelope):
    """The answer to `attach`. The attachment id is known to nobody else."""

    TYPE: ClassVar[int] = 16
    nonce: bytes = key(0, _id)
    attachment: bytes = key(1, _id)
    series: bytes = key(2, _id)
    incarnation: bytes = key(3, _id)
    generation: int = key(4, _uint)
    first: int = key(5, _uint)
    last: int = key(6, _uint)
    version: int = key(7, _uint)
    window: list[int] = key(8, _uints)  # bytes and messages granted to the controller
    features: list[str] = key(9, _texts, default_factory=list)
    limits: dict[str, int] = key(10, _map, default_factory=dict)


@dataclass(frozen=True, slots=True)
class Accepted(Envelope):
    """The receipt of this call is written; it need not be sent again."""

    TYPE: ClassVar[int] = 17
    id: bytes = key(0, _id)


@dataclass(frozen=True, slots=True)
class Result(Envelope):
    """The one answer to a call: `value` (CBOR) or `error` (a map: code, message, ...)."""

    TYPE: ClassVar[int] = 18
    id: bytes = key(0, _id)
    value: bytes | None = key(1, _bytes, default=None)
    error: dict[str, Any] | None = key(2, _map, default=None)
    streams: dict[int, list[Any]] = key(3, _ends, default_factory=dict)
    seq: int = key(4, _uint, default=0)  # the last event when the call ended


@dataclass(frozen=True, slots=True)
class State(Envelope):
    """The answer to `ask` for a call that has not ended, with our receive offsets."""

    TYPE: ClassVar[int] = 19
    id: bytes = key(0, _id)
    state: str = key(1, _text)
    received: dict[int, int] = key(2, _offsets, default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event(Envelope):
    """A numbered record. The journal keeps exactly these bytes."""

    TYPE: ClassVar[int] = 20
    seq: int = key(0, _uint)
    time_ms: int = key(1, _uint)  # since the epoch
    name: str = key(2, _text)
    call: bytes | None = key(3, _id, default=None)
    data: Any = key(4, _any, default=None)


@dataclass(frozen=True, slots=True)
class Gap(Envelope):
    """Records that this reader will never get: from, to (both included), and why."""

    TYPE: ClassVar[int] = 21
    series: bytes = key(0, _id)
    first: int = key(1, _uint)
    why: str = key(3, _text)
    last: int | None = key(2, _uint, default=None)  # absent: of another series, end unknown
    bytes: int | None = key(4, _uint, default=None)  # absent: unknown


@dataclass(frozen=True, slots=True)
class Refused(Envelope):
    """The answer to an `attach` that cannot be had, with the error that says why."""

    TYPE: ClassVar[int] = 22
    nonce: bytes = key(0, _id)
    error: dict[str, Any] = key(1, _map)


@dataclass(frozen=True, slots=True)
class Credit(Envelope):
    """This stream was received without a hole up to `received`; send up to `limit`."""

    TYPE: ClassVar[int] = 33
    id: bytes = key(0, _id)
    n: int = key(1, _uint)
    received: int = key(2, _uint)
    limit: int = key(3, _uint)
    ended: bool = key(4, _bool, default=False)  # the end was received, too


@dataclass(frozen=True, slots=True)
class End(Envelope):
    """The stream ends at `offset`; the digest is SHA-256 of the bytes from `start` to there."""

    TYPE: ClassVar[int] = 34
    id: bytes = key(0, _id)
    n: int = key(1, _uint)
    offset: int = key(2, _uint)
    start: int = key(3, _uint)
    sha256: bytes = key(4, _bytes)


@dataclass(frozen=True, slots=True)
class Reset(Envelope):
    """The stream is broken off, for the reason of the code. Either side may send it."""

    TYPE: ClassVar[int] = 35
    id: bytes = key(0, _id)
    n: int = key(1, _uint)
    code: str = key(2, _text)
    message: str = key(3, _text, default="")


@dataclass(frozen=True, slots=True)
class Rewind(Envelope):
    """Something is missing: send again from `offset`."""

    TYPE: ClassVar[int] = 36
    id: bytes = key(0, _id)
    n: int = key(1, _uint)
    offset: int = key(2, _uint)


@dataclass(frozen=True, slots=True)
class Skip(Envelope):
    """The bytes from `offset` up to `to` are gone and will not come."""

    TYPE: ClassVar[int] = 37
    id: bytes = key(0, _id)
    n: int = key(1, _uint)
    offset: int = key(2, _uint)
    to: int = key(3, _uint)


@dataclass(frozen=True, slots=True)
class Hello(Envelope):
    """A sidecar has a new connection: attach anew. Only a hint; `attach` is repeated anyway."""

    TYPE: ClassVar[int] = 64
    run: str = key(0, _text)
    incarnation: bytes = key(1, _id)
    generation: int = key(2, _uint)
    versions: list[int] = key(3, _uints)
    form: str = key(4, _text, default="")
    trust: str = key(5, _text, default="")


@dataclass(frozen=True, slots=True)
class Blocked(Envelope):
    """For 1 s this stream had bytes and no credit (or, without `id`, this attachment no
    window): restate it, in case the grant was lost."""

    TYPE: ClassVar[int] = 65
    id: bytes | None = key(0, _id, default=None)
    n: int | None = key(1, _uint, default=None)
    offset: int = key(2, _uint, default=0)


@dataclass(frozen=True, slots=True)
class Unsupported(Envelope):
    """The answer to an envelope whose type is below 64 and unknown."""

    TYPE: ClassVar[int] = 66
    type: int = key(0, _uint)


@dataclass(frozen=True, slots=True)
class Data:
    """The bytes of a stream from `offset` on."""

    id: bytes
    n: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Strange:
    """A well-formed envelope of a type that this version does not know."""

    type: int


Any_ = Envelope | Data | Strange

TYPES: tuple[type[Envelope], ...] = (
    Head, Attach, Detach, Call, Cancel, Ask, EventAck, Window,
    Attached, Accepted, Result, State, Event, Gap, Refused,
    Credit, End, Reset, Rewind, Skip,
    Hello, Blocked, Unsupported,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    key: int
    check: Callable[[Any], bool]
    default: Any
    required: bool


def _plan(kind: type[Envelope]) -> tuple[_Field, ...]:
    plan = []
    for item in fields(kind):  # type: ignore[arg-type]
        required = item.default is MISSING and item.default_factory is MISSING
        default = None if required else item.default
        if item.default_factory is not MISSING:
            default = item.default_factory()
        plan.append(
            _Field(item.name, item.metadata["key"], item.metadata["check"], default, required)
        )
    return tuple(plan)


_PLANS: dict[type[Envelope], tuple[_Field, ...]] = {kind: _plan(kind) for kind in TYPES}
_BY_TYPE: dict[int, type[Envelope]] = {kind.TYPE: kind for kind in TYPES}


def encode(envelope: Envelope) -> bytes:
    """One envelope as CBOR. Several of them, joined, are one hub message."""
    content = {}
    for item in _PLANS[type(envelope)]:
        value = getattr(envelope, item.name)
        if item.required or value != item.default:
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
    value = _decode_item(stream)
    if stream.tell() != len(data):
        raise ProtocolError(
            f"{len(data) - stream.tell()} bytes after the end of a CBOR value, none expected"
        )
    return value


def decode(message: bytes) -> list[Any_]:
    """The envelopes of one hub message; raises `ProtocolError` if any of it is broken."""
    stream = io.BytesIO(message)
    size = len(message)
    if not size:
        raise ProtocolError("an empty hub message, at least one envelope expected")
    envelopes: list[Any_] = []
    at = 0
    while at < size:
        hot = _hot_data(message, at)
        if hot is not None:
            data, at = hot
            envelopes.append(data)
            continue
        stream.seek(at)
        envelopes.append(_envelope(_decode_item(stream)))
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


def _decode_item(stream: io.BytesIO) -> Any:
    try:
        # A decoder reads ahead from its file; on BytesIO it seeks back to the item's end.
        return cbor2.CBORDecoder(
            stream,
            tag_hook=_refuse_tag,
            semantic_decoders=_NO_TAGS,
            max_depth=MAX_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        ).decode()
    except ProtocolError:
        raise
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, MemoryError) as error:
        cause: BaseException = error.__cause__ or error
        raise ProtocolError(f"broken CBOR: {cause}") from error


def _envelope(item: Any) -> Any_:
    if type(item) is not list or not item or not _uint(item[0]):
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
        if _id(id) and _uint(n) and _uint(offset) and _bytes(data):
            return Data(id, n, offset, data)
    raise ProtocolError(f"stream data is [32, id, n, offset, bytes], got {_show(item)}")


def _fill(kind: type[Envelope], content: dict[Any, Any]) -> Envelope:
    values: dict[str, Any] = {}
    for item in _PLANS[kind]:
        value = content.get(item.key, MISSING)
        if value is MISSING:
            if item.required:
                raise ProtocolError(f"{kind.__name__} without its {item.name}")
            continue
        if not item.check(value):
            raise ProtocolError(
                f"{kind.__name__}.{item.name} is {_WORDS[item.check]}, got {_show(value)}"
            )
        values[item.name] = value
    return kind(**values)


def _show(value: Any) -> str:
    """A few characters of `value`, for a sentence; never all of somebody's data."""
    text = f"{type(value).__name__} {value!r}"
    return text if len(text) <= 60 else text[:57] + "..."


def error_map(error: CallError) -> dict[str, Any]:
    """How an error travels."""
    content: dict[str, Any] = {
        "code": str(error.code),
        "message": error.message,
        "started": str(error.started),
        "retry": str(error.retry),
    }
    if error.details:
        content["details"] = dict(error.details)
    return content


def error_from(content: dict[str, Any]) -> CallError:
    """The error that travelled; a code of a later version counts as `internal`, by its words."""
    try:
        code = Code(content.get("code", ""))
    except ValueError:
        code = Code.INTERNAL
    details = content.get("details")
    return CallError(
        code,
        str(content.get("message", "")),
        started=_member(Started, content.get("started"), Started.UNKNOWN),
        retry=_member(Retry, content.get("retry"), Retry.NEVER),
        **({str(k): v for k, v in details.items()} if isinstance(details, dict) else {}),
    )


E_ = TypeVar("E_", Started, Retry)


def _member(kind: type[E_], value: Any, otherwise: E_) -> E_:
    try:
        return kind(value)
    except ValueError:
        return otherwise


def join(envelopes: Iterable[Envelope]) -> bytes:
    """Several envelopes as one hub message."""
    return b"".join(map(encode, envelopes))
