"""What the program learns from its tokens, and has to act on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _ignore(*arguments: object) -> None:
    """Nobody wants to know."""


@dataclass(slots=True, repr=False, eq=False)
class TokenHooks:
    """Called in the event loop, when it happens and once for each time: quick, never raising."""

    generation: Callable[[int], None] = _ignore  # the platform has counted this start; before hello
    superseded: Callable[[], None] = _ignore  # a later start has taken over: take no more calls
    ended: Callable[[], None] = _ignore  # the platform says that the run is over
    refused: Callable[[str], None] = _ignore  # for good; the sentence says why and the way out
    accepted: Callable[[], None] = _ignore  # after any of these three: all is well again
    switched: Callable[[], None] = _ignore  # an operator repointed us: dial, even when connected
