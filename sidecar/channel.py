"""The lasting path to the hub, over many connections: the I/O around `protocol.channel`.

The channel *pulls*: it asks its `Source` for the next publish only when the socket's buffer is
low, because whatever lies in that buffer sits in front of a keystroke (late binding).

One task reads, one writes, one timer fires. `send` and `receive` of a fast websocket need not
suspend, so a loop of them can hold the event loop for seconds (measured: control round trips of
1 to 5 s beside one bulk sender). Both tasks therefore yield after so many messages or bytes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable
from typing import Protocol

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from sidecar.bell import Bell
from sidecar.channelstatus import ChannelStatus, status_of
from sidecar.clock import Clock, SystemClock
from sidecar.errors import ChannelError, LimitExceeded
from sidecar.protocol.channel import ChannelProtocol
from sidecar.protocol.channel_events import (
    Dial,
    Down,
    Event,
    Opened,
    Received,
    Recover,
    State,
    Timing,
)
from sidecar.protocol.publish import Outcome, Publish, Settled, Source
from sidecar.protocol.ratelimit import RateLimit
from sidecar.protocol.unacked import Room
from sidecar.protocol.webpubsub.frames import Codec, Message
from sidecar.reach import NotReached, Reach
from sidecar.succession import Succession
from sidecar.timer import Timer
from sidecar.tokens import Token, TokenProvider, url_for_log
from sidecar.websocket import Dialer, WebSocket, WebSocketClosed

__all__ = ["Channel", "ChannelStatus", "Outcome", "Publish", "Receiver", "Source"]

CLOSE_TIME = 1.0  # seconds for the goodbye
LOOK_AGAIN = 60.0  # seconds; a wait is cut there, because the clock of timers sleeps with a laptop
YIELD_MESSAGES = 16  # read or written in a row
YIELD_BYTES = 64 * 1024  # written in a row

_log = logging.getLogger(__name__)


class Receiver(Protocol):
    """What the channel tells. Called in the event loop: quick, and never raising."""

    def channel_opened(self, *, fresh: bool, now: float) -> None:
        """Messages flow. `fresh`: a new connection; what was unacknowledged came back as LOST.
        Else the same connection, taken up again, and nothing was lost."""
        ...

    def channel_message(self, message: Message, *, now: float) -> None:
        """A message, each once and in order within one connection."""
        ...

    def channel_down(self, error: ChannelError, *, now: float) -> None:
        """The channel ended, or stays down for another reason than it was told before."""
        ...


class Channel:
    """Keeps a connection to the hub, for ever, and carries publishes and messages over it.

    Each publish taken from the source is settled exactly once, at the latest when `run` ends.
    `rate` applies on `wss://`, not on loopback.
    """

    def __init__(
        self,
        *,
        provider: TokenProvider,
        codec: Codec,
        source: Source,
        receiver: Receiver,
        clock: Clock | None = None,
        rate: RateLimit | None = None,
        timing: Timing | None = None,
        random: Callable[[], float] = random.random,
        ssl_context: ssl.SSLContext | None = None,
        handover: str = "auto",
    ) -> None:
        self._source = source
        self._receiver = receiver
        self._clock = clock or SystemClock()
        dialer = Dialer(codec.subprotocol, ssl_context=ssl_context)
        self._reach = Reach(provider, dialer, self._clock)
        self._protocol = ChannelProtocol(codec, random=random, timing=timing, rate=rate)
        self._succession = Succession(
            self._protocol, self._reach, self._clock, mode=handover, react=self._look
        )
        self._serving = 0  # which websocket: a count of the protocol's
        self._token: Token | None = None
        self._timer = Timer(self._clock, self._deadline_passed)
        self._link_scope = anyio.CancelScope()
        self._attempt = anyio.CancelScope()
        self._goodbyes: TaskGroup
        self._wake = asyncio.Event()
        self._source_is_empty = False
        self._progress = Bell()

    async def run(self) -> None:
        """Keep the channel up until cancelled; then say goodbye to the hub, within a second."""
        self._protocol.start(now=self._clock.now())
        try:
            async with anyio.create_task_group() as self._goodbyes:
                while True:
                    websocket = await self._open(await self._next_action())
                    while websocket is not None:
                        websocket = await self._serve(websocket)
                    if self._succession.is_wanted:  # no recovery brings what is wanted
                        self._protocol.redial(now=self._clock.now())
        finally:
            self._protocol.close(now=self._clock.now())
            self._pass_on()
            self._abandon_successor()

    def wake(self) -> None:
        """The source has something. Cheap, and harmless when it has not."""
        self._source_is_empty = False
        self._wake.set()

    def hand_over(self) -> None:
        """There is another token, which is to be used at once: while open, by a handover."""
        if self._protocol.is_open:
            self._succession.want()
            return
        self._protocol.redial(now=self._clock.now())
        self._attempt.cancel()
        self._link_scope.cancel()

    @property
    def chunk(self) -> int:
        """Bytes that the path to the hub carries in about 10 ms, between 8 and 256 KiB."""
        return self._protocol.chunk

    def status(self) -> ChannelStatus:
        """How the channel is doing right now."""
        return status_of(self._protocol, self._token)

    async def flushed(self) -> None:
        """Return once the source is empty and the hub has acknowledged all that came from it."""
        while not self._source_is_empty or self._protocol.unacked:
            await self._progress.wait()

    async def drain(self, timeout: float) -> bool:
        """Whether `flushed` came true within `timeout` seconds."""
        with anyio.move_on_after(timeout):
            await self.flushed()
            return True
        return False

    # Reaching the hub ---------------------------------------------------------------------

    async def _next_action(self) -> Dial | Recover:
        while True:
            self._pass_on()
            for action in self._protocol.actions():
                return action
            await self._wait()
            self._protocol.handle_deadline(now=self._clock.now())

    async def _wait(self) -> None:
        """Until the next try is due, or there is another token to dial with."""
        deadline = self._protocol.next_deadline()
        left = LOOK_AGAIN if deadline is None else max(0.0, deadline - self._clock.now())
        with anyio.move_on_after(min(left, LOOK_AGAIN)) as self._attempt:
            if self._protocol.state is State.WAITING:
                await self._reach.changed()
                self._protocol.token_changed(now=self._clock.now())
            else:
                await anyio.sleep_forever()

    async def _open(self, action: Dial | Recover) -> WebSocket | None:
        """Do what the protocol wants done, and tell it how that ended."""
        websocket = None
        try:
            with anyio.CancelScope() as self._attempt:
                websocket = await self._carry_out(action)
        except NotReached as failed:
            if not self._attempt.cancel_called:
                now = self._clock.now()
                self._protocol.connection_refused(failed.error, now=now, status=failed.status)
            return None
        if self._attempt.cancel_called:  # another token goes before what it brought
            if websocket is not None:
                websocket.abort()
            return None
        assert websocket is not None
        self._protocol.connection_opened(now=self._clock.now(), limited=websocket.is_remote)
        return websocket

    async def _carry_out(self, action: Dial | Recover) -> WebSocket:
        if isinstance(action, Recover):
            assert self._token is not None, "there was a connection, so there was a token"
            return await self._reach.recover(self._token, action)
        self._succession.dialled()
        self._note_token(await self._reach.token())
        assert self._token is not None
        return await self._reach.dial(self._token, timeout=action.timeout)

    def _note_token(self, token: Token | None) -> None:
        self._token = token
        self._protocol.token_lapses_at = None if token is None else token.lapses_at

    # One websocket ------------------------------------------------------------------------

    async def _serve(self, websocket: WebSocket) -> WebSocket | None:
        """Read and write until the protocol has no more use for this websocket. The one that has
        taken over, if one has."""
        self._serving = self._protocol.websocket
        assert self._token is not None
        try:
            async with anyio.create_task_group() as tasks:
                self._link_scope = tasks.cancel_scope
                tasks.start_soon(self._write, websocket)
                tasks.start_soon(self._succession.run, self._token)
                self._react()
                await self._read(websocket)
                tasks.cancel_scope.cancel()
        finally:
            self._timer.cancel()
            await self._part(websocket)
        return self._successor()

    def _is_served(self) -> bool:
        """Whether the websocket that is served is still the one that the protocol means."""
        return self._protocol.is_linked and self._protocol.websocket == self._serving

    async def _part(self, websocket: WebSocket) -> None:
        """Unless the connection may be recovered, say goodbye: the hub then forgets it."""
        if self._protocol.websocket != self._serving:
            self._goodbyes.start_soon(_say_goodbye, websocket)  # its successor need not wait
        elif self._protocol.is_linked:  # we are being cancelled, the link is fine
            await _say_goodbye(websocket)
        else:
            websocket.abort()

    def _successor(self) -> WebSocket | None:
        if self._protocol.is_linked:
            return self._succession.take()
        self._abandon_successor()
        return None

    def _abandon_successor(self) -> None:
        websocket = self._succession.take()
        if websocket is not None:
            websocket.abort()

    async def _read(self, websocket: WebSocket) -> None:
        count = 0
        while self._is_served():
            try:
                data = await websocket.receive()
            except WebSocketClosed as closed:
                if self._is_served():  # else another has taken over while we waited
                    self._note_closed(closed)
                return
            if self._is_served():
                self._protocol.receive_message(data, now=self._clock.now())
                self._react()
            count += 1
            if count % YIELD_MESSAGES == 0:
                await anyio.lowlevel.checkpoint()

    def _note_closed(self, closed: WebSocketClosed) -> None:
        now = self._clock.now()
        if closed.by_us:
            self._protocol.connection_unreadable(f"{closed.code}, {closed.reason}", now=now)
        else:
            self._protocol.connection_lost(now=now, close_code=closed.code, reason=closed.reason)

    async def _write(self, websocket: WebSocket) -> None:
        try:
            while True:
                self._wake.clear()
                await self._write_what_is_ready(websocket)
                self._progress.ring()
                await self._wake.wait()
        except WebSocketClosed:
            pass  # the reader sees it too, after the messages that arrived before

    async def _write_what_is_ready(self, websocket: WebSocket) -> None:
        messages = size = 0
        while self._is_served() and (message := self._next_message()) is not None:
            await websocket.send(message)
            messages, size = messages + 1, size + len(message)
            if messages >= YIELD_MESSAGES or size >= YIELD_BYTES:
                messages = size = 0
                await anyio.lowlevel.checkpoint()

    def _next_message(self) -> bytes | str | None:
        """Acks and pings; what is urgent; what is to be sent again; the rest."""
        control = self._protocol.next_control()
        if control is not None:
            return control
        now = self._clock.now()
        room = self._protocol.room(now=now)
        message = None if room is Room.NONE else self._ask_source(room, now)
        return message if message is not None else self._protocol.next_resend(now=now)

    def _ask_source(self, room: Room, now: float) -> bytes | str | None:
        while True:
            publish = self._source.next_publish(now=now, urgent_only=room is Room.URGENT)
            if publish is None:
                self._source_is_empty = room is Room.ANY
                return None
            self._source_is_empty = False
            try:
                return self._protocol.publish(publish, now=now)
            except LimitExceeded as error:
                # Sent, it would cost the connection and everything on it, again and again.
                _log.error("a publish to %s was not sent: %s", publish.group, error.message)
                self._guard(publish.settled, Outcome.REFUSED)

    def _deadline_passed(self) -> None:
        self._protocol.handle_deadline(now=self._clock.now())
        self._look()

    def _look(self) -> None:
        self._react()
        self._wake.set()  # to send again, or more than before

    def _react(self) -> None:
        """After each report to the protocol: pass on, look at the link, set the timer."""
        if self._protocol.websocket != self._serving:
            self._note_token(self._succession.token)
        if self._pass_on() or self._protocol.has_control:
            self._wake.set()
        if self._is_served():
            self._timer.set(self._protocol.next_deadline())
        else:
            self._link_scope.cancel()

    # Passing on ---------------------------------------------------------------------------

    def _pass_on(self) -> bool:
        """Hand out what happened. Whether any of it lets the writer go on."""
        frees = False
        now = self._clock.now()
        for event in self._protocol.events():
            frees = frees or not isinstance(event, Received)
            self._tell(event, now)
        if frees:
            self._progress.ring()
        return frees

    def _tell(self, event: Event, now: float) -> None:
        match event:
            case Received(message):
                self._guard(self._receiver.channel_message, message, now=now)
            case Settled(settled, outcome):
                self._guard(settled, outcome)
            case Opened(fresh):
                self._log_opened(fresh)
                if fresh and self._token is not None:
                    self._guard(self._reach.used, self._token)
                self._guard(self._receiver.channel_opened, fresh=fresh, now=now)
            case Down(error):
                self._log_down(error)
                self._guard(self._receiver.channel_down, error, now=now)

    def _log_opened(self, fresh: bool) -> None:
        where = "" if self._token is None else url_for_log(self._token.url)
        is_successor = self._protocol.websocket != self._serving
        how = "handed over" if is_successor else "open" if fresh else "recovered"
        _log.info("channel %s: %s, connection %s", how, where, self._protocol.connection_id)

    def _log_down(self, error: ChannelError) -> None:
        is_defect = type(error) is ChannelError  # the others are the world's, or the token's
        level = logging.ERROR if is_defect else logging.WARNING
        _log.log(level, "channel down (%s): %s", error.reason, error)

    def _guard(self, callback: Callable[..., None], *args: object, **kwargs: object) -> None:
        """A defect in who is told must not take the channel from everybody else."""
        try:
            callback(*args, **kwargs)
        except Exception:
            _log.exception("the channel told %r, which failed", callback)


async def _say_goodbye(websocket: WebSocket) -> None:
    with anyio.move_on_after(CLOSE_TIME, shield=True):
        await websocket.close()
    websocket.abort()
