"""May this caller give this command? Rules in, a decision with its reason out.

Every call passes `decide` before its handler sees it, and a refusal travels with the reason.
The rules so far are those of scope, which the hub vouches for:

    through `in.<run>`         every command
    through `see.<run>`        commands that only read
    by REST, incarnation named every command
    by REST, without           commands that only read: of two sidecars of one run, both would
                               serve it
"""

from __future__ import annotations

from dataclasses import dataclass

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
    """Allowed, or not and why; `code` says whose rule it was."""

    allowed: bool
    reason: str = ""
    code: Code = Code.DENIED

    def enforce(self) -> None:
        """Raises the refusal as the error that the caller gets."""
        if not self.allowed:
            raise CallError(self.code, self.reason)


ALLOWED = Decision(True)


class Policy:
    """The rules of one sidecar."""

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
