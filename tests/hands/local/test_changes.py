"""What is told of a path that changed more than once."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.hands.fileinterface import FileType
from sidecar.hands.local.watch.changes import WAITING_BYTES, Changes

FILE, UNKNOWN = FileType.FILE, FileType.UNKNOWN


def rows(changes: Changes) -> list[Any]:
    found: list[Any] = changes.take(lambda path: FileType.SYMLINK)["changes"]
    return found


@pytest.mark.parametrize(
    "happened, told",
    [
        ("added", ["added"]),
        ("added modified", ["added"]),
        ("added removed", []),
        ("added removed added", ["added"]),
        ("modified modified", ["modified"]),
        ("modified removed", ["removed"]),
        ("removed added", ["modified"]),
        ("removed added removed", ["removed"]),
    ],
)
def test_a_path_is_told_once_as_it_is_now(happened: str, told: list[str]) -> None:
    changes = Changes()
    for kind in happened.split():
        getattr(changes, kind)(b"a", FILE)
    assert bool(changes) is bool(told)
    assert rows(changes) == [[kind, b"a", "file"] for kind in told]
    assert not changes


def test_what_nobody_has_looked_at_is_looked_at_when_it_is_told() -> None:
    changes = Changes()
    changes.added(b"a", UNKNOWN)
    changes.removed(b"b", UNKNOWN)
    assert rows(changes) == [["added", b"a", "symlink"], ["removed", b"b", "unknown"]]


def test_batches_are_bounded_and_in_order() -> None:
    changes = Changes()
    for number in range(5000):
        changes.added(b"%06d" % number, FILE)
    batches = []
    while changes:
        batches.append(rows(changes))
    assert [row[1] for batch in batches for row in batch] == [b"%06d" % n for n in range(5000)]
    assert all(len(batch) <= 2000 for batch in batches)


def test_what_nobody_takes_is_bounded_and_then_lost() -> None:
    changes = Changes()
    for number in range(WAITING_BYTES // 1000):
        changes.added(b"%01000d" % number, FILE)
    assert changes.take(lambda path: FILE) == {"lost": "slow reader"}
    assert not changes, "nothing is gathered until somebody reads"
    changes.added(b"after", FILE)
    assert rows(changes) == [["added", b"after", "file"]]


def test_what_is_lost_stands_for_what_waited() -> None:
    changes = Changes()
    changes.added(b"before", FILE)
    changes.lose("overflow")
    changes.added(b"after", FILE)
    assert changes.take(lambda path: FILE) == {"lost": "overflow"}
    assert rows(changes) == [["added", b"after", "file"]]


def test_directories_that_cannot_be_watched_are_named_unless_they_are_many() -> None:
    changes = Changes()
    changes.cannot_watch(b"a")
    assert changes.take(lambda path: FILE) == {"lost": "unreadable", "paths": [b"a"]}
    for number in range(100):
        changes.cannot_watch(b"%d" % number)
    assert changes.take(lambda path: FILE) == {"lost": "unreadable"}
    assert not changes
