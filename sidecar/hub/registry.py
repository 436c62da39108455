"""Who is there: sessions by connection id, by user and by group.

A group exists while it has members, and membership belongs to a session: it survives a drop and
ends with the session. Names of groups are case-sensitive.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sidecar.hub.faults import is_of
from sidecar.hub.session import HubSession

# Ordered, so that deliveries go out in the order in which members joined.
_Members = dict[HubSession, None]


class Registry:
    """The three indexes, kept in step."""

    def __init__(self) -> None:
        self._sessions: dict[str, HubSession] = {}
        self._users: dict[str, _Members] = {}
        self._groups: dict[str, _Members] = {}

    def __iter__(self) -> Iterator[HubSession]:
        return iter(tuple(self._sessions.values()))

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, connection_id: str) -> HubSession | None:
        return self._sessions.get(connection_id)

    def of_user(self, user_id: str) -> Collection[HubSession]:
        return tuple(self._users.get(user_id, ()))

    def of_group(self, group: str) -> Collection[HubSession]:
        return tuple(self._groups.get(group, ()))

    def find(self, who: str) -> Collection[HubSession]:
        """The session with that connection id, or those of the users that match a pattern."""
        session = self.get(who)
        return [one for one in self if is_of(one, who)] if session is None else (session,)

    def add(self, session: HubSession) -> None:
        self._sessions[session.connection_id] = session
        if session.user_id is not None:
            self._users.setdefault(session.user_id, {})[session] = None

    def remove(self, session: HubSession) -> None:
        """Take `session` out of everything; a second call is harmless."""
        if self._sessions.pop(session.connection_id, None) is None:
            return
        for group in tuple(session.groups):
            self.leave(session, group)
        if session.user_id is not None:
            _take_out(self._users, session.user_id, session)

    def join(self, session: HubSession, group: str) -> None:
        session.groups.add(group)
        self._groups.setdefault(group, {})[session] = None

    def leave(self, session: HubSession, group: str) -> None:
        session.groups.discard(group)
        _take_out(self._groups, group, session)


def _take_out(index: dict[str, _Members], name: str, session: HubSession) -> None:
    members = index.get(name, {})
    members.pop(session, None)
    if not members:
        index.pop(name, None)
