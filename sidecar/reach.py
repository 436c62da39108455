"""How the channel reaches the hub: a token from the provider, a websocket with it, and back to
the provider what became of it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from dataclasses import replace
from typing import TypeVar

import anyio

from sidecar.clock import Clock
from sidecar.errors import ChannelError, NetworkFailure, TokenExpired, TokenRefused
from sidecar.protocol import failures
from sidecar.protocol.channel_events import Recover
from sidecar.skew import describe, skew_of
from sidecar.tokens import Listener, Token, TokenProvider, ask
from sidecar.tokens.source import left
from sidecar.websocket import Dialer, DialFailed, WebSocket

_log = logging.getLogger(__name__)

T = TypeVar("T")


class NotReached(Exception):
    """There is no websocket. `status` is that of HTTP, if the far end got so far."""

    def __init__(self, error: ChannelError, status: int | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.status = status


class Reach:
    """Opens websockets to where the tokens of one provider say."""

    def __init__(self, provider: TokenProvider, dialer: Dialer, clock: Clock) -> None:
        self._provider = provider
        self._listener = provider if isinstance(provider, Listener) else None
        self._dialer = dialer
        self._clock = clock
        self._is_skewed = False  # our clock, as was told

    async def token(self) -> Token:
        """The newest one. Raises `NotReached`."""
        try:
            token = await ask(self._provider)
        except ChannelError as error:
            raise NotReached(error) from None
        if token.lapses_at is not None or token.expires_at is None:
            return token
        return replace(token, lapses_at=self._clock.now() + token.expires_at - self._clock.wall())

    async def changed(self) -> None:
        """Return when there may be a newer one."""
        try:
            await self._provider.changed()
        except Exception:  # somebody else's code; without it, a back-off just runs its time
            _log.exception("the token provider failed to wait for a change")
            await anyio.sleep_forever()

    async def dial(self, token: Token, *, timeout: float) -> WebSocket:
        """A websocket that will be a new connection. Raises `NotReached`."""
        try:
            dialled = self._dialer.dial(token, timeout=timeout)
            websocket = await self._translated(dialled, token)
        except NotReached as failed:
            if self._listener is not None and isinstance(failed.error, TokenExpired | TokenRefused):
                self._listener.refused(token, failed.error)
            raise
        self._note_clock(skew_of(websocket.date, wall=self._clock.wall()))
        return websocket

    async def recover(self, token: Token, action: Recover) -> WebSocket:
        """A websocket that takes the connection up again. Raises `NotReached`."""
        recovery = self._dialer.recover(
            token.url, action.connection_id, action.reconnection_token, timeout=action.timeout
        )
        return await self._translated(recovery, token)

    def used(self, token: Token) -> None:
        """The hub took it."""
        if self._listener is not None:
            self._listener.used(token)

    async def _translated(self, attempt: Awaitable[T], token: Token) -> T:
        try:
            return await attempt
        except DialFailed as failed:
            if failed.status is None:
                raise NotReached(NetworkFailure(str(failed))) from None
            skew = skew_of(failed.date, wall=self._clock.wall())
            remaining = left(token, self._clock)
            error = failures.from_status(
                failed.status,
                left=None if remaining is None else remaining + skew,  # by the hub's clock
                note=describe(skew, "the hub's"),
            )
            raise NotReached(error, failed.status) from None

    def _note_clock(self, skew: float) -> None:
        """Once for each time that it goes wrong."""
        if skew and not self._is_skewed:
            _log.warning("%s; tokens and the times of events go by it", describe(skew, "the hub's"))
        self._is_skewed = bool(skew)
