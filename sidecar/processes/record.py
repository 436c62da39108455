"""What is known of a program: how it was to be started, how it stands, how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sidecar.hands.interface import Exit, Program
from sidecar.processes.timeouts import Which
from sidecar.protocol.spool import OnFull


class State(StrEnum):
    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"  # hands is away, or came back without knowing how it ended


@dataclass(frozen=True, slots=True)
class Spec:
    """What to start, and what becomes of it. See `protocol.commands.ProgramArguments`."""

    program: Program
    input: bytes | None = None  # all of it; None: it has none, or it stays open
    timeout: float | None = None  # seconds, like the following
    idle_timeout: float | None = None
    grace: float = 5.0
    ends_daemons: bool = False
    on_full: OnFull = OnFull.DROP
    is_brief: bool = False  # its call brings everything: of ended programs the first to forget


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended: `exit` as observed by wait, or None and `why` nobody knows."""

    exit: Exit | None
    duration: float
    which: Which | None = None  # the timeout that ended it
    why: str = ""


@dataclass(frozen=True, slots=True)
class Resize:
    """From `offset` of the output on, the terminal had this size."""

    offset: int
    rows: int
    cols: int


def describe(ended: Ended) -> dict[str, Any]:
    """How a program ended, in an answer or event; status and signal are None if unknown."""
    exit = ended.exit
    if exit is None:
        return {"status": None, "signal": None, "outcome": "unknown"}
    return {
        "status": exit.status,
        "signal": exit.signal,
        "user_cpu": exit.user_cpu,
        "system_cpu": exit.system_cpu,
        "max_rss": exit.max_rss,
    }
