"""When to dial, when to recover, when to give up a connection.

Source: Azure/azure-webpubsub, protocols/client/client-spec.md, 1.2 to 1.4 and 3.2.
Times are seconds on the caller's clock; only differences matter.

    STOPPED ── start ──► CONNECTING ── connected ──► OPEN ── lost ──► RECOVERING ──► OPEN
                          ▲      │ failed             │ forgotten       │ 1008, HTTP 4xx,
                          │      ▼                    ▼                 ▼ or 30 s after the drop
                          └── WAITING ◄───────────────┴─────────────────┘        any ──► CLOSED

Two rules keep this file honest. Everything that changes the state is here, and nothing here does
it: `Channel` reports what happened, reads `events()`, `actions()` and what is to be sent, and
carries them out. After each report it looks at `is_linked`: once that is False, the websocket is
of no more use, whoever noticed it.

A recovered connection need not say `connected` again, and one that the service has forgotten is
closed with 1008 after the upgrade. So a recovery counts once any frame arrives; a ping asks for
one. All that was numbered goes on where it was: sequence ids, ack ids, unacknowledged publishes.
On a new connection, they begin again, and the unacknowledged is handed back as LOST.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.errors import ChannelError, NetworkFailure, NoToken, ProtocolError, TokenRefused
from sidecar.protocol import failures
from sidecar.protocol.backoff import Backoff
from sidecar.protocol.channel_events import (
    Action,
    Dial,
    Down,
    Event,
    Opened,
    Received,
    Recover,
    State,
    Timing,
)
from sidecar.protocol.connection import Connection, Counters, Link
from sidecar.protocol.publish import Publish
from sidecar.protocol.ratelimit import RateLimit, TokenBucket
from sidecar.protocol.unacked import Room
from sidecar.protocol.webpubsub.frames import Ack, Codec, Connected, Disconnected, Message, Pong


class ChannelProtocol:
    """The life of a channel over a series of connections.

    `random` gives numbers from 0.0 to 1.0. `rate` bounds what is published on links that are
    opened as `limited`.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        random: Callable[[], float],
        timing: Timing | None = None,
        rate: RateLimit | None = None,
    ) -> None:
        self._codec = codec
        self._timing = timing or Timing()
        self._rate = rate
        self._bucket: TokenBucket | None = None
        self._state = State.STOPPED
        self._connection = Connection(codec)
        self._link: Link | None = None
        first, longest = self._timing.backoff_first, self._timing.backoff_longest
        self._recovery_backoff = Backoff(random, first=first, longest=longest)
        self._dial_backoff = Backoff(random, first=first, longest=longest)
        first, longest = self._timing.refused_first, self._timing.refused_longest
        self._refused_backoff = Backoff(random, first=first, longest=longest)
        self._try_at: float | None = None
        self._recover_until = 0.0
        self._told: str | None = None
        self._events: list[Event] = []
        self._actions: list[Action] = []
        self.attempts = 0  # since the channel was last open
        self.failure: ChannelError | None = None  # the last one
        self.counters = Counters()

    @property
    def state(self) -> State:
        return self._state

    @property
    def is_linked(self) -> bool:
        """Whether the websocket that was reported open is still of use."""
        return self._link is not None

    @property
    def connection_id(self) -> str | None:
        return self._connection.id

    @property
    def connected_since(self) -> float | None:
        """When the service first said `connected`; recoveries do not count."""
        return self._connection.since

    @property
    def unacked(self) -> int:
        """Publishes that are not settled."""
        return len(self._connection.unacked)

    @property
    def chunk(self) -> int:
        """Bytes that the path to the hub carries in about 10 ms, between 8 and 256 KiB."""
        return self._connection.unacked.flow.chunk

    def events(self) -> list[Event]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    def actions(self) -> list[Action]:
        """What is to be done: at most one, and none while one is being done."""
        actions, self._actions = self._actions, []
        return actions

    # What is sent -------------------------------------------------------------------------

    @property
    def has_control(self) -> bool:
        """Whether an ack or a ping is due."""
        return self._link is not None and self._link.has_control(self._connection)

    def next_control(self) -> bytes | str | None:
        """The next ack or ping that is due; they go before everything else."""
        frame = None if self._link is None else self._link.control(self._connection)
        if frame is None:
            return None
        message = self._codec.encode_upstream(frame)
        self.counters.sent(message)
        return message

    def room(self, *, now: float) -> Room:
        """What `publish` may be given now."""
        if self._state is not State.OPEN or self._link is None:
            return Room.NONE
        room = self._connection.unacked.room
        return Room.URGENT if room is Room.ANY and self._link.is_over_rate(now=now) else room

    def publish(self, publish: Publish, *, now: float) -> bytes | str:
        """The message to send; it is kept until it is settled. Raises `LimitExceeded`, before
        anything happened, for one that is larger than the service takes."""
        assert self._state is State.OPEN, self._state
        message = self._connection.unacked.add(publish, now=now)
        self._count(message, now)
        return message

    def next_resend(self, *, now: float) -> bytes | str | None:
        """The next publish that is to be sent again; the caller sends what is urgent first."""
        if self._state is not State.OPEN:
            return None
        message = self._connection.unacked.next_resend(now=now)
        if message is not None:
            self._count(message, now)
        return message

    # What happened ------------------------------------------------------------------------

    def start(self, *, now: float) -> None:
        """Begin. Only once."""
        assert self._state is State.STOPPED, self._state
        self._dial()

    def connection_opened(self, *, now: float, limited: bool = False) -> None:
        """The websocket that an action asked for is open. `limited`: the rate applies to it."""
        assert self._state in (State.CONNECTING, State.RECOVERING), self._state
        if self._bucket is None and self._rate is not None:
            self._bucket = TokenBucket(self._rate, now=now)
        bucket = self._bucket if limited else None
        self._link = Link(self._timing, bucket=bucket, now=now)
        if self._state is State.RECOVERING:
            self._link.liveness.ask(now=now)

    def receive_message(self, data: bytes | str, *, now: float) -> None:
        """One websocket message arrived."""
        if self._link is None:
            return
        self.counters.received(data)
        self._link.liveness.receive_frame(now=now)
        try:
            frame = self._codec.decode_downstream(data)
        except ProtocolError as error:
            self.connection_unreadable(str(error), now=now)
            return
        if isinstance(frame, Connected):
            self._receive_connected(frame, now)
        elif self._state is State.RECOVERING:
            self._open(fresh=False, now=now)
        match frame:
            case Message():
                self._receive_data(frame, len(data), now)
            case Ack():
                self._receive_ack(frame, now)
            case Pong():
                self.counters.measured(self._link.liveness.receive_pong(now=now))
            case Disconnected():
                self._link.farewell = frame.reason

    def connection_unreadable(self, reason: str, *, now: float) -> None:
        """What came is no frame. What it held is lost, and a recovery would only bring it again:
        a new connection makes everybody look for what they miss."""
        if self._link is not None:
            self._start_over(ChannelError(f"the hub sent what we cannot read: {reason}"), now)

    def connection_lost(
        self, *, now: float, close_code: int | None = None, reason: str = ""
    ) -> None:
        """The websocket ended. Harmless when it was already given up."""
        if self._link is None:
            return
        error = failures.from_close(close_code, reason, self._link.farewell)
        if close_code in failures.UNRECOVERABLE:
            self._start_over(error, now)
        else:
            self._drop(error, now)

    def connection_refused(
        self, error: ChannelError, *, now: float, status: int | None = None
    ) -> None:
        """What the last action asked for failed before a websocket was open. `status` is that
        of HTTP, if the far end got so far."""
        if self._state is State.RECOVERING and not failures.ends_recovery(status):
            self._tell(error)
            self._schedule_recovery(now)
        else:
            self._start_over(error, now)

    def token_changed(self, *, now: float) -> None:
        """There may be another token: whoever waits to dial, dials."""
        if self._state is State.WAITING:
            self._reset_backoffs()
            self._dial()

    def close(self, *, now: float) -> None:
        """The end. What is unacknowledged is handed back."""
        self._link = None
        self._actions.clear()
        self._end_connection()
        self._enter(State.CLOSED)

    def next_deadline(self) -> float | None:
        """When `handle_deadline` wants to be called if nothing happens before."""
        return self._try_at if self._link is None else self._link.next_deadline(self._connection)

    def handle_deadline(self, *, now: float) -> None:
        """Time has passed. Harmless when called early."""
        if self._link is not None:
            fault = self._link.handle_deadline(self._connection, now=now)
            if fault is not None:
                self._drop(NetworkFailure(fault), now)
        elif self._try_at is not None and now >= self._try_at:
            if self._state is State.RECOVERING:
                self._recover(now)
            else:
                self._dial()

    # Transitions --------------------------------------------------------------------------

    def _enter(self, state: State) -> None:
        self._state = state
        self._try_at = None

    def _dial(self) -> None:
        self._enter(State.CONNECTING)
        self.attempts += 1
        self._actions.append(Dial(self._timing.attempt))

    def _receive_connected(self, frame: Connected, now: float) -> None:
        is_fresh = frame.connection_id != self._connection.id
        if is_fresh and self._connection.id is not None:
            self._end_connection()  # asked to recover, the service made a new one instead
        self._connection.receive_connected(frame)
        if is_fresh or self._state is State.RECOVERING:
            self._open(fresh=is_fresh, now=now)

    def _open(self, *, fresh: bool, now: float) -> None:
        assert self._link is not None
        self._enter(State.OPEN)
        self._link.is_proven = True
        self._told = None
        self.attempts = 0
        if fresh:
            self._connection.since = now
            self.counters.connections += 1
        else:
            self._connection.link_recovered()
            self.counters.recoveries += 1
        self._events.append(Opened(fresh))

    def _drop(self, error: ChannelError, now: float) -> None:
        """The link is gone; the service may still know the connection."""
        if self._connection.reconnection_token is None:
            self._start_over(error, now)
            return
        was_stable = self._end_link(now)
        self._tell(error)
        if self._state is State.OPEN:
            self._recover_until = now + self._timing.recovery_window
            self._enter(State.RECOVERING)
            if was_stable:
                self._recover(now)
                return
        self._schedule_recovery(now)

    def _recover(self, now: float) -> None:
        if now >= self._recover_until:
            self._start_over(NetworkFailure(f"recovery took too long: {self.failure}"), now)
            return
        token, connection_id = self._connection.reconnection_token, self._connection.id
        assert token is not None and connection_id is not None
        self._enter(State.RECOVERING)
        self.attempts += 1
        timeout = min(self._timing.attempt, self._recover_until - now)
        self._actions.append(Recover(connection_id, token, timeout))

    def _schedule_recovery(self, now: float) -> None:
        # The window counts from the drop: failed attempts do not stretch the service's memory.
        self._try_at = min(now + self._recovery_backoff.next(), self._recover_until)

    def _start_over(self, error: ChannelError, now: float) -> None:
        """Nothing of this connection can be had again: wait, then dial a new one."""
        self._end_link(now)
        self._tell(error)
        self._end_connection()
        is_refused = isinstance(error, TokenRefused | NoToken)
        backoff = self._refused_backoff if is_refused else self._dial_backoff
        self._enter(State.WAITING)
        self._try_at = now + backoff.next()

    def _end_link(self, now: float) -> bool:
        """Whether there was a link, and it held long enough to forget earlier failures."""
        link, self._link = self._link, None
        if link is None or now - link.opened_at < self._timing.stable_after:
            return False
        self._reset_backoffs()
        return True

    def _end_connection(self) -> None:
        self._events += self._connection.unacked.abandon()
        self._connection = Connection(self._codec)

    def _reset_backoffs(self) -> None:
        for backoff in (self._recovery_backoff, self._dial_backoff, self._refused_backoff):
            backoff.reset()

    # Details ------------------------------------------------------------------------------

    def _tell(self, error: ChannelError) -> None:
        self.failure = error
        if self._told != error.reason:
            self._told = error.reason
            self._events.append(Down(error))

    def _receive_data(self, frame: Message, size: int, now: float) -> None:
        number = frame.sequence_id  # None on a plain subprotocol, which numbers nothing
        if number is None or self._connection.sequence.receive(number, size, now=now):
            self._events.append(Received(frame))

    def _receive_ack(self, frame: Ack, now: float) -> None:
        unacked = self._connection.unacked
        self.counters.measured(unacked.round_trip(frame, now=now))
        settled = unacked.receive_ack(frame, now=now)
        if settled is not None:
            self._events.append(settled)

    def _count(self, message: bytes | str, now: float) -> None:
        self.counters.sent(message)
        if self._link is not None and self._link.bucket is not None:
            self._link.bucket.take(len(message), now=now)
