"""What a sidecar answers of files, as far as a wrong value would do harm here.

A hostile one may say anything. Sizes are what is waited for and held in memory, modes and times
are given to the kernel, names to a terminal; so each is what a file can have, or the answer is
`internal`, as any other that makes no sense.
"""

from __future__ import annotations

from typing import Any

from sidecar.errors import CallError, Code

MODES = 0o7777
MOST = (1 << 63) - 1  # of a size, or of nanoseconds: 64 bits with a sign (off_t, utimensat(2))


def size_of(value: Any) -> int:
    """Of bytes."""
    return _number(value, 0, MOST, "size")


def mode_of(value: Any) -> int:
    """Permission bits."""
    return _number(value, 0, MODES, "mode")


def time_of(value: Any) -> int:
    """Nanoseconds since the epoch, or before it."""
    return _number(value, -MOST, MOST, "time")


def path_of(value: Any) -> str | bytes:
    """Bytes where it is not UTF-8."""
    if type(value) not in (str, bytes):
        raise senseless("path")
    found: str | bytes = value
    return found


def text_of(value: Any) -> str:
    """A type, or an etag."""
    if type(value) is not str:
        raise senseless("text")
    return value


def senseless(what: str) -> CallError:
    """Of an answer without `what` it should have."""
    return CallError(Code.INTERNAL, f"the sidecar answered with no {what} that a file can have")


def _number(value: Any, least: int, most: int, what: str) -> int:
    if type(value) is not int or not least <= value <= most:
        raise senseless(what)
    return value
