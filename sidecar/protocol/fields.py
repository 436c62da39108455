"""What the fields of envelopes may hold: one check for each shape, and its words for errors.

A check is asked for every field that comes from outside, so it tests exact types (`True` is
not an unsigned integer) and has no other cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def is_uint(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def is_text(value: Any) -> bool:
    return type(value) is str


def is_bytes(value: Any) -> bool:
    return type(value) is bytes


def is_id(value: Any) -> bool:
    return type(value) is bytes and len(value) == 16


def is_map(value: Any) -> bool:
    return type(value) is dict


def is_texts(value: Any) -> bool:
    return type(value) is list and all(type(item) is str for item in value)


def is_uints(value: Any) -> bool:
    return type(value) is list and all(is_uint(item) for item in value)


def is_window(value: Any) -> bool:
    return is_uints(value) and len(value) == 2


def is_digest(value: Any) -> bool:
    return type(value) is bytes and len(value) == 32


def is_limits(value: Any) -> bool:
    return type(value) is dict and all(is_text(k) and is_uint(v) for k, v in value.items())


def is_offsets(value: Any) -> bool:
    return type(value) is dict and all(is_uint(n) and is_uint(at) for n, at in value.items())


def is_resumes(value: Any) -> bool:
    return type(value) is dict and all(
        is_uint(n) and is_uints(at) and len(at) == 3 for n, at in value.items()
    )


def is_ends(value: Any) -> bool:
    return type(value) is dict and all(
        is_uint(n)
        and type(at) is list
        and len(at) == 2
        and is_uint(at[0])
        and (at[1] is None or is_digest(at[1]))
        for n, at in value.items()
    )


def is_bool(value: Any) -> bool:
    return type(value) is bool


def is_anything(value: Any) -> bool:
    return True


WORDS: dict[Callable[[Any], bool], str] = {
    is_uint: "an unsigned integer",
    is_text: "text",
    is_bytes: "a byte string",
    is_id: "16 bytes",
    is_map: "a map",
    is_texts: "a list of text",
    is_uints: "a list of unsigned integers",
    is_window: "a list of two unsigned integers",
    is_digest: "32 bytes",
    is_limits: "a map of text to unsigned integers",
    is_offsets: "a map of unsigned integers to unsigned integers",
    is_resumes: "a map of stream number to [received, hashed from, limit]",
    is_ends: "a map of stream number to [offset, digest]",
    is_bool: "true or false",
    is_anything: "anything",
}
