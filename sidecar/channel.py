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
from dataclasses import dataclass
from typing import Protocol

import anyio
import anyio.lowlevel

from sidecar.bell import Bell
from sidecar.clock import Clock, SystemClock
from sidecar.errors import ChannelError, LimitExceeded, NetworkFailure
from sidecar.protocol import failures
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
from sidecar.timer import Timer
from sidecar.tokens import Token, TokenProvider, ask, url_for_log
from sidecar.websocket import Dialer, DialFailed, WebSocket, WebSocketClosed

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


@dataclass(frozen=True, slots=True)
class ChannelStatus:
    """What an operator wants to know. Times: `connected_since` is on the channel's clock,
    `token_expires_at` in seconds since the epoch, `round_trip` in seconds."""

    state: str
    reason: str | None  # of the last failure: a `ChannelError.reason`
    message: str | None  # its sentence
    connection_id: str | None
    attempts: int  # since the channel was last open
    connected_since: float | None
    token_expires_at: float | None
    round_trip: float | None
    recoveries: int
    reconnects: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    unacked: int


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
    ) -> None:
        self._provider = provider
        self._source = source
        self._receiver = receiver
        self._clock = clock or SystemClock()
        self._dialer = Dialer(codec.subprotocol, ssl_context=ssl_context)
        self._protocol = ChannelProtocol(codec, random=random, timing=timing, rate=rate)
        self._token: Token | None = None
        self._timer = Timer(self._clock, self._deadline_passed)
        self._link_scope = anyio.CancelScope()
        self._wake = asyncio.Event()
        self._source_is_empty = False
        self._progress = Bell()

    async def run(self) -> None:
        """Keep the channel up until cancelled; then say goodbye to the hub, within a second."""
        self._protocol.start(now=self._clock.now())
        try:
            while True:
                action = await self._next_action()
                websocket = await self._reach(action)
                if websocket is not None:
                    await self._serve(websocket)
        finally:
            self._protocol.close(now=self._clock.now())
            self._pass_on()

    def wake(self) -> None:
        """The source has something. Cheap, and harmless when it has not."""
        self._source_is_empty = False
        self._wake.set()

    def hand_over(self) -> None:
        """There is another token, which is to be used at once, whatever the channel does now."""
        self._protocol.token_changed(now=self._clock.now())

    @property
    def chunk(self) -> int:
        """Bytes that the path to the hub carries in about 10 ms, between 8 and 256 KiB."""
        return self._protocol.chunk

    def status(self) -> ChannelStatus:
        """How the channel is doing right now."""
        protocol, counters = self._protocol, self._protocol.counters
        failure = protocol.failure
        return ChannelStatus(
            state=str(protocol.state),
            reason=None if failure is None else failure.reason,
            message=None if failure is None else str(failure),
            connection_id=protocol.connection_id,
            attempts=protocol.attempts,
            connected_since=protocol.connected_since,
            token_expires_at=None if self._token is None else self._token.expires_at,
            round_trip=counters.round_trip,
            recoveries=counters.recoveries,
            reconnects=max(0, counters.connections - 1),
            messages_in=counters.messages_in,
            messages_out=counters.messages_out,
            bytes_in=counters.bytes_in,
            bytes_out=counters.bytes_out,
            unacked=protocol.unacked,
        )

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
        assert deadline is not None, "without a link and an action, a try is scheduled"
        with anyio.move_on_after(min(max(0.0, deadline - self._clock.now()), LOOK_AGAIN)):
            if self._protocol.state is State.WAITING:
                await self._token_changed()
                self._protocol.token_changed(now=self._clock.now())
            else:
                await anyio.sleep_forever()

    async def _token_changed(self) -> None:
        try:
            await self._provider.changed()
        except Exception:  # somebody else's code; without it, the back-off just runs its time
            _log.exception("the token provider failed to wait for a change")
            await anyio.sleep_forever()

    async def _reach(self, action: Dial | Recover) -> WebSocket | None:
        """Dial, and tell the protocol how that ended."""
        status = None
        try:
            if isinstance(action, Dial):
                websocket = await self._dial(action)
            else:
                websocket = await self._recover(action)
        except DialFailed as failed:
            error, status = self._error_of(failed), failed.status
        except ChannelError as refusal:
            error = refusal
        else:
            self._protocol.connection_opened(now=self._clock.now(), limited=websocket.is_remote)
            return websocket
        self._protocol.connection_refused(error, now=self._clock.now(), status=status)
        return None

    async def _dial(self, action: Dial) -> WebSocket:
        self._token = await ask(self._provider)
        return await self._dialer.dial(self._token, timeout=action.timeout)

    async def _recover(self, action: Recover) -> WebSocket:
        assert self._token is not None, "there was a connection, so there was a token"
        return await self._dialer.recover(
            self._token.url,
            action.connection_id,
            action.reconnection_token,
            timeout=action.timeout,
        )

    def _error_of(self, failed: DialFailed) -> ChannelError:
        if failed.status is None:
            return NetworkFailure(str(failed))
        expires_at = None if self._token is None else self._token.expires_at
        return failures.from_status(failed.status, expires_at=expires_at, wall=self._clock.wall())

    # One websocket ------------------------------------------------------------------------

    async def _serve(self, websocket: WebSocket) -> None:
        """Read and write until the protocol has no more use for this websocket."""
        try:
            async with anyio.create_task_group() as tasks:
                self._link_scope = tasks.cancel_scope
                tasks.start_soon(self._write, websocket)
                self._react()
                await self._read(websocket)
                tasks.cancel_scope.cancel()
        finally:
            self._timer.cancel()
            if self._protocol.is_linked:  # we are being cancelled, the link is fine
                with anyio.move_on_after(CLOSE_TIME, shield=True):
                    await websocket.close()
            websocket.abort()

    async def _read(self, websocket: WebSocket) -> None:
        count = 0
        while self._protocol.is_linked:
            try:
                data = await websocket.receive()
            except WebSocketClosed as closed:
                self._note_closed(closed)
                return
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
        while (message := self._next_message()) is not None:
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
        self._react()
        self._wake.set()  # to send again, or more than before

    def _react(self) -> None:
        """After each report to the protocol: pass on, look at the link, set the timer."""
        if self._pass_on() or self._protocol.has_control:
            self._wake.set()
        if self._protocol.is_linked:
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
                self._guard(self._receiver.channel_opened, fresh=fresh, now=now)
            case Down(error):
                self._log_down(error)
                self._guard(self._receiver.channel_down, error, now=now)

    def _log_opened(self, fresh: bool) -> None:
        where = "" if self._token is None else url_for_log(self._token.url)
        how = "open" if fresh else "recovered"
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
