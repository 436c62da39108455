"""The wire format of protobuf: varints, keys, fields.

Source: protobuf.dev/programming-guides/encoding.

A *key* is what stands before a field, `number << 3 | wire type`. Writers return pieces that
the caller joins once; readers walk offsets and cut out only what was asked for, so that a
payload is copied once in each direction.
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.errors import ProtocolError

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

_SMALL = tuple(bytes((value,)) for value in range(0x80))

# (key, value, 0) of a number, (key, start, end) of anything that has a length.
Field = tuple[int, int, int]


def varint(value: int) -> bytes:
    if value < 0x80:
        return _SMALL[value]
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def wrap(key: bytes, parts: list[bytes]) -> list[bytes]:
    return [key, varint(sum(map(len, parts))), *parts]


def text(key: bytes, value: str | None) -> list[bytes]:
    return wrap(key, [value.encode()]) if value else []


def number(key: bytes, value: int) -> list[bytes]:
    return [key, varint(value)] if value else []


def optional(key: bytes, value: int | None) -> list[bytes]:
    return [] if value is None else [key, varint(value)]


def read_varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """The number at `position` and the position after it."""
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            # A tenth byte carries more bits than uint64 has; protobuf drops them.
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
        shift += 7
    raise ProtocolError(f"a number that does not end within 10 bytes or before offset {end}")


def fields(data: bytes, position: int, end: int) -> Iterator[Field]:
    """The fields between `position` and `end`; those of fixed width are passed over."""
    while position < end:
        key, position = read_varint(data, position, end)
        wire = key & 7
        if key < 8 or key >= 1 << 32:
            raise ProtocolError(f"field number {key >> 3}; expected 1 to {(1 << 29) - 1}")
        if wire in (_VARINT, _LENGTH):
            value, position = read_varint(data, position, end)
            if wire == _VARINT:
                yield key, value, 0
                continue
            start, position = position, position + value
        elif wire in (_FIXED64, _FIXED32):
            start, position = position, position + (8 if wire == _FIXED64 else 4)
        else:
            raise ProtocolError(f"wire type {wire} in field {key >> 3}; expected 0, 1, 2 or 5")
        if position > end:
            raise ProtocolError(
                f"field {key >> 3} ends at offset {position}, but its message at {end}"
            )
        if wire == _LENGTH:
            yield key, start, position


def read_text(data: bytes, start: int, end: int) -> str:
    try:
        return data[start:end].decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"a string that is not UTF-8: {error.reason}") from None
