"""Headers of tar archives, written: the pax interchange format of POSIX.1-2017 (pax(1)).

A member is a header block of the older ustar format; what that cannot hold stands in an extended
header before it: times with nanoseconds, names over 100 bytes or with other than ASCII, sizes of
8 GiB and more, large ids. GNU tar, libarchive and Python's `tarfile` read all of it.

A name that is not UTF-8 stands in the block itself as it is, which every reader takes as bytes.
Only where it is too long for that, the extended header has it, and says so by `hdrcharset`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

BLOCK = 512
END = bytes(2 * BLOCK)  # two blocks of zeros

FILE, HARD_LINK, SYMLINK, DIRECTORY = b"0", b"1", b"2", b"5"
EXTENDED = b"x"

_BLOCK = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_USTAR = b"ustar\x0000"
_NAME = 100  # bytes of a name in a block
_OCTAL_7, _OCTAL_11 = 1 << 21, 1 << 33  # what so many octal digits do not hold any more
_CHECKSUM = slice(148, 156)
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive; a directory's name ends in a slash."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    target: bytes = b""  # of a link


def header(member: Member) -> bytes:
    """All that stands before the bytes of a member."""
    records = _Records()
    name = records.name(b"path", member.name)
    target = records.name(b"linkpath", member.target)
    uid = records.number(b"uid", member.uid, _OCTAL_7)
    gid = records.number(b"gid", member.gid, _OCTAL_7)
    size = records.number(b"size", member.size, _OCTAL_11)
    mtime = records.time(member.mtime_ns)
    block = _block(name, member.kind, member.mode, uid, gid, size, mtime, target)
    extended = records.encoded()
    if not extended:
        return block
    head = _block(b"././@PaxHeader", EXTENDED, 0, 0, 0, len(extended), 0, b"")
    return b"".join((head, extended, padding(len(extended)), block))


def padding(size: int) -> bytes:
    """Zeros from the end of `size` bytes to the next block."""
    return bytes(-size % BLOCK)


class _Records:
    """What goes into the extended header. Each method gives what the block has instead."""

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._is_binary = False

    def name(self, key: bytes, value: bytes) -> bytes:
        if len(value) <= _NAME and value.isascii():
            return value
        try:
            value.decode()
        except UnicodeDecodeError:
            if len(value) <= _NAME:
                return value
            self._is_binary = True
        self._add(key, value)
        return value[:_NAME]

    def number(self, key: bytes, value: int, limit: int) -> int:
        if value < limit:
            return value
        self._add(key, b"%d" % value)
        return 0

    def time(self, nanoseconds: int) -> int:
        seconds, rest = divmod(abs(nanoseconds), _SECOND)
        if not rest and 0 <= nanoseconds < _OCTAL_11 * _SECOND:
            return seconds
        sign = b"-" if nanoseconds < 0 else b""
        text = b"%s%d.%09d" % (sign, seconds, rest)
        self._add(b"mtime", text.rstrip(b"0").rstrip(b"."))
        return seconds if 0 <= nanoseconds < _OCTAL_11 * _SECOND else 0

    def encoded(self) -> bytes:
        if self._is_binary:  # it holds for what follows it
            self._records.insert(0, b"21 hdrcharset=BINARY\n")
        return b"".join(self._records)

    def _add(self, key: bytes, value: bytes) -> None:
        """LENGTH KEY=VALUE; the length counts its own digits, too."""
        rest = b" %s=%s\n" % (key, value)
        length = len(rest) + 1
        while length != len(b"%d" % length) + len(rest):
            length = len(b"%d" % length) + len(rest)
        self._records.append(b"%d" % length + rest)


def _block(
    name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, target: bytes
) -> bytes:
    found = _BLOCK.pack(
        name,
        b"%07o" % (mode & 0o7777),
        b"%07o" % uid,
        b"%07o" % gid,
        b"%011o" % size,
        b"%011o" % mtime,
        b" " * 8,
        kind,
        target,
        _USTAR,
        b"",
        b"",
        b"",
        b"",
        b"",
    )
    return found[: _CHECKSUM.start] + b"%06o\0 " % sum(found) + found[_CHECKSUM.stop :]
