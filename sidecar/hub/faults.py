"""Faults on demand: what networks, maintenance and other hubs do to clients.

All of them are off until they are set. They strike at counts and not at times, so that a test
that draws them from a seed can be repeated. Users are named by a pattern (fnmatch(3): `*`,
`sandbox:*`, `control:me`); a connection without a user has the empty name.

    enforce_expiry   a connection ends when its token expires (close code 1008), as with hubs
                     that look at a token longer than the service does
    ack_delay        seconds by which every ack is held back; infinite withholds them
    lose_acks        the next n acks are not sent, and what they would have said has been done
    cut_after        the connection of the nth frame is cut, or closed with a code
    away             every connection is cut and no other accepted, for a while

Whoever counts a frame of a connection that is to be cut has already carried it out (inbound) or
handed it to the socket (outbound). So a cut on the way in loses the frame's ack, and one on the
way out may lose the frame.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from sidecar.errors import Invalid
from sidecar.hub.session import HubSession

EXPIRED = 1008  # close code: nothing to recover, get a new token
EXPIRED_REASON = "the access token has expired"


class Direction(StrEnum):
    """Of a frame, as the hub sees it."""

    IN = "in"
    OUT = "out"


@dataclass(slots=True)
class Cut:
    """Strikes the connection of the `after`th frame of these users, then counts again.

    Without a `code` TCP is cut; with `forget` the session cannot be recovered.
    """

    after: int
    user: str = "*"
    direction: Direction = Direction.IN
    code: int | None = None
    reason: str = ""
    forget: bool = False
    times: int = 1  # strikes until it is spent
    seen: int = 0  # frames since the last one

    def __post_init__(self) -> None:
        if self.after < 1 or self.times < 1:
            raise Invalid(f"a cut after {self.after} frames, {self.times} times: 1 or more each")
        if self.code is not None:
            check_close_code(self.code)


@dataclass(slots=True)
class LostAcks:
    """How many acks to these users are still to be lost."""

    count: int
    user: str = "*"


class Faults:
    """The faults of one hub. `struck` counts, by kind, how often one hit a connection."""

    def __init__(self) -> None:
        self.enforce_expiry = False
        self.ack_delay = 0.0
        self.cuts: list[Cut] = []
        self.lost_acks: list[LostAcks] = []
        self.struck: Counter[str] = Counter()
        self._away_until = -math.inf

    def clear(self) -> None:
        """None stands any more; what has struck stays counted."""
        self.enforce_expiry = False
        self.ack_delay = 0.0
        self.cuts.clear()
        self.lost_acks.clear()
        self._away_until = -math.inf

    def cut_after(self, cut: Cut) -> None:
        self.cuts.append(cut)

    def lose_acks(self, count: int, user: str = "*") -> None:
        if count < 1:
            raise Invalid(f"{count} acks to lose: 1 or more")
        self.lost_acks.append(LostAcks(count, user))

    def leave(self, *, until: float) -> None:
        """Away until this time on the hub's clock."""
        self._away_until = until

    def is_away(self, *, now: float) -> bool:
        return now < self._away_until

    def count_frame(self, session: HubSession, direction: Direction) -> None:
        """A frame of `session` went through; cuts its connection if that was one too many."""
        for cut in self.cuts:
            if cut.direction is not direction or not is_of(session, cut.user):
                continue
            cut.seen += 1
            if cut.seen == cut.after:
                self._strike(session, cut)
                return

    def loses_ack(self, session: HubSession) -> bool:
        """Whether the ack that is due to `session` is one of those to be lost."""
        if math.isinf(self.ack_delay):
            self.struck["lose_acks"] += 1
            return True
        for lost in self.lost_acks:
            if is_of(session, lost.user):
                lost.count -= 1
                if lost.count == 0:
                    self.lost_acks.remove(lost)
                self.struck["lose_acks"] += 1
                return True
        return False

    def _strike(self, session: HubSession, cut: Cut) -> None:
        cut.seen = 0
        cut.times -= 1
        if cut.times == 0:
            self.cuts.remove(cut)
        self.struck["cut_after"] += 1
        if cut.forget:
            session.forget()
        if session.link is None:
            return
        if cut.code is None:
            session.link.abort()
        else:
            session.link.close(cut.code, cut.reason)


def is_of(session: HubSession, pattern: str) -> bool:
    return fnmatchcase(session.user_id or "", pattern)


def check_close_code(code: int) -> int:
    """`code` if a close frame may carry it (RFC 6455 §7.4); raises `Invalid` otherwise."""
    if not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in (1004, 1005, 1006):
        raise Invalid(f"close code {code}: 1000 to 1014 or 3000 to 4999, and not 1004 to 1006")
    return code
