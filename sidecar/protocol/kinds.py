"""Every kind of envelope: what crosses the channel, as records.

Times are milliseconds, sizes bytes, call ids 16 bytes (UUIDv7, RFC 9562). `TYPE` is the first
number of the envelope, `key` the number of the field in its map; a field with a default is
optional. How they become bytes is in `envelope`, the whole wire in `wire.cddl`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sidecar.protocol.fields import (
    is_anything,
    is_bool,
    is_bytes,
    is_digest,
    is_ends,
    is_id,
    is_limits,
    is_map,
    is_offsets,
    is_resumes,
    is_text,
    is_texts,
    is_uint,
    is_uints,
    is_window,
)
from sidecar.protocol.record import Record, key, record


class Envelope(Record):
    """Base of all envelopes but stream data."""

    __slots__ = ()
    TYPE: ClassVar[int]


@record
class Head(Envelope):
    """First in every message of an attachment: whose it is, and the running totals."""

    TYPE: ClassVar[int] = 0
    attachment: bytes = key(0, is_id)
    bytes: int = key(1, is_uint)
    messages: int = key(2, is_uint)


@record
class Attach(Envelope):
    """A controller makes itself known. The same nonce gets the same answer."""

    TYPE: ClassVar[int] = 1
    controller: str = key(0, is_text)
    nonce: bytes = key(1, is_id)
    versions: list[int] = key(2, is_uints)
    window: list[int] = key(3, is_window)  # bytes and messages granted to the sidecar
    features: list[str] = key(4, is_texts, default_factory=list)
    series: bytes | None = key(5, is_id, default=None)  # of the cursor
    after: int | None = key(6, is_uint, default=None)  # the cursor; absent: no reader
    reader: str | None = key(7, is_text, default=None)  # name of a durable reader


@record
class Detach(Envelope):
    """The attachment ends; its calls go on."""

    TYPE: ClassVar[int] = 2


@record
class Call(Envelope):
    """Run a command. `arguments` is CBOR; its SHA-256 as received is part of the receipt."""

    TYPE: ClassVar[int] = 3
    id: bytes = key(0, is_id)
    command: str = key(1, is_text)
    arguments: bytes = key(2, is_bytes)
    credit: int = key(3, is_uint, default=0)  # for each stream that the command sends
    deadline_ms: int | None = key(4, is_uint, default=None)  # from acceptance
    traceparent: str | None = key(5, is_text, default=None)  # W3C Trace Context
    reply: str | None = key(6, is_text, default=None)  # controller id; REST only
    incarnation: bytes | None = key(7, is_id, default=None)  # REST only


@record
class Cancel(Envelope):
    """Stop the call. One that overtakes its call fences the id: it will never run."""

    TYPE: ClassVar[int] = 4
    id: bytes = key(0, is_id)


@record
class Ask(Envelope):
    """What became of this call? Runs nothing; result and streams move to this attachment.

    `streams` says per stream what we have: received up to, digest begun at, credit limit.
    """

    TYPE: ClassVar[int] = 5
    id: bytes = key(0, is_id)
    streams: dict[int, list[int]] = key(1, is_resumes, default_factory=dict)


@record
class EventAck(Envelope):
    """The durable reader of this attachment has processed events up to here."""

    TYPE: ClassVar[int] = 6
    seq: int = key(0, is_uint)


@record
class Window(Envelope):
    """The highest totals seen, and absolute limits up to which the peer may send."""

    TYPE: ClassVar[int] = 7
    seen_bytes: int = key(0, is_uint)
    seen_messages: int = key(1, is_uint)
    limit_bytes: int = key(2, is_uint)
    limit_messages: int = key(3, is_uint)


@record
class Attached(Envelope):
    """The answer to `attach`. The attachment id is known to nobody else."""

    TYPE: ClassVar[int] = 16
    nonce: bytes = key(0, is_id)
    attachment: bytes = key(1, is_id)
    series: bytes = key(2, is_id)
    incarnation: bytes = key(3, is_id)
    generation: int = key(4, is_uint)
    first: int = key(5, is_uint)
    last: int = key(6, is_uint)
    version: int = key(7, is_uint)
    window: list[int] = key(8, is_window)  # bytes and messages granted to the controller
    features: list[str] = key(9, is_texts, default_factory=list)
    limits: dict[str, int] = key(10, is_limits, default_factory=dict)


@record
class Accepted(Envelope):
    """The receipt of this call is written; it need not be sent again."""

    TYPE: ClassVar[int] = 17
    id: bytes = key(0, is_id)


@record
class Result(Envelope):
    """The one answer to a call: `value` (CBOR) or `error` (a map: code, message, ...)."""

    TYPE: ClassVar[int] = 18
    id: bytes = key(0, is_id)
    value: bytes | None = key(1, is_bytes, default=None)
    error: dict[str, Any] | None = key(2, is_map, default=None)
    streams: dict[int, list[Any]] = key(3, is_ends, default_factory=dict)
    seq: int = key(4, is_uint, default=0)  # the last event when the call ended


@record
class State(Envelope):
    """The answer to `ask` for a call that has not ended, with our receive offsets. `resend`: it
    was accepted and never began, and will when it comes again."""

    TYPE: ClassVar[int] = 19
    id: bytes = key(0, is_id)
    state: str = key(1, is_text)
    received: dict[int, int] = key(2, is_offsets, default_factory=dict)


@record
class Event(Envelope):
    """A numbered record. The journal keeps exactly these bytes."""

    TYPE: ClassVar[int] = 20
    seq: int = key(0, is_uint)
    time_ms: int = key(1, is_uint)  # since the epoch
    name: str = key(2, is_text)
    call: bytes | None = key(3, is_id, default=None)
    data: Any = key(4, is_anything, default=None)


@record
class Gap(Envelope):
    """Records that this reader will never get: from, to (both included), and why.

    Of another series the end is not known; `after` is then the cursor in `series` to go on from.
    """

    TYPE: ClassVar[int] = 21
    series: bytes = key(0, is_id)
    first: int = key(1, is_uint)
    why: str = key(3, is_text)
    last: int | None = key(2, is_uint, default=None)
    bytes: int | None = key(4, is_uint, default=None)  # absent: unknown
    after: int | None = key(5, is_uint, default=None)  # absent: 0


@record
class Refused(Envelope):
    """The answer to an `attach` that cannot be had, with the error that says why."""

    TYPE: ClassVar[int] = 22
    nonce: bytes = key(0, is_id)
    error: dict[str, Any] = key(1, is_map)


@record
class Credit(Envelope):
    """This stream was received without a hole up to `received`; send up to `limit`."""

    TYPE: ClassVar[int] = 33
    id: bytes = key(0, is_id)
    n: int = key(1, is_uint)
    received: int = key(2, is_uint)
    limit: int = key(3, is_uint)
    ended: bool = key(4, is_bool, default=False)  # the end was received, too


@record
class End(Envelope):
    """The stream ends at `offset`; the digest is SHA-256 of the bytes from `start` to there."""

    TYPE: ClassVar[int] = 34
    id: bytes = key(0, is_id)
    n: int = key(1, is_uint)
    offset: int = key(2, is_uint)
    start: int = key(3, is_uint)
    sha256: bytes = key(4, is_digest)


@record
class Reset(Envelope):
    """The stream is broken off, for the reason of the code. Either side may send it."""

    TYPE: ClassVar[int] = 35
    id: bytes = key(0, is_id)
    n: int = key(1, is_uint)
    code: str = key(2, is_text)
    message: str = key(3, is_text, default="")
    details: dict[str, Any] = key(4, is_map, default_factory=dict)


@record
class Rewind(Envelope):
    """Something is missing: send again from `offset`."""

    TYPE: ClassVar[int] = 36
    id: bytes = key(0, is_id)
    n: int = key(1, is_uint)
    offset: int = key(2, is_uint)


@record
class Skip(Envelope):
    """The bytes from `offset` up to `to` are gone and will not come."""

    TYPE: ClassVar[int] = 37
    id: bytes = key(0, is_id)
    n: int = key(1, is_uint)
    offset: int = key(2, is_uint)
    to: int = key(3, is_uint)


@record
class Hello(Envelope):
    """A sidecar has a new connection: attach anew. Only a hint; `attach` is repeated anyway."""

    TYPE: ClassVar[int] = 64
    run: str = key(0, is_text)
    incarnation: bytes = key(1, is_id)
    generation: int = key(2, is_uint)
    versions: list[int] = key(3, is_uints)
    form: str = key(4, is_text, default="")
    trust: str = key(5, is_text, default="")


@record
class Blocked(Envelope):
    """For 1 s this stream had bytes and no credit (or, without `id`, this attachment no
    window): restate it, in case the grant was lost."""

    TYPE: ClassVar[int] = 65
    id: bytes | None = key(0, is_id, default=None)
    n: int | None = key(1, is_uint, default=None)
    offset: int = key(2, is_uint, default=0)


@record
class Unsupported(Envelope):
    """The answer to an envelope whose type is below 64 and unknown."""

    TYPE: ClassVar[int] = 66
    type: int = key(0, is_uint)


@record
class Data(Record):
    """The bytes of a stream from `offset` on."""

    id: bytes
    n: int
    offset: int
    data: bytes


@record
class Strange(Record):
    """A well-formed envelope of a type that this version does not know."""

    type: int


Any_ = Envelope | Data | Strange

TYPES: tuple[type[Envelope], ...] = (
    Head, Attach, Detach, Call, Cancel, Ask, EventAck, Window,
    Attached, Accepted, Result, State, Event, Gap, Refused,
    Credit, End, Reset, Rewind, Skip,
    Hello, Blocked, Unsupported,
)  # fmt: skip
