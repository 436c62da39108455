"""Events and values in words, for people."""

from __future__ import annotations

import json
from typing import Any

from sidecar.cli.output import jsonable
from sidecar.client import Event, Gap

WIDTH = 120  # characters of an event's data in one line


GAPS = {
    "corrupt": "the disk no longer has them as they were written",
    "disk": "the disk would not take them, and memory had no room for so many",
    "evicted": "the journal was full, and the oldest go first",
}


def describe_event(event: Event) -> str:
    """The data of an event, short."""
    text = describe(event.data)
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def describe_gap(gap: Gap) -> str:
    """What cannot be had any more, and why."""
    if gap.why == "new_series":
        return "a new series begins: the one before was lost, or its end was"
    last = "?" if gap.last is None else gap.last
    return f"events {gap.first} to {last} are gone: {GAPS.get(gap.why, gap.why)}"


def describe(value: Any) -> str:
    """`name=value` for each that is set; nested values as JSON."""
    if value is None:
        return ""
    if not isinstance(value, dict):
        return _one(value)
    return " ".join(f"{name}={_one(item)}" for name, item in value.items() if item is not None)


def _one(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()[:16]
    if isinstance(value, str):
        return value if value and value.isprintable() and " " not in value else json.dumps(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(jsonable(value))
