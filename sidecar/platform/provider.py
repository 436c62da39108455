"""A token provider that asks the platform endpoint, and renews its token before it lapses.

When to ask:

    no token, or it has lapsed            when the channel wants to dial
    120 s before it lapses (at half of    in the background; with a tenth of jitter, so that
    its life if that is under 240 s)      sandboxes that started together part
    the hub refuses it                    at once; a second time only after 60 s
    its life is said to be next to none   every half a second
    the network failed                    after 0.25 s, doubling up to 5 s, full jitter, for ever
    the run token was refused             after 60 s, for ever, and at once if there is another
    429                                   when it says
    superseded, or the run has ended      never, until somebody gives another run token

One request is in flight at any time. How long a token lives is counted on our own clock from the
moment before it was asked for: neither a calendar that jumps nor a laptop that sleeps harms it.
"""

from __future__ import annotations

import contextlib
import logging
import random as chance
from collections.abc import Callable

import anyio

from sidecar.bell import Bell
from sidecar.clock import Clock
from sidecar.errors import ChannelError, RunEnded, SettingsError, Superseded, TokenRefused
from sidecar.platform.answers import REFUSED_PAUSE, Grant
from sidecar.platform.client import PlatformClient
from sidecar.platform.runtoken import RunToken, RunTokenStore
from sidecar.protocol.backoff import Backoff
from sidecar.timer import sleep_until
from sidecar.tokens.forms import Token, check_run, make_token
from sidecar.tokens.hooks import TokenHooks
from sidecar.tokens.source import ENDED, OK, REFUSED, SUPERSEDED, WAITING, TokenStatus, left

REFRESH_BEFORE = 120.0  # seconds before it lapses
JITTER = 0.1  # of that time
LEAST_PAUSE = 0.5  # seconds between two that were granted, however soon they lapse
BACKOFF_FIRST, BACKOFF_LONGEST = 0.25, 5.0  # seconds

_log = logging.getLogger(__name__)


class EndpointProvider:
    """Tokens of one run from one endpoint. `run` has to run beside it."""

    def __init__(
        self,
        client: PlatformClient,
        store: RunTokenStore,
        *,
        run: str,
        incarnation: str,
        clock: Clock,
        hooks: TokenHooks,
        allow_plain: bool = False,
        random: Callable[[], float] = chance.random,
    ) -> None:
        self._client = client
        self._store = store
        self._run = run
        self._incarnation = incarnation
        self._clock = clock
        self._hooks = hooks
        self._allow_plain = allow_plain
        self._random = random
        self._backoff = Backoff(random, first=BACKOFF_FIRST, longest=BACKOFF_LONGEST)
        self._one_at_a_time = anyio.Lock()
        self._bell = Bell()
        self._token: Token | None = None
        self._origin: str | None = None  # of the run token that has been good in this process
        self._failure: ChannelError | None = None
        self._not_before = 0.0  # we are put off until then, by what `_failure` says
        self._due_at: float | None = None  # when `run` asks
        self._news = self._heard = 0  # how often there was something new, and how much is known
        self._last_refused = -REFUSED_PAUSE
        self._generation: int | None = None
        self._grants = 0

    # the provider -------------------------------------------------------------------------

    async def token(self) -> Token:
        """The newest token; asks for one if there is none that is good. Raises `ChannelError`."""
        self._heard = self._news
        if not self._is_good():
            await self._renew()
            self._heard = self._news
        assert self._token is not None
        return self._token

    async def changed(self) -> None:
        """Return when there is a newer token, or something to get one with."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch_first)
            while self._news == self._heard:
                await self._bell.wait()
            group.cancel_scope.cancel()

    def used(self, token: Token) -> None:
        """The hub took it."""

    def refused(self, token: Token, error: ChannelError) -> None:
        """The hub did not take it: get another one at once, but not again and again."""
        if self._token is None or token.value != self._token.value:
            return
        now = self._clock.now()
        self._token = None
        if now - self._last_refused >= REFUSED_PAUSE:
            self._last_refused = self._due_at = now
        else:
            sentence = f"the hub refuses what the endpoint gives: {error}"
            self._fail(TokenRefused(sentence, retry_after=REFUSED_PAUSE))
        self._bell.ring()

    async def run(self) -> None:
        """Renew the token whenever that is due, until cancelled."""
        while True:
            due_at = self._due_at
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._end_when_due, scope)
                    while self._due_at == due_at:
                        await self._bell.wait()
                    scope.cancel()
            if self._due_at is not None and self._clock.now() >= self._due_at:
                await self._renew_quietly()

    def status(self) -> TokenStatus:
        failure, way_out = self._store.complaint or None, "make room on the disk, or repair it"
        if self._failure is not None:
            failure, way_out = str(self._failure), _way_out(self._failure)
        return TokenStatus(
            source="endpoint",
            state=self._state(),
            expires_in=left(self._token, self._clock),
            generation=self._generation,
            refreshes=max(0, self._grants - 1),
            failure=failure,
            way_out=way_out if failure else None,
        )

    def _state(self) -> str:
        match self._failure:
            case Superseded():
                return SUPERSEDED
            case RunEnded():
                return ENDED
            case TokenRefused():
                return REFUSED
        return OK if self._is_good() else WAITING

    # renewing -----------------------------------------------------------------------------

    def _is_good(self) -> bool:
        lapses_at = None if self._token is None else self._token.lapses_at
        return lapses_at is not None and self._clock.now() < lapses_at

    async def _end_when_due(self, scope: anyio.CancelScope) -> None:
        if self._due_at is not None:
            await sleep_until(self._clock, self._due_at)
            scope.cancel()

    async def _renew_quietly(self) -> None:
        """In the background, where nobody waits for it: `status` tells how it went."""
        with contextlib.suppress(ChannelError):
            await self._renew()

    async def _renew(self) -> None:
        grants = self._grants
        async with self._one_at_a_time:
            if self._grants != grants and self._is_good():
                return  # somebody else's request, which we have waited for, has brought it
            self._obey_pause()
            try:
                await self._ask()
            except ChannelError as error:
                self._fail(error)
                raise

    def _obey_pause(self) -> None:
        """Raise the failure by which we are still put off."""
        failure = self._failure
        if failure is None:
            return
        pause = self._not_before - self._clock.now()
        if failure.is_final or pause > 0:
            raise type(failure)(*failure.args, retry_after=None if failure.is_final else pause)

    async def _ask(self) -> None:
        held = await self._store.current()
        if held.mark:
            raise _marked(held)
        is_known = held.origin == self._origin
        asked_at = self._clock.now()
        try:
            grant = await self._client.request_token(
                held.value,
                run=self._run,
                incarnation=self._incarnation,
                reason="refresh" if is_known else "start",
            )
            token = self._checked(grant, asked_at)
        except (Superseded, RunEnded) as error:
            await self._store.keep(RunToken(held.value, held.origin, mark=error.reason))
            raise
        # An answer that was read must not be forgotten because a dial was given up meanwhile.
        with anyio.CancelScope(shield=True):
            await self._store.keep(RunToken(grant.run_token, held.origin))
        self._origin = held.origin
        self._take(token, grant, asked_at)

    def _checked(self, grant: Grant, asked_at: float) -> Token:
        try:
            plain = make_token(grant.url, grant.token, allow_plain=self._allow_plain)
            check_run(plain, self._run)
        except SettingsError as error:
            raise TokenRefused(
                f"the endpoint's answer cannot be used: {error}", retry_after=REFUSED_PAUSE
            ) from None
        wall = self._clock.wall() + grant.expires_in
        return Token(plain.url, plain.value, wall, lapses_at=asked_at + grant.expires_in)

    def _take(self, token: Token, grant: Grant, asked_at: float) -> None:
        was_bad = _is_told(self._failure)
        self._token, self._failure = token, None
        self._grants += 1
        self._backoff.reset()
        lead = min(REFRESH_BEFORE, grant.expires_in / 2)
        lead += lead * JITTER * self._random()
        self._due_at = asked_at + max(LEAST_PAUSE, grant.expires_in - lead)
        self._count(grant.generation)
        if was_bad:
            self._hooks.accepted()
        self._ring()

    def _count(self, generation: int) -> None:
        """It never falls while we live: to controllers we would be our own predecessor."""
        if self._generation is not None and generation < self._generation:
            _log.warning("the endpoint counts backwards: %s, now %s", self._generation, generation)
        elif generation != self._generation:
            self._generation = generation
            self._hooks.generation(generation)

    def _fail(self, error: ChannelError) -> None:
        is_news = type(error) is not type(self._failure)
        now = self._clock.now()
        pause = self._backoff.next() if error.retry_after is None else error.retry_after
        self._failure = error
        self._not_before = 0.0 if error.retry_after is None else now + pause
        # Without any token it is the channel that asks, whenever it wants to dial.
        is_ours = self._token is not None and not error.is_final
        self._due_at = now + pause if is_ours else None
        self._bell.ring()
        if is_news:
            if is_ours:
                _log.warning("no new token (%s): %s", error.reason, error)
            self._tell(error)

    def _tell(self, error: ChannelError) -> None:
        match error:
            case Superseded():
                self._hooks.superseded()
            case RunEnded():
                self._hooks.ended()
            case TokenRefused():
                self._hooks.refused(f"{error}; {_way_out(error)}")

    async def _watch_first(self) -> None:
        """Another first run token ends every pause."""
        await self._store.changed()
        self._not_before = 0.0
        if self._failure is not None and self._failure.is_final:
            self._failure = None
        self._ring()

    def _ring(self) -> None:
        self._news += 1
        self._bell.ring()


def _marked(held: RunToken) -> ChannelError:
    """What the endpoint said for good before we were restarted."""
    if held.mark == Superseded.reason:
        return Superseded("a later start of this run had taken over before this one started")
    return RunEnded("the run had ended before this start")


def _is_told(failure: ChannelError | None) -> bool:
    return isinstance(failure, Superseded | RunEnded | TokenRefused)


def _way_out(failure: ChannelError) -> str:
    if isinstance(failure, RunEnded):
        return "nothing is left to do; end this sidecar"
    if isinstance(failure, Superseded | TokenRefused):
        return "give a new run token to `sidecar repoint --endpoint`, if this one shall serve"
    return "it is tried again by itself"
