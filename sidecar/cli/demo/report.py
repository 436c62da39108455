"""What the tour found: one line for each promise, with the figure that was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Line:
    """A promise, what was measured, and what is wrong with it. No problem: it held."""

    name: str
    promise: str
    figure: str
    problem: str | None = None

    @property
    def ok(self) -> bool:
        return self.problem is None

    @property
    def verdict(self) -> str:
        return "ok" if self.ok else "FAILED"


def first_problem(*checks: tuple[bool, str]) -> str | None:
    """The sentence of the first check that does not hold."""
    return next((sentence for holds, sentence in checks if not holds), None)


def failures(lines: Iterable[Line]) -> list[str]:
    """A sentence for each line that failed."""
    return [f"{line.name} FAILED: {line.problem}" for line in lines if not line.ok]


def as_json(lines: Sequence[Line], seconds: float) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "ok": all(line.ok for line in lines),
        "seconds": round(seconds, 1),
        "lines": [
            {
                "name": line.name,
                "promise": line.promise,
                "figure": line.figure,
                "ok": line.ok,
                "problem": line.problem,
            }
            for line in lines
        ],
    }
