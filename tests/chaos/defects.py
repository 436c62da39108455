"""Defects that are planted to see whether the suite finds them.

Each replaces one thing in a process before it begins. What it is called is what is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Defect:
    """`plant` is called in core, in hands and in the controller."""

    what: str
    plant: Callable[[], None]


DEFECTS: dict[str, Defect] = {}
