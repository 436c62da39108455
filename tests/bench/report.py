"""Rows of a report: a ratio or a count, the goal it is held to, and the two sides behind it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Goal:
    """`value` is to be at most, or at least, `limit`."""

    is_ceiling: bool
    limit: float

    def __str__(self) -> str:
        return f"{'<=' if self.is_ceiling else '>='} {self.limit:g}"

    def holds(self, value: float) -> bool:
        return value <= self.limit if self.is_ceiling else value >= self.limit


def at_most(limit: float) -> Goal:
    return Goal(True, limit)


def at_least(limit: float) -> Goal:
    return Goal(False, limit)


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was measured. Without a `unit`, `value` is a ratio within one run; `sides`
    are the medians behind it, which mean nothing on another machine. What could not be measured
    has no value, and `what` says why."""

    bench: str
    what: str
    value: float | None
    goal: Goal | None = None
    unit: str = ""
    sides: dict[str, str] = field(default_factory=dict)
    rounds: int = 1

    @property
    def verdict(self) -> str:
        if self.goal is None or self.value is None:
            return ""
        return "holds" if self.goal.holds(self.value) else "MISSED"


HEAD = ("benchmark", "what", "value", "goal", "", "rounds", "behind it")


def table(rows: Sequence[Row]) -> str:
    """The rows as text, in columns."""
    cells = [HEAD, *map(_cells, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEAD))]
    lines = ["  ".join(map(str.ljust, row, widths)) for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    behind = ", ".join(f"{name} {value}" for name, value in row.sides.items())
    value = "" if row.value is None else f"{row.value:.3g} {row.unit}".strip()
    goal = "" if row.goal is None else str(row.goal)
    return row.bench, row.what, value, goal, row.verdict, str(row.rounds), behind


def document(rows: Sequence[Row]) -> str:
    """The rows as JSON, with what they were measured on."""
    return json.dumps({"machine": _machine(), "rows": [_plain(row) for row in rows]}, indent=2)


def _plain(row: Row) -> dict[str, Any]:
    goal = None if row.goal is None else str(row.goal)
    return {**asdict(row), "goal": goal, "verdict": row.verdict}


def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
    }
