"""What a connection may do with groups: from the roles of its token, and granted since.

Sources: "Wildcard group roles" and "Permissions" on Microsoft Learn (azure-web-pubsub).

    webpubsub.sendToGroup                 publish to any group
    webpubsub.sendToGroup.<group>         to that one; all that follows is its name
    webpubsub.sendToGroups.<pattern>      to those that match
    webpubsub.joinLeaveGroup...           the same for joining and leaving

In a pattern a dot separates segments: `?` is one character but no dot, `*` any run without
dots, `**` any run, and a backslash takes the next character as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

from sidecar.errors import Invalid, LimitExceeded

MAX_PATTERN = 1024  # characters
MAX_STARS = 5  # of one pattern, those of `**` included
MAX_PATTERNS = 10
MAX_LITERALS = 1000

_TOKENS = re.compile(r"\\[\\*?]|\*\*|\*|\?|.", re.DOTALL)
_WILDCARDS = {"**": ".*", "*": r"[^.]*", "?": r"[^.]"}


class Right(StrEnum):
    """What a role or a grant is about; the values are those of roles and REST paths."""

    SEND = "sendToGroup"
    JOIN = "joinLeaveGroup"


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """`pattern` as a regular expression; raises `LimitExceeded` if it is too long or too wild."""
    if len(pattern) > MAX_PATTERN:
        raise LimitExceeded("characters of a role's pattern", size=len(pattern), limit=MAX_PATTERN)
    tokens = _TOKENS.findall(pattern)
    stars = sum(len(token) for token in tokens if token.startswith("*"))
    if stars > MAX_STARS:
        raise LimitExceeded("stars in a role's pattern", size=stars, limit=MAX_STARS)
    expression = [_WILDCARDS.get(token) or re.escape(token[-1]) for token in tokens]
    return re.compile("".join(expression), re.DOTALL)


class Permissions:
    """The rights of one connection. Roles that are not about groups are ignored."""

    def __init__(self, roles: Iterable[str] = ()) -> None:
        self._any: set[Right] = set()
        self._literals: dict[Right, set[str]] = {right: set() for right in Right}
        self._patterns: dict[Right, list[re.Pattern[str]]] = {right: [] for right in Right}
        for role in roles:
            self._add_role(role)

    def allows(self, right: Right, group: str | None) -> bool:
        """Whether `right` covers `group`; None asks for all groups."""
        if right in self._any:
            return True
        if group is None:
            return False
        return group in self._literals[right] or any(
            pattern.fullmatch(group) for pattern in self._patterns[right]
        )

    def grant(self, right: Right, group: str | None) -> None:
        if group is None:
            self._any.add(right)
            return
        literals = self._literals[right]
        if group not in literals and len(literals) >= MAX_LITERALS:
            raise LimitExceeded(f"groups named by {right}", size=len(literals) + 1, limit=1000)
        literals.add(group)

    def revoke(self, right: Right, group: str | None) -> None:
        if group is None:
            self._any.discard(right)
        else:
            self._literals[right].discard(group)

    def _add_role(self, role: str) -> None:
        for right in Right:
            base = f"webpubsub.{right}"
            if role == base:
                self._any.add(right)
            elif role.startswith(f"{base}."):
                self.grant(right, role.removeprefix(f"{base}."))
            elif role.startswith(f"{base}s."):
                self._add_pattern(right, role.removeprefix(f"{base}s."))

    def _add_pattern(self, right: Right, pattern: str) -> None:
        patterns = self._patterns[right]
        if len(patterns) >= MAX_PATTERNS:
            raise LimitExceeded(f"patterns of {right}", size=len(patterns) + 1, limit=MAX_PATTERNS)
        patterns.append(compile_pattern(pattern))


def check_group(group: str) -> str:
    """`group` if it can be the name of one; raises `Invalid` otherwise."""
    if not 1 <= len(group) <= 1024 or group.isspace():
        raise Invalid(f"a group name of {len(group)} characters; expected 1 to 1024, not all blank")
    return group
