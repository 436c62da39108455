"""What core and hands say to each other, over a Unix stream socket. No I/O in here.

A message is a frame: 4 bytes, big endian, how long the rest is; the rest is one CBOR array
(RFC 8949; definite lengths, no tags: `sidecar.protocol.envelope`) that begins with its kind and
with how many descriptors belong to it:

    [0, 0, version, facts]             Hello     both, first; what each says of itself
    [1, n, id, method, arguments]      Request   core
    [2, n, id, value]                  Reply     hands
    [3, 0, id, error]                  Failure   hands; id 0: about the connection, which ends
    [4, 0, id]                         Cancel    core; a request still gets its one answer

Descriptors travel as SCM_RIGHTS (unix(7)), at the latest with the first byte of their message.
The kernel keeps the order, so whoever reads puts them into a queue, and each message takes as
many as it says. Keys of maps that a reader does not know are ignored.

Bounds: a request may carry the arguments of a program (execve(2): 6 MiB at most), and core is
trusted. A reply comes from hands, which is not, and costs time to parse: half a MiB of the
worst CBOR takes 0.1 s. Whatever is longer, broken, or brings descriptors that no message asked
for is a `ProtocolError`, and the connection is over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sidecar.errors import ProtocolError
from sidecar.protocol import envelope
from sidecar.protocol.fields import is_map, is_text, is_uint
from sidecar.protocol.record import Record, record

VERSION = 1
HEADER_BYTES = 4
MAX_REQUEST = 8 * 1024 * 1024  # bytes of a frame to hands
MAX_REPLY = 512 * 1024  # bytes of a frame to core
MAX_DESCRIPTORS = 16  # of one message
MAX_WAITING = 64  # descriptors that came before their message was complete

ABOUT_CONNECTION = 0  # in place of a request's id


@record
class Hello(Record):
    version: int
    facts: dict[str, Any]


@record
class Request(Record):
    id: int
    method: str
    arguments: dict[str, Any]


@record
class Reply(Record):
    id: int
    value: Any


@record
class Failure(Record):
    """`error` is an `envelope.error_map`."""

    id: int
    error: dict[str, Any]


@record
class Cancel(Record):
    id: int


Message = Hello | Request | Reply | Failure | Cancel

_KINDS: tuple[type[Message], ...] = (Hello, Request, Reply, Failure, Cancel)
_NUMBERS: dict[type[Message], int] = {kind: number for number, kind in enumerate(_KINDS)}
_CHECKS = (
    (is_uint, is_map),
    (is_uint, is_text, is_map),
    (is_uint, lambda value: True),
    (is_uint, is_map),
    (is_uint,),
)


def encode(message: Message, descriptors: int = 0) -> bytes:
    """A frame. Raises `ValueError` (`UnicodeEncodeError`) for text that UTF-8 has not."""
    fields = [getattr(message, name) for name in message.__match_args__]
    content = envelope.dumps([_NUMBERS[type(message)], descriptors, *fields])
    return len(content).to_bytes(HEADER_BYTES, "big") + content


class Inbox:
    """Bytes and descriptors in, messages out. It owns descriptors until it hands them out."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()

    def receive(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """What one look at the socket brought."""
        self._buffer += data
        self._descriptors.extend(descriptors)

    def messages(self) -> Iterator[tuple[Message, list[int]]]:
        """Those that are complete, with their descriptors, which are the caller's from then on.

        Raises `ProtocolError`; after that, only `leftovers` makes sense.
        """
        while (content := self._next_frame()) is not None:
            message, count = _decode(content)
            yield message, self._take(count)
        if len(self._descriptors) > MAX_WAITING or (self._descriptors and not self._buffer):
            raise ProtocolError(f"{len(self._descriptors)} descriptors that belong to no message")

    def leftovers(self) -> list[int]:
        """Descriptors that nobody took, to be closed."""
        found = list(self._descriptors)
        self._descriptors.clear()
        return found

    def _next_frame(self) -> bytes | None:
        if len(self._buffer) < HEADER_BYTES:
            return None
        size = int.from_bytes(self._buffer[:HEADER_BYTES], "big")
        if not 0 < size <= self._limit:
            raise ProtocolError(f"a frame of {size} bytes, 1 to {self._limit} expected")
        end = HEADER_BYTES + size
        if len(self._buffer) < end:
            return None
        content = bytes(self._buffer[HEADER_BYTES:end])
        del self._buffer[:end]
        return content

    def _take(self, count: int) -> list[int]:
        if count > len(self._descriptors):
            raise ProtocolError(f"{len(self._descriptors)} descriptors came of {count}")
        return [self._descriptors.popleft() for _ in range(count)]


def _holds(check: Callable[[Any], bool], value: Any) -> bool:
    return check(value)


def _decode(content: bytes) -> tuple[Message, int]:
    item = envelope.loads(content)
    if type(item) is not list or len(item) < 2 or not (is_uint(item[0]) and is_uint(item[1])):
        raise ProtocolError("a message begins with its kind and a number of descriptors")
    number, count, *fields = item
    if number >= len(_KINDS):
        raise ProtocolError(f"a message of kind {number}, which is unknown")
    checks = _CHECKS[number]
    name = _KINDS[number].__name__
    if count > MAX_DESCRIPTORS:
        raise ProtocolError(f"{name} with {count} descriptors, at most {MAX_DESCRIPTORS} allowed")
    if len(fields) != len(checks) or not all(map(_holds, checks, fields)):
        raise ProtocolError(f"{name} with fields that it does not have")
    return _KINDS[number](*fields), count
