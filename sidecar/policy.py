"""May this caller give this command, and may so many bytes leave? Rules in, a decision with its
reason out.

Every call passes `decide` before its handler sees it, and a refusal travels with the reason.
The rules so far are those of scope, which the hub vouches for:

    through `in.<run>`         every command
    through `see.<run>`        commands that only read
    by REST, incarnation named every command
    by REST, without           commands that only read: of two sidecars of one run, both would
                               serve it

Of content (`egress` says what that is) a call and the run may each be allowed so many bytes. A
limit is a count that may be reached and not passed; whoever watches only spends of it, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar.errors import CallError, Code
from sidecar.protocol.effects import Effect
from sidecar.protocol.names import Scope


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for what. `is_addressed`: this very process is meant, by attachment or by
    incarnation."""

    command: str
    effect: Effect
    scope: Scope
    is_addressed: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed, or not and why; `code` says whose rule it was, `details` go with the error."""

    allowed: bool
    reason: str = ""
    code: Code = Code.DENIED
    details: Mapping[str, Any] = field(default_factory=dict)

    def enforce(self) -> None:
        """Raises the refusal as the error that the caller gets."""
        if not self.allowed:
            raise CallError(self.code, self.reason, **self.details)


ALLOWED = Decision(True)


@dataclass(frozen=True, slots=True)
class EgressLimits:
    """Bytes of content that may leave; None: any number."""

    call: int | None = None
    run: int | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """Bytes of content that have left, of one call and of its whole run."""

    call: int
    run: int


class Policy:
    """The rules of one sidecar."""

    def __init__(self, egress: EgressLimits | None = None) -> None:
        self.egress = egress or EgressLimits()

    def decide(self, request: Request) -> Decision:
        if request.effect is Effect.READ:
            return ALLOWED
        if request.scope is Scope.WATCH:
            return Decision(False, f"{request.command} through a watch-only group", Code.FORBIDDEN)
        if not request.is_addressed:
            return Decision(
                False,
                f"{request.command} without an attachment must name this sidecar's incarnation",
                Code.FORBIDDEN,
            )
        return ALLOWED

    def decide_egress(self, size: int, spent: Spent) -> Decision:
        """May `size` more bytes of content leave? The details of a refusal are `which` limit it
        was, the `limit`, and what was `spent` of it."""
        for which, limit, used in self._egress(spent):
            if size > max(0, limit - used):
                return Decision(
                    False,
                    f"{size} bytes of content, when {used} of the {limit} that may leave in one"
                    f" {which} have left (SIDECAR_EGRESS_{which.upper()})",
                    details={"which": which, "limit": limit, "spent": used},
                )
        return ALLOWED

    def egress_left(self, spent: Spent) -> int | None:
        """How many more bytes of content may leave; None: any number."""
        left = [max(0, limit - used) for _, limit, used in self._egress(spent)]
        return min(left, default=None)

    def _egress(self, spent: Spent) -> list[tuple[str, int, int]]:
        """Of each limit that is set: its name, itself, and what was spent of it."""
        limits = self.egress
        rows = (("call", limits.call, spent.call), ("run", limits.run, spent.run))
        return [(which, limit, used) for which, limit, used in rows if limit is not None]
