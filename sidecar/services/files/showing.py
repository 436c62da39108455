"""Names and stats as they travel."""

from __future__ import annotations

from typing import Any

from sidecar.hands.interface import Entry, FileStat
from sidecar.protocol.envelope import error_map


def show_name(name: bytes) -> str | bytes:
    """A name as it travels: text where it is UTF-8, else its bytes."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name


def show_entry(entry: Entry) -> dict[str, Any]:
    """The row of a list. What could not be looked at has an error in place of a stat; a directory
    that cannot be entered has both."""
    row: dict[str, Any] = {"name": show_name(entry.path)}
    if entry.stat is not None:
        row |= describe(entry.stat)
    if entry.error is not None:
        row["error"] = error_map(entry.error)
    return row


def describe(stat: FileStat) -> dict[str, Any]:
    described: dict[str, Any] = {
        "type": str(stat.type),
        "size": stat.size,
        "mode": stat.mode,
        "mtime_ns": stat.mtime_ns,
        "uid": stat.uid,
        "gid": stat.gid,
        "links": stat.links,
        "etag": stat.etag,
    }
    if stat.target is not None:
        described["target"] = show_name(stat.target)
    return described
