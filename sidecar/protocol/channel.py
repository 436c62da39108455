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

from sidecar.errors import ChannelError, NetworkFailure, ProtocolError
from sidecar.protocol import failures
from sidecar.protocol.backoff import Backoffs
from sidecar.protocol.carrying import Carrying
from sidecar.protocol.channel_events import (
    Action,
    Dial,
    Down,
    Opened,
    Received,
    Recover,
    State,
    Timing,
)
from sidecar.protocol.connection import Connection, Link
from sidecar.protocol.handover import Successor, is_around_expiry
from sidecar.protocol.ratelimit import RateLimit, TokenBucket
from sidecar.protocol.webpubsub.frames import Ack, Codec, Connected, Disconnected, Message, Pong

MOST_GISTS = 8  # that are told for one reason, as they may come in turn for days


class ChannelProtocol(Carrying):
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
        super().__init__(codec)
        self._timing = timing or Timing()
        self._rate = rate
        self._bucket: TokenBucket | None = None
        self._state = State.STOPPED
        self._successor: Successor | None = None
        self._backoffs = Backoffs(random, self._timing)
        self._try_at: float | None = None
        self._recover_until = 0.0
        self._told: str | None = None
        self._gists: set[str] = set()  # of the dials that failed for the reason that was told
        self._actions: list[Action] = []
        self.attempts = 0  # since the channel was last open
        self.websocket = 0  # counts those that have carried the channel
        self.token_lapses_at: float | None = None  # of the token that was dialled with last
        self.ends_at_expiry = False  # a hub was seen to end a connection when its token lapsed
        self.failure: ChannelError | None = None  # the last one

    @property
    def state(self) -> State:
        return self._state

    @property
    def is_open(self) -> bool:
        return self._state is State.OPEN

    @property
    def is_linked(self) -> bool:
        """Whether the websocket that was reported open is still of use."""
        return self._link is not None

    def actions(self) -> list[Action]:
        """What is to be done: at most one, and none while one is being done."""
        actions, self._actions = self._actions, []
        return actions

    # What happened ------------------------------------------------------------------------

    def start(self, *, now: float) -> None:
        """Begin. Only once."""
        assert self._state is State.STOPPED, self._state
        self._dial()

    def connection_opened(self, *, now: float, limited: bool = False) -> None:
        """The websocket that an action asked for is open. `limited`: the rate applies to it."""
        assert self._state in (State.CONNECTING, State.RECOVERING), self._state
        self.websocket += 1
        self._link = self._new_link(limited, now)
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
                if self._successor is not None:
                    self._successor.receive_old_pong()
            case Disconnected():
                self._link.farewell = frame.reason
        self._try_switch(now)

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
        if close_code is not None and self.token_lapses_at is not None:
            self.ends_at_expiry |= is_around_expiry(now - self.token_lapses_at)
        if self._switched_instead(now):
            return
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
            self._backoffs.reset()
            self._dial()

    def redial(self, *, now: float) -> None:
        """Give up what is being tried, and dial with another token. Not while open: hand over."""
        if self._state in (State.CONNECTING, State.RECOVERING, State.WAITING):
            self._link = None
            self._actions.clear()
            self._end_connection()
            self._backoffs.reset()
            self._dial()

    # A successor, while the channel is open: see `protocol.handover` -------------------------

    @property
    def is_handing_over(self) -> bool:
        """Whether the old connection is only waited for."""
        return self._successor is not None and self._successor.is_open

    def successor_opened(self, *, now: float, limited: bool = False) -> None:
        """The websocket of a successor is open."""
        self._successor = Successor(self._codec, self._new_link(limited, now))

    def receive_from_successor(self, data: bytes | str, *, now: float) -> None:
        """One websocket message of the successor. Raises `ProtocolError`: it is of no use."""
        if self._successor is not None and self._link is not None:
            self.counters.received(data)
            frame = self._codec.decode_downstream(data)
            self._successor.receive(frame, len(data), old=self._link, now=now)
            self._try_switch(now)

    def successor_lost(self, error: ChannelError, *, now: float) -> float:
        """There is none: it was refused, or lost before it could take over. Seconds until a
        further try; the old connection goes on."""
        self.failure, self._successor = error, None
        return self._backoffs.handover.next()

    def _try_switch(self, now: float) -> None:
        successor = self._successor
        if successor is not None and successor.has_waited and not self.unacked:
            self._switch(successor, now)

    def _switch(self, successor: Successor, now: float) -> None:
        self._end_connection()
        self._successor = None
        self._link, self._connection = successor.link, successor.connection
        self.websocket += 1
        self.counters.connections += 1
        self.counters.handovers += 1
        self._backoffs.handover.reset()
        self._events.append(Opened(fresh=True))
        self._events += [Received(message) for message in successor.held]

    def _switched_instead(self, now: float) -> bool:
        """The old link is gone. Whether a successor stands ready; a half-open one is given up."""
        successor, self._successor = self._successor, None
        if successor is None or not successor.is_open or self._state is not State.OPEN:
            return False
        self._switch(successor, now)
        return True

    # The end ------------------------------------------------------------------------------

    def close(self, *, now: float) -> None:
        """The end. What is unacknowledged is handed back."""
        self._link = self._successor = None
        self._actions.clear()
        self._end_connection()
        self._enter(State.CLOSED)

    def next_deadline(self) -> float | None:
        """When `handle_deadline` wants to be called if nothing happens before."""
        if self._link is None:
            return self._try_at
        deadline = self._link.next_deadline(self._connection)
        return (
            deadline if self._successor is None else min(deadline, self._successor.next_deadline())
        )

    def handle_deadline(self, *, now: float) -> None:
        """Time has passed. Harmless when called early."""
        if self._link is not None:
            successor = self._successor
            if successor is not None and now >= successor.next_deadline():
                self._switch(successor, now)
                return
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
        if self._switched_instead(now):
            return
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
        self._try_at = min(now + self._backoffs.recovery.next(), self._recover_until)

    def _start_over(self, error: ChannelError, now: float) -> None:
        """Nothing of this connection can be had again: wait, then dial a new one."""
        if self._switched_instead(now):
            return
        self._end_link(now)
        self._tell(error)
        self._end_connection()
        delay = self._backoffs.before_dial(error)
        self._enter(State.WAITING)
        self._try_at = None if delay is None else now + delay

    def _end_link(self, now: float) -> bool:
        """Whether there was a link, and it held long enough to forget earlier failures."""
        link, self._link = self._link, None
        if link is None or now - link.opened_at < self._timing.stable_after:
            return False
        self._backoffs.reset()
        return True

    def _new_link(self, limited: bool, now: float) -> Link:
        if self._bucket is None and self._rate is not None:
            self._bucket = TokenBucket(self._rate, now=now)
        return Link(self._timing, bucket=self._bucket if limited else None, now=now)

    def _end_connection(self) -> None:
        self._events += self._connection.unacked.abandon()
        self._connection = Connection(self._codec)

    # Details ------------------------------------------------------------------------------

    def _tell(self, error: ChannelError) -> None:
        self.failure = error
        gist = "".join(c for c in str(error) if not c.isdigit())  # without seconds, which grow
        if self._told != error.reason:
            self._told, self._gists = error.reason, {gist}
            self._events.append(Down(error))
        elif self._state is State.CONNECTING and gist not in self._gists:
            if len(self._gists) < MOST_GISTS:
                self._gists.add(gist)
                self._events.append(Down(error))
