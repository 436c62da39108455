"""The websocket that will take over from the one that serves: dialled, and read until it does.

What it is good for, and how the two halves of a handover meet, is said in `protocol.handover`.

There are two reasons for one. An operator has repointed the sidecar; or the token will lapse, and
this hub ends connections when theirs does (mode `auto`: it was seen to; `always`, `never`). The
second is looked at only when it is near, and only who has a newer token by then acts on it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import anyio

from sidecar.bell import Bell
from sidecar.clock import Clock
from sidecar.errors import (
    ChannelError,
    NetworkFailure,
    NoToken,
    ProtocolError,
    TokenExpired,
    TokenRefused,
)
from sidecar.protocol.channel import ChannelProtocol
from sidecar.reach import NotReached, Reach
from sidecar.timer import sleep_until
from sidecar.tokens import Token
from sidecar.websocket import WebSocket, WebSocketClosed

BEFORE_EXPIRY = 120.0  # seconds; half of what is left of the token if that is less
DIAL_TIME = 10.0  # seconds for the websocket
CONNECTED_TIME = 10.0  # seconds until the hub must have said `connected`
REFUSED_PAUSE = 60.0  # seconds, if the hub refuses the newer token
LOOK_AGAIN = 0.25  # seconds; a provider may say that its token has changed when it has not

_log = logging.getLogger(__name__)


class Succession:
    """The handovers of one channel. `react` is called after each report to the protocol."""

    def __init__(
        self,
        protocol: ChannelProtocol,
        reach: Reach,
        clock: Clock,
        *,
        mode: str,
        react: Callable[[], None],
    ) -> None:
        self._protocol = protocol
        self._reach = reach
        self._clock = clock
        self._mode = mode
        self._react = react
        self._wanted = self._done = 0  # how often another connection was wanted, and had
        self._bell = Bell()
        self._websocket: WebSocket | None = None
        self.token: Token | None = None  # of the websocket that takes over

    def want(self) -> None:
        """Hand over, as soon as a websocket serves; again, if that is under way."""
        self._wanted += 1
        self._bell.ring()

    @property
    def is_wanted(self) -> bool:
        return self._wanted > self._done

    def dialled(self) -> None:
        """The channel opens a new connection anyhow, with the newest token."""
        self._done = self._wanted

    def take(self) -> WebSocket | None:
        """The websocket that has taken over, or that is given up with the one that served."""
        websocket, self._websocket = self._websocket, None
        return websocket

    async def run(self, current: Token) -> None:
        """Beside a websocket that serves, opened with `current`; until cancelled."""
        while True:
            await self._until_wanted(current)
            wanted = self._wanted
            error = await self._try(wanted)
            delay = self._protocol.successor_lost(error, now=self._clock.now())
            self._discard()
            self._react()
            _log.warning("no handover (%s): %s", error.reason, error)
            if isinstance(error, TokenRefused | TokenExpired | NoToken) or error.is_final:
                self._done, delay = wanted, REFUSED_PAUSE
            await self._pause(delay)

    async def _until_wanted(self, current: Token) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch_expiry, current)
            while not self.is_wanted:
                await self._bell.wait()
            group.cancel_scope.cancel()

    async def _pause(self, delay: float) -> None:
        """After a failure; whoever wants a handover anew ends it."""
        with anyio.move_on_after(delay):
            await self._bell.wait()

    async def _watch_expiry(self, current: Token) -> None:
        is_needed = self._mode == "always" or (
            self._mode == "auto" and self._protocol.ends_at_expiry
        )
        if not is_needed or current.lapses_at is None:
            return
        left = current.lapses_at - self._clock.now()
        await sleep_until(self._clock, current.lapses_at - min(BEFORE_EXPIRY, left / 2))
        while not await self._is_newer(current):
            await self._reach.changed()
            await anyio.sleep(LOOK_AGAIN)
        self.want()

    async def _is_newer(self, current: Token) -> bool:
        try:
            return (await self._reach.token()).value != current.value
        except NotReached:
            return False

    async def _try(self, wanted: int) -> ChannelError:
        """Open a successor and read from it: if all goes well, until cancelled. Why it did not."""
        try:
            self.token = await self._reach.token()
            self._websocket = await self._reach.dial(self.token, timeout=DIAL_TIME)
        except NotReached as failed:
            return failed.error
        now = self._clock.now()
        self._protocol.successor_opened(now=now, limited=self._websocket.is_remote)
        try:
            return await self._read(self._websocket, wanted)
        except (WebSocketClosed, ProtocolError) as error:
            return NetworkFailure(f"the new connection broke: {error}")
        except TimeoutError:
            return NetworkFailure("the hub accepted the new connection and is silent")

    async def _read(self, websocket: WebSocket, wanted: int) -> ChannelError:
        serving = self._protocol.websocket
        with anyio.fail_after(CONNECTED_TIME) as patience:
            while self._protocol.websocket == serving:
                await self._read_one(websocket, serving)
                if self._protocol.is_handing_over:
                    patience.deadline = math.inf
                    self._done = wanted
                self._react()
        while True:
            await anyio.sleep_forever()  # it serves, and whoever began this ends it

    async def _read_one(self, websocket: WebSocket, serving: int) -> None:
        """One message. While we waited it may have taken over: then it is as for any other that
        serves, and that it has ended is seen again, and reported, by who serves it."""
        try:
            data = await websocket.receive()
        except WebSocketClosed:
            if self._protocol.websocket == serving:
                raise
            return
        now = self._clock.now()
        if self._protocol.websocket == serving:
            self._protocol.receive_from_successor(data, now=now)
        else:
            self._protocol.receive_message(data, now=now)

    def _discard(self) -> None:
        websocket = self.take()
        if websocket is not None:
            websocket.abort()
