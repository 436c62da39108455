"""The two events of a program that everybody counts on: that it began, and that it ended.

Each stands in the journal once at most, over all lives of the sidecar. Its number is put on record
beside the program at the very moment that it gets it, which is before it is written. So whoever
comes after a sidecar that was killed knows from where the journal ends whether it was: if not,
nobody has seen it, and it is told then.
"""

from __future__ import annotations

from typing import Any

from sidecar.processes.register import TellingAt
from sidecar.processes.surroundings import Surroundings


class Telling:
    """Of one program. `told` is what stands in the journal already."""

    def __init__(self, id: bytes, around: Surroundings, told: TellingAt) -> None:
        self._id = id
        self._around = around
        self._told = told

    def started(self, pid: int) -> None:
        """It runs. A second time is harmless."""
        if not self._told.started:
            number = self._around.emit("exec.started", {"pid": pid}, call=self._id)
            self._note(number, self._told.ended)

    def ended(self, pid: int, how: dict[str, Any]) -> None:
        """It has ended. Of one that nobody saw begin there is nothing to tell."""
        if self._told.started and not self._told.ended:
            number = self._around.emit("exec.ended", {"pid": pid, **how}, call=self._id)
            self._note(self._told.started, number)

    def _note(self, started: int, ended: int) -> None:
        self._told = TellingAt(self._around.store.series, started, ended)
        self._around.store.note_told(self._id, self._told)
