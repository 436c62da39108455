"""Which ended programs go first, and what is remembered of those that went.

In this order: those whose call brought everything anyway (`exec.run`) before those of
`exec.start`, and of each the oldest. One that left something behind stays while another can
go, and one that is being read stays at all events.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from sidecar.processes.process import Process

REMEMBERED = 4096  # ids of programs that were forgotten


def victims(processes: Iterable[Process], alive: Container[bytes]) -> list[Process]:
    """All that may go, first to last. `alive`: the ids of those with survivors."""
    candidates = [one for one in processes if one.may_be_forgotten]
    return sorted(
        candidates,
        key=lambda one: (one.is_held or one.id in alive, not one.spec.is_brief, one.ended_wall),
    )


class Forgotten:
    """The ids of the latest programs that were forgotten."""

    def __init__(self) -> None:
        self._ids: dict[bytes, None] = {}  # oldest first

    def __contains__(self, id: bytes) -> bool:
        return id in self._ids

    def add(self, id: bytes) -> None:
        self._ids[id] = None
        if len(self._ids) > REMEMBERED:
            del self._ids[next(iter(self._ids))]
