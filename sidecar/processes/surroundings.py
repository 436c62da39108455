"""What all programs of a table share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar.bell import Bell
from sidecar.clock import Clock
from sidecar.hands.interface import Hands
from sidecar.journal import Emit
from sidecar.processes.output import Spawn
from sidecar.processes.store import ProgramStore
from sidecar.protocol.spool import OnFull
from sidecar.spool import Spool


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Made by `Processes`."""

    hands: Hands
    clock: Clock
    emit: Emit
    store: ProgramStore
    spawn: Spawn
    new_spool: Callable[[bytes, int, OnFull], Spool]
    note_end: Callable[[], None]
    hands_back: Bell = field(default_factory=Bell)
