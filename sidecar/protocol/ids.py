"""Ids of calls, series and incarnations: UUIDv7, 16 bytes.

Source: RFC 9562, section 5.7 (layout) and 6.2, method 2 (several in one millisecond).

    bits    0..47   milliseconds since the Unix epoch, big-endian
           48..51   version, 0b0111
           52..63   random
           64..65   variant, 0b10
           66..127  random

Sorted as bytes they are sorted by time. Receipts rely on the time: it says whether an id that
is not remembered is new or forgotten.
"""

from __future__ import annotations

from sidecar.errors import Invalid

ID_BYTES = 16
RANDOM_BYTES = 10
_MAX_MILLIS = (1 << 48) - 1
_RANDOM_BITS = 74
_STEP_BITS = 32


def uuid7(*, millis: int, random: bytes) -> bytes:
    """The id of a moment; six of the eighty `random` bits are not used."""
    if not 0 <= millis <= _MAX_MILLIS:
        raise Invalid(f"{millis} ms is not a time of a UUIDv7: 48 bits, not negative")
    if len(random) != RANDOM_BYTES:
        raise Invalid(f"{len(random)} random bytes: {RANDOM_BYTES} expected")
    return _build(millis, int.from_bytes(random, "big") >> (8 * RANDOM_BYTES - _RANDOM_BITS))


def uuid7_after(previous: bytes, *, millis: int, random: bytes) -> bytes:
    """An id that sorts after `previous`, of `millis` if that is possible.

    Within a millisecond, or when the clock went back, the random part of `previous` counts on
    by a random step: unlike a plain counter that gives nobody the next id.
    """
    before = uuid7_millis(previous)
    if millis > before:
        return uuid7(millis=millis, random=random)
    step = 1 + (int.from_bytes(random, "big") & ((1 << _STEP_BITS) - 1))
    counted = _random_part(previous) + step
    if counted >> _RANDOM_BITS:
        return uuid7(millis=before + 1, random=random)
    return _build(before, counted)


def uuid7_millis(id: bytes) -> int:
    """The time in an id: milliseconds since the Unix epoch on its maker's clock."""
    return int.from_bytes(id[:6], "big")


def is_uuid7(id: bytes) -> bool:
    """Whether these are 16 bytes with the version and variant of a UUIDv7."""
    return len(id) == ID_BYTES and id[6] >> 4 == 0b0111 and id[8] >> 6 == 0b10


def check_uuid7(id: bytes, what: str = "id") -> bytes:
    """`id` if it is a UUIDv7; raises `Invalid` naming `what` and the value."""
    if not is_uuid7(id):
        raise Invalid(f"{what} {id[:ID_BYTES].hex()} ({len(id)} bytes) is not a UUIDv7")
    return id


def show(id: bytes) -> str:
    """The usual form, 8-4-4-4-12, for logs and people."""
    text = id.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _build(millis: int, random: int) -> bytes:
    value = millis << 80 | 0b0111 << 76 | random >> 62 << 64 | 0b10 << 62 | random & (1 << 62) - 1
    return value.to_bytes(ID_BYTES, "big")


def _random_part(id: bytes) -> int:
    value = int.from_bytes(id, "big")
    return (value >> 64 & 0xFFF) << 62 | value & (1 << 62) - 1
