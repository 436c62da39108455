"""A token provider as `sidecar run` has it: it hears what became of its tokens, and tells."""

from __future__ import annotations

from typing import Protocol

import anyio

from sidecar.clock import Clock
from sidecar.errors import ChannelError, SidecarError, TokenExpired
from sidecar.protocol.record import Record, record
from sidecar.tokens.forms import Oddity, Token, oddities
from sidecar.tokens.hooks import TokenHooks
from sidecar.tokens.provider import Listener, TokenProvider

OK, REFUSED, SUPERSEDED, ENDED, WAITING = "ok", "refused", "superseded", "run_ended", "waiting"


@record
class TokenStatus(Record):
    """For `sidecar health`. `failure` is the last one that still holds, with `way_out` beside it.

    `expires_in` is in seconds, below 0 when it has lapsed; None if there is no token, or it does
    not say.
    """

    source: str  # file, fixed, endpoint
    state: str  # ok, waiting (for one that has not lapsed), refused, superseded, run_ended
    expires_in: float | None
    generation: int | None
    refreshes: int
    failure: str | None
    way_out: str | None


class Source(TokenProvider, Listener, Protocol):
    """What the switch switches between."""

    def status(self) -> TokenStatus: ...

    async def run(self) -> None:
        """What it has to do in the background, until cancelled."""
        ...


class PlainSource:
    """A token file or a fixed token, neither of which can be asked for another token."""

    def __init__(
        self, kind: str, provider: TokenProvider, *, clock: Clock, hooks: TokenHooks
    ) -> None:
        self._kind = kind
        self._provider = provider
        self._clock = clock
        self._hooks = hooks
        self._token: Token | None = None
        self._failure: str | None = None
        self._is_refused = False
        self._proven = ""  # the token that the hub took last
        self._changes = 0

    async def token(self) -> Token:
        try:
            token = await self._provider.token()
        except SidecarError as error:
            self._failure = str(error)
            raise
        if self._token is not None and token.value != self._token.value:
            self._changes += 1
        self._token = token
        return token

    async def changed(self) -> None:
        await self._provider.changed()

    async def run(self) -> None:
        await anyio.sleep_forever()

    def used(self, token: Token) -> None:
        self._failure = None
        self._proven = token.value
        if self._is_refused:
            self._is_refused = False
            self._hooks.accepted()

    def refused(self, token: Token, error: ChannelError) -> None:
        """The hub's own sentence, and what is odd about the token, which is mostly why."""
        odd = oddities(token, wall=self._clock.wall())
        if isinstance(error, TokenExpired):
            odd.pop(Oddity.LAPSED, None)
        self._failure = "; ".join([str(error), *odd.values()])
        if not self._is_refused:
            self._is_refused = True
            self._hooks.refused(f"{self._failure}; {self._way_out()}")

    def status(self) -> TokenStatus:
        waiting = self._token is None
        complaint = str(getattr(self._provider, "complaint", "")) or None
        failure = self._failure or complaint or self._suspicion()
        return TokenStatus(
            source=self._kind,
            state=REFUSED if self._is_refused else WAITING if waiting else OK,
            expires_in=left(self._token, self._clock),
            generation=None,
            refreshes=self._changes,
            failure=failure,
            way_out=self._way_out() if failure else None,
        )

    def _suspicion(self) -> str | None:
        """What is odd about a token that the hub has not answered yet."""
        if self._token is None or self._token.value == self._proven:
            return None
        odd = oddities(self._token, wall=self._clock.wall())
        odd.pop(Oddity.OTHER_HOST, None)
        return "; ".join(odd.values()) or None

    def _way_out(self) -> str:
        if self._kind == "file":
            return "replace the token file, or give a token to `sidecar repoint`"
        return "give a token to `sidecar repoint`"


def left(token: Token | None, clock: Clock) -> float | None:
    """Seconds until the token lapses, by the clock that does not jump where that is possible."""
    if token is None:
        return None
    if token.lapses_at is not None:
        return token.lapses_at - clock.now()
    return None if token.expires_at is None else token.expires_at - clock.wall()
