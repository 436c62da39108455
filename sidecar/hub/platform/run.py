"""One run: its chains of run tokens, its generation, its end. No I/O; times are arguments.

**Tokens.** Each minting begins a chain. A chain knows the token that was used last and those that
were offered in answer to it; all of them are accepted. Using an offered one retires the one before
and its siblings; using the old one again, because the answer was lost on its way, offers another.
So whatever answer is lost or comes late, what the sidecar holds is accepted, and a token that
was copied off some old disk is not.

**Generations.** The first request of an incarnation raises the generation and supersedes the
incarnation before; further ones of the same incarnation do not. Whoever comes later with a new
incarnation wins, because ids are made from clocks of sandboxes, which cannot be compared. What
was superseded stays so on every chain there was then: two pods that hold tokens of one run cannot
take turns for ever. A chain that is minted later lifts it, for that is an operator's decision.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sidecar.hub.platform.attempts import Attempts
from sidecar.hub.platform.secrets import Kept, Kind, make

CHAINS = 8  # of one run; another one retires the oldest, but not the one that was used last
OFFERS = 4  # answers that may be lost in a row before the first of them is no good any more
SUPERSEDED = 1000  # incarnations that are remembered; the oldest is forgotten


class Superseded(Exception):
    """A later incarnation of the run has taken over."""


class RunEnded(Exception):
    """The run is over; it gets no more tokens."""


@dataclass(slots=True, eq=False)
class RunToken:
    """What is kept of one run token, and who tried to guess it."""

    kept: Kept
    expires_at: float
    attempts: Attempts = field(default_factory=Attempts, repr=False)


@dataclass(slots=True, eq=False)
class Chain:
    """The tokens that follow from one minting; `number` counts the mintings of the run."""

    number: int
    used: RunToken | None = None
    offered: list[RunToken] = field(default_factory=list)

    @property
    def tokens(self) -> list[RunToken]:
        return [*([] if self.used is None else [self.used]), *self.offered]

    def use(self, token: RunToken) -> list[RunToken]:
        """`token` was presented; returns those that are retired by it."""
        if token is self.used:
            return []
        retired = [one for one in self.tokens if one is not token]
        self.used = token
        self.offered = []
        return retired

    def offer(self, token: RunToken) -> list[RunToken]:
        """`token` goes out in an answer; returns those that are retired for it."""
        self.offered.append(token)
        retired = self.offered[:-OFFERS]
        del self.offered[:-OFFERS]
        return retired


class Run:
    """What the endpoint knows of a run. Methods that retire tokens return them."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.generation = 0
        self.incarnation: str | None = None
        self.has_ended = False
        self.mintings = 0
        self.last_used = 0  # number of a chain
        self.chains: list[Chain] = []
        self.superseded: dict[str, int] = {}  # incarnation: number of mintings there were then

    def mint(self, *, expires_at: float) -> tuple[str, RunToken, list[RunToken]]:
        """The first token of a new chain: its text, what is kept, and what is retired for it."""
        if self.has_ended:
            raise RunEnded
        self.mintings += 1
        text, token = _new_token(expires_at)
        self.chains.append(Chain(self.mintings, offered=[token]))
        return text, token, self._make_room()

    def renew(
        self, chain: Chain, token: RunToken, incarnation: str, *, expires_at: float
    ) -> tuple[str, RunToken, list[RunToken]]:
        """The next token for who presented `token` of `chain`. Raises `RunEnded`, `Superseded`."""
        if self.has_ended:
            raise RunEnded
        self._admit(incarnation, chain)
        self.last_used = chain.number
        retired = chain.use(token)
        text, following = _new_token(expires_at)
        return text, following, retired + chain.offer(following)

    def _make_room(self) -> list[RunToken]:
        if len(self.chains) <= CHAINS:
            return []
        oldest = next(chain for chain in self.chains if chain.number != self.last_used)
        self.chains.remove(oldest)
        return oldest.tokens

    def _admit(self, incarnation: str, chain: Chain) -> None:
        if incarnation == self.incarnation:
            return
        if self.superseded.get(incarnation, 0) >= chain.number:
            raise Superseded
        if self.incarnation is not None:
            self.superseded.pop(self.incarnation, None)  # to the end of the order
            self.superseded[self.incarnation] = self.mintings
            if len(self.superseded) > SUPERSEDED:
                del self.superseded[next(iter(self.superseded))]
        self.superseded.pop(incarnation, None)
        self.incarnation = incarnation
        self.generation += 1


def _new_token(expires_at: float) -> tuple[str, RunToken]:
    text, kept = make(Kind.RUN_TOKEN)
    return text, RunToken(kept, expires_at)
