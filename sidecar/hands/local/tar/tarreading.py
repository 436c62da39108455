"""Tar archives, read as they come: pax, ustar, GNU and the old format of Unix V7; gzip or not.

Sources: pax(1) of POSIX.1-2017 for ustar and pax, tar(5) of libarchive and GNU tar's manual
("Basic Tar Format") for the rest. What is not read: sparse members of GNU tar, which are told
as such. Everything is bounded: an archive may come from anywhere.

An archive ends with a block of zeros. One without it was cut off, and is `BrokenTar` like any
other that makes no sense; offsets are bytes of the archive, uncompressed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from sidecar.hands.local.tar.tarheaders import BLOCK

MOST_EXTENDED = 1024 * 1024  # bytes of an extended header, or of a long name
PIECE = 256 * 1024  # bytes that are read, inflated and handed out at once
GZIP = b"\x1f\x8b"

_SECOND = 1_000_000_000
_MOST_TIME = 2**63 // _SECOND - 1  # seconds that fit into 64 bits as nanoseconds


class BrokenTar(Exception):
    """The sentence says what came; `offset` is where."""

    def __init__(self, why: str, offset: int) -> None:
        super().__init__(why)
        self.offset = offset


class Kind(Enum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARD_LINK = "hard link"
    FIFO = "FIFO"
    DEVICE = "device"
    SPARSE = "sparse file of GNU tar"
    OTHER = "member of an unknown kind"


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,  # contiguous, long ago
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.DEVICE,
    b"4": Kind.DEVICE,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
    b"S": Kind.SPARSE,
}
_WITH_BYTES = {Kind.FILE, Kind.SPARSE, Kind.OTHER}


@dataclass(slots=True)
class Found:
    """A member, as its headers have it; `size` is that of its content."""

    name: bytes
    kind: Kind
    mode: int
    mtime_ns: int
    size: int
    target: bytes
    offset: int


class Input(Protocol):
    def read(self, size: int) -> bytes:
        """At most `size` bytes; b"" at the end."""
        ...


class Inflating:
    """What is in a gzip file, or in several that follow one another (RFC 1952, 2.2)."""

    def __init__(self, input: Input) -> None:
        self._input = input
        self._inflate = zlib.decompressobj(wbits=31)
        self._waiting = b""

    def read(self, size: int) -> bytes:
        """See `Input`. Raises `zlib.error`."""
        while True:
            if self._inflate.eof and not self._begin_next():
                return b""
            data = self._waiting or self._input.read(PIECE)
            if not data:
                raise zlib.error("the compressed data ends in the middle")
            found = self._inflate.decompress(data, size)
            self._waiting = self._inflate.unconsumed_tail
            if found:
                return found

    def _begin_next(self) -> bool:
        rest = self._inflate.unused_data
        while len(rest) < len(GZIP) and (data := self._input.read(PIECE)):
            rest += data
        if not rest.startswith(GZIP):  # zeros of a tape, or whatever
            return False
        self._inflate = zlib.decompressobj(wbits=31)
        self._waiting = rest
        return True


@dataclass(slots=True)
class _Extended:
    """What the headers before a member say of it."""

    name: bytes | None = None
    target: bytes | None = None
    size: int | None = None
    mtime_ns: int | None = None
    is_sparse: bool = False


@dataclass(slots=True)
class TarReader:
    """Members one after the other. What of a member's content is not taken is passed over."""

    input: Input
    offset: int = 0  # of the next byte
    _buffer: bytes = b""
    _at: int = 0
    _left: int = 0  # of the content of the member
    _padding: int = 0
    _extended: _Extended = field(default_factory=_Extended)

    def __iter__(self) -> Iterator[Found]:
        """Raises `BrokenTar`."""
        while True:
            for _ in self.content():
                pass
            self._skip(self._padding)
            block = self._take(BLOCK, "a header")
            if not block.strip(b"\0"):
                return
            found = self._read_header(block)
            if found is not None:
                yield found

    def content(self) -> Iterator[bytes]:
        """The bytes of the member that came last."""
        while self._left:
            piece = self._some(self._left)
            self._left -= len(piece)
            yield piece

    # Headers ------------------------------------------------------------------------------

    def _read_header(self, block: bytes) -> Found | None:
        """A member, or None for what only says something of the next one."""
        at = self.offset - BLOCK
        self._check(block, at)
        kind, size = block[156:157], self._number(block[124:136], at)
        if kind in b"xgXLK":
            data = self._take_extended(size, at)
            if kind in b"xX":
                self._read_records(data, at)
            elif kind == b"L":
                self._extended.name = data.split(b"\0", 1)[0]
            elif kind == b"K":
                self._extended.target = data.split(b"\0", 1)[0]
            return None
        found = self._member(block, kind, size, at)
        if kind == b"S":
            self._skip_sparse_map(block)
        self._left = found.size
        self._padding = -found.size % BLOCK
        self._extended = _Extended()
        return found

    def _member(self, block: bytes, letter: bytes, size: int, at: int) -> Found:
        extended = self._extended
        name = _text(block[:100])
        prefix = _text(block[345:500])
        if prefix and block[257:263] == b"ustar\0":  # GNU has other things there
            name = prefix + b"/" + name
        name = name if extended.name is None else extended.name
        target = _text(block[157:257]) if extended.target is None else extended.target
        kind = _KINDS.get(letter, Kind.OTHER)
        if letter == b"\0" and name.endswith(b"/"):  # V7 knew no other way
            kind = Kind.DIRECTORY
        if extended.is_sparse:
            kind = Kind.SPARSE
        size = size if extended.size is None else extended.size
        if size < 0:
            raise BrokenTar(f"a size of {size}", at)
        mtime = extended.mtime_ns
        if mtime is None:
            mtime = _nanoseconds(self._number(block[136:148], at), 0)
        mode = self._number(block[100:108], at)
        size = size if kind in _WITH_BYTES else 0
        return Found(name, kind, mode & 0o7777, mtime, size, target, at)

    def _check(self, block: bytes, at: int) -> None:
        expected = self._number(block[148:156], at)
        sums = block[:148] + b" " * 8 + block[156:]
        found = sum(sums)
        if expected == found:
            return
        if expected == found - 256 * sum(byte > 127 for byte in sums):  # chars with a sign, once
            return
        raise BrokenTar(f"no header: its checksum says {expected}, and it has {found}", at)

    def _take_extended(self, size: int, at: int) -> bytes:
        if not 0 <= size <= MOST_EXTENDED:
            raise BrokenTar(f"an extended header of {size} bytes", at)
        data = self._take(size, "an extended header")
        self._skip(-size % BLOCK)
        return data

    def _read_records(self, data: bytes, at: int) -> None:
        """LENGTH KEY=VALUE, each with a line feed that the length counts."""
        extended = self._extended
        while data:
            digits, blank, _ = data[:24].partition(b" ")
            length = int(digits) if blank and digits.isdigit() else 0
            record = data[len(digits) + 1 : length]
            key, equals, value = record.partition(b"=")
            if not (0 < length <= len(data) and equals and value.endswith(b"\n")):
                raise BrokenTar("an extended header with a record that is none", at)
            value, data = value[:-1], data[length:]
            if key in (b"path", b"GNU.sparse.name"):
                extended.name = value
            elif key == b"linkpath":
                extended.target = value
            elif key == b"size":
                extended.size = _decimal(value, key, at)
            elif key == b"mtime":
                extended.mtime_ns = _time(value, at)
            extended.is_sparse = extended.is_sparse or key.startswith(b"GNU.sparse.")

    def _skip_sparse_map(self, block: bytes) -> None:
        more = block[482]
        while more:
            more = self._take(BLOCK, "a map of holes")[504]

    def _number(self, digits: bytes, at: int) -> int:
        """Octal digits; or, for what they cannot hold, a binary number (GNU)."""
        if digits[0] in (0x80, 0xFF):
            return int.from_bytes(digits[1:], "big", signed=digits[0] == 0xFF)
        text = digits.split(b"\0", 1)[0].strip(b" ") or b"0"
        if not text.strip(b"01234567"):
            return int(text, 8)
        raise BrokenTar(f"no header: a number that is {digits[:12]!r}", at)

    # Bytes --------------------------------------------------------------------------------

    def _some(self, most: int) -> bytes:
        """At least one byte, at most `most`."""
        if self._at == len(self._buffer):
            self._fill("the content of a member")
        piece = self._buffer[self._at : self._at + most]
        self._at += len(piece)
        self.offset += len(piece)
        return piece

    def _take(self, size: int, what: str) -> bytes:
        while len(self._buffer) - self._at < size:
            self._fill(what)
        piece = self._buffer[self._at : self._at + size]
        self._at += size
        self.offset += size
        return piece

    def _skip(self, size: int) -> None:
        self._padding = 0
        if size:
            self._take(size, "the zeros after a member")

    def _fill(self, what: str) -> None:
        try:
            data = self.input.read(PIECE)
        except zlib.error as error:
            raise BrokenTar(f"gzip data that cannot be inflated: {error}", self.offset) from None
        if not data:
            left = len(self._buffer) - self._at
            raise BrokenTar(f"the end, in the middle of {what}", self.offset + left)
        self._buffer = self._buffer[self._at :] + data
        self._at = 0


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _decimal(value: bytes, key: bytes, at: int) -> int:
    if len(value) <= 20 and value.isdigit():
        return int(value)
    raise BrokenTar(f"an extended header with a {key.decode()} of {value[:24]!r}", at)


def _time(value: bytes, at: int) -> int:
    """Seconds with a fraction, of which nine digits count."""
    sign = -1 if value.startswith(b"-") else 1
    seconds, _, fraction = value.lstrip(b"-").partition(b".")
    rest = _decimal(fraction[:9].ljust(9, b"0"), b"mtime", at)
    return sign * _nanoseconds(_decimal(seconds, b"mtime", at), rest)


def _nanoseconds(seconds: int, rest: int) -> int:
    return max(-_MOST_TIME, min(seconds, _MOST_TIME)) * _SECOND + rest
