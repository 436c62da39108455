"""How a log lies on disk: segment files, each a header and then frames, one after the other.

Numbers are little-endian, sizes bytes. A header says which log the segment belongs to and what
came before it, so that nobody need read older segments to know where this one begins:

    8  magic          2  format         2  zero          16  series
    8  ordinal of the segment, from 1
    8  `first`: the number that comes next        8  `bytes`: of all records before it
    4  CRC32 of all this

    frame:   4  CRC32 of the rest   4  length of the payload   1  kind   8  number   payload

A number is the owner's: the journal's are the events' and count on; 0 is "no number".

A file may end anywhere inside a frame: the process was killed while it wrote. That is *torn*,
and nothing is lost that anybody was told of. A frame that does not match its CRC although more
follows is *damage*. If its length is right, the frame behind it is found; else the rest is lost.
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

from sidecar.protocol.record import Record, record

FORMAT = 1
MAGIC = b"sidecar\x1a"  # a control character, so that no text file begins so
PAYLOAD_BYTES = 1 << 20  # of one frame; a length above it is no length

_HEADER = struct.Struct("<8sHH16sQQQ")
_CRC = struct.Struct("<I")
_HEAD = struct.Struct("<IBQ")
_FRAME = struct.Struct("<IIBQ")
HEADER_BYTES = _HEADER.size + _CRC.size
_CRC_BYTES = _CRC.size
FRAME_BYTES = _FRAME.size  # of a frame without its payload


class NewerFormat(Exception):
    """Written by a later version of this program, which alone can read it."""

    def __init__(self, format: int) -> None:
        super().__init__(f"format {format}, this version reads up to {FORMAT}")


class Damaged(Exception):
    """These bytes are not what was written."""


@record
class Heading(Record):
    """What the owner of a log knows when a segment begins: see the module's head."""

    first: int = 0
    bytes: int = 0


@record
class Header(Record):
    """The head of one segment."""

    series: bytes
    ordinal: int
    heading: Heading


class Frame(NamedTuple):
    """One record, and where its frame begins in what was scanned."""

    kind: int
    number: int
    payload: bytes
    offset: int

    @property
    def end(self) -> int:
        return self.offset + FRAME_BYTES + len(self.payload)


def encode_header(header: Header) -> bytes:
    heading = header.heading
    packed = _HEADER.pack(
        MAGIC,
        FORMAT,
        0,
        header.series,
        header.ordinal,
        heading.first,
        heading.bytes,
    )
    return packed + _CRC.pack(crc32(packed))


def decode_header(data: bytes) -> Header:
    """Raises `NewerFormat`, or `Damaged` for what is no header."""
    if len(data) < HEADER_BYTES or data[:8] != MAGIC:
        raise Damaged("no header of a segment")
    _, format, _, series, ordinal, first, size = _HEADER.unpack_from(data)
    if format > FORMAT:
        raise NewerFormat(format)
    (crc,) = _CRC.unpack_from(data, _HEADER.size)
    if crc32(data[: _HEADER.size]) != crc:
        raise Damaged("the header of a segment does not match its CRC")
    return Header(series, ordinal, Heading(first, size))


def encode_frame(kind: int, number: int, payload: bytes) -> bytes:
    head = _HEAD.pack(len(payload), kind, number)
    return _CRC.pack(crc32(payload, crc32(head))) + head + payload


@record
class Scan(Record):
    """The frames at the beginning of some bytes.

    `used` bytes of them are frames. `is_damaged` says that what follows does not match its CRC;
    otherwise more bytes are needed to tell.
    """

    frames: list[Frame]
    used: int
    is_damaged: bool


def scan(data: bytes, *, start: int = 0, base: int = 0, max_frames: int = 1 << 30) -> Scan:
    """All whole frames in `data` from `start`; their offsets count from `base` more."""
    frames: list[Frame] = []
    size = len(data)
    at = start
    unpack, crc_of = _FRAME.unpack_from, crc32  # locals: a start goes through all frames here
    while at + FRAME_BYTES <= size and len(frames) < max_frames:
        crc, length, kind, number = unpack(data, at)
        if length > PAYLOAD_BYTES:
            return Scan(frames, at - start, True)
        end = at + FRAME_BYTES + length
        if end > size:
            break
        if crc_of(data[at + _CRC_BYTES : end]) != crc:
            return Scan(frames, at - start, True)
        frames.append(Frame(kind, number, data[at + FRAME_BYTES : end], base + at))
        at = end
    return Scan(frames, at - start, False)


def behind_damage(data: bytes, at: int) -> int | None:
    """Where the next good frame begins, if the damage at `at` left the length as it was."""
    if at + FRAME_BYTES > len(data):
        return None
    _, length, _, _ = _FRAME.unpack_from(data, at)
    following: int = at + FRAME_BYTES + length
    if length <= PAYLOAD_BYTES and scan(data, start=following, max_frames=1).frames:
        return following
    return None


def segment_name(ordinal: int) -> str:
    """The file's name; sorted by name, segments are sorted by age."""
    return f"{ordinal:016x}.log"


def segment_ordinal(name: str) -> int | None:
    """The ordinal in a segment's file name; None: the file is none."""
    stem, dot, suffix = name.partition(".")
    if dot + suffix != ".log" or len(stem) != 16:
        return None
    try:
        return int(stem, 16)
    except ValueError:
        return None
