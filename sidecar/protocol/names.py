"""Names on the hub: ids, groups, user ids, roles. The only module that builds them.

Ids of runs and controllers are one DNS label (RFC 1123 §2.1: 1 to 63 of a-z, 0-9 and
inner hyphens). That is stricter than the hub needs, on purpose: a dot or a star inside
an id would widen a role such as `webpubsub.sendToGroups.out.<run>.*`, because in Azure's
wildcard patterns a dot separates segments and a star matches one.

    in.<run>                  commands of a controller with full scope
    see.<run>                 commands of a controller that may only watch
    out.<run>                 `hello`, for every controller of the run
    out.<run>.<controller>    what the sidecar sends to one controller
    sandbox:<run>             the sidecar's user id (REST calls go to it)
    control:<controller>      a controller's user id
"""

from __future__ import annotations

import re
from enum import StrEnum

from sidecar.errors import Invalid
from sidecar.protocol.record import Record, record

ID_PATTERN = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"
_ID = re.compile(ID_PATTERN + r"\Z")

GROUPS_CLAIM = "webpubsub.group"


class Scope(StrEnum):
    """What the group a message came through allows; the hub sets it, nobody can forge it."""

    FULL = "full"
    WATCH = "watch"


def check_id(value: str, what: str = "id") -> str:
    """`value` if it is a well-formed id; raises `Invalid` naming `what`, the rule and the value."""
    if not isinstance(value, str) or not _ID.match(value):
        shown = repr(value)
        if len(shown) > 80:
            shown = shown[:77] + "..."
        raise Invalid(
            f"{what} {shown} is not an id: 1 to 63 characters of a-z, 0-9 and inner hyphens"
        )
    return value


@record
class Subject(Record):
    """What a sidecar serves: a run. Every group name and role of it is built here."""

    run: str

    def __post_init__(self) -> None:
        check_id(self.run, "run id")

    @property
    def commands_group(self) -> str:
        return f"in.{self.run}"

    @property
    def watch_group(self) -> str:
        return f"see.{self.run}"

    @property
    def hello_group(self) -> str:
        return f"out.{self.run}"

    @property
    def user_id(self) -> str:
        return f"sandbox:{self.run}"

    def reply_group(self, controller: str) -> str:
        return f"out.{self.run}.{check_id(controller, 'controller id')}"

    def inbound_group(self, scope: Scope) -> str:
        """Where a controller with `scope` sends."""
        return self.commands_group if scope is Scope.FULL else self.watch_group

    def scope_of(self, group: str) -> Scope | None:
        """The scope that a message through `group` has; None for a group that is not ours."""
        if group == self.commands_group:
            return Scope.FULL
        return Scope.WATCH if group == self.watch_group else None


@record
class Grant(Record):
    """What a token says: its user id, the groups it is born into, and its roles."""

    user_id: str
    groups: tuple[str, ...]
    roles: tuple[str, ...]

    def claims(self) -> dict[str, object]:
        """The claims of the Azure client access token, without `aud` and `exp`."""
        return {"sub": self.user_id, GROUPS_CLAIM: list(self.groups), "role": list(self.roles)}


def sidecar_grant(run: str) -> Grant:
    """The sidecar's rights: it is born into its two inbound groups and may join nothing."""
    subject = Subject(run)
    return Grant(
        subject.user_id,
        (subject.commands_group, subject.watch_group),
        (
            f"webpubsub.sendToGroup.{subject.hello_group}",
            f"webpubsub.sendToGroups.{subject.hello_group}.*",
        ),
    )


def controller_grant(controller: str, runs: list[str], scope: Scope = Scope.FULL) -> Grant:
    """A controller's rights over `runs` (at most 50: the roles travel in one header)."""
    check_id(controller, "controller id")
    if not 1 <= len(runs) <= 50:
        raise Invalid(f"{len(runs)} runs in one token: between 1 and 50 allowed")
    groups: list[str] = []
    roles: list[str] = []
    for run in runs:
        subject = Subject(run)
        groups += [subject.hello_group, subject.reply_group(controller)]
        roles.append(f"webpubsub.sendToGroup.{subject.inbound_group(scope)}")
    return Grant(f"control:{controller}", tuple(groups), tuple(roles))
