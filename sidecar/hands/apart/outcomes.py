"""What a tool says at its end: a map of plain values, checked as `messages` are.

How large it is the frame has bounded; what its values should be only the one who asked knows.
"""

from __future__ import annotations

import math
from typing import Any

from sidecar.errors import ProtocolError
from sidecar.protocol.fields import is_text

MAX_DEPTH = 4  # maps and lists within each other
MAX_NAME = 64  # characters


def outcome_from(value: Any) -> dict[str, Any]:
    """`value` if it is such a map. Raises `ProtocolError`."""
    if type(value) is not dict or not _is_plain(value, MAX_DEPTH):
        raise ProtocolError("plain values were expected from hands, and it sent something else")
    found: dict[str, Any] = value
    return found


def _is_plain(value: Any, depth: int) -> bool:
    if type(value) is dict:
        names = all(is_text(name) and len(name) <= MAX_NAME for name in value)
        return depth > 0 and names and all(_is_plain(item, depth - 1) for item in value.values())
    if type(value) is list:
        return depth > 0 and all(_is_plain(item, depth - 1) for item in value)
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is int:
        return abs(value) < 1 << 64
    return value is None or type(value) in (bool, str, bytes)
