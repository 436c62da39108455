"""A directory that is watched, looked into without a thread: the test says when it is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sidecar.hands.local.beneath import Beneath
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.stop import Stop
from sidecar.hands.local.watch.watching import Watching

OPTIONS: dict[str, Any] = {"recursive": True, "exclude": [], "ignore": "none"}


class Watcher:
    """One watch, and what it has told."""

    def __init__(self, watching: Watching) -> None:
        self.watching = watching

    def read_all(self) -> None:
        """Take all that the kernel has; what that leads to, too."""
        stop = Stop()
        try:
            while stop.wait([self.watching.fd], timeout=0):
                self.watching.receive()
        finally:
            stop.close()

    def batches(self) -> list[dict[str, Any]]:
        """What there is to tell now."""
        self.read_all()
        found = []
        while self.watching.changes:
            found.append(self.watching.take())
        return found

    def rows(self) -> set[tuple[str, str, str]]:
        """The changes since the last time. Nothing was lost, and no path told twice."""
        batches = self.batches()
        assert not any("lost" in batch for batch in batches)
        rows = [tuple(row) for batch in batches for row in batch["changes"]]
        assert len({path for _, path, _ in rows}) == len(rows)
        return {(kind, path.decode(errors="surrogateescape"), type) for kind, path, type in rows}

    def told(self) -> set[str]:
        """The same in short: `+a`, `~b`, `-c/`."""
        signs = {"added": "+", "modified": "~", "removed": "-"}
        slashes = {"directory": "/"}
        return {signs[kind] + path + slashes.get(type, "") for kind, path, type in self.rows()}

    def lost(self) -> list[str]:
        return [batch["lost"] for batch in self.batches() if "lost" in batch]


@contextmanager
def watching(root: Path, path: str = "", **options: Any) -> Iterator[Watcher]:
    """A watch of `path` below `root`, which has begun."""
    roots = Roots(Beneath(str(root)))
    stop = Stop()
    try:
        found = Watching(roots, path, OPTIONS | options, stop)
        try:
            found.begin()
            yield Watcher(found)
        finally:
            found.close()
    finally:
        stop.close()
        roots.close()
