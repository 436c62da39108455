"""Our attachment to the sidecar of one run: repeated until answered, renewed after every loss.

This is the one repair: whenever a connection on either side was lost for good, the controller
attaches anew and asks about each open call. Nothing else has to be remembered.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

import anyio

from sidecar.client.pending import PendingCall, left_behind
from sidecar.clock import Clock
from sidecar.errors import CallError, Code
from sidecar.protocol import envelope as wire
from sidecar.protocol.attach import DURABLE_RECEIPTS, VERSION
from sidecar.protocol.effects import REPEATABLE
from sidecar.protocol.limits import OPEN_CALLS
from sidecar.protocol.names import Subject
from sidecar.protocol.outbox import Outbox, Outboxes
from sidecar.protocol.window import ReceiveWindow, SendWindow
from sidecar.streaming import Sender
from sidecar.timer import Timer

log = logging.getLogger(__name__)

ATTACH_AGAIN = (0.5, 1.0, 2.0, 5.0)  # seconds between attempts


class RemoteAttachment:
    """One attachment of a controller, over any number of connections and sidecars."""

    def __init__(
        self,
        subject: Subject,
        controller: str,
        group: str,
        outboxes: Outboxes,
        *,
        clock: Clock,
        wake: Callable[[], None],
        window: Callable[[], tuple[int, int]],
    ) -> None:
        self.subject = subject
        self.attached = anyio.Event()
        self.answer: wire.Attached | None = None
        self.refused: CallError | None = None
        self.split_brain = False
        self.calls: dict[bytes, PendingCall] = {}
        self._cancelled: dict[bytes, None] = {}  # nobody waits, and no answer came yet
        self._controller = controller
        self._group = group
        self._outboxes = outboxes
        self._clock = clock
        self._wake = wake
        self._window = window
        self._outbox: Outbox | None = None
        self._inbound: ReceiveWindow | None = None
        self._nonce = b""
        self._request: wire.Attach | None = None
        self._attempt = 0
        self._attach_due: float | None = None
        self._timer = Timer(clock, self._on_deadline)
        self._is_closed = False

    # a subclass with a cursor fills these -------------------------------------------------

    def attach_request(self, nonce: bytes, window: tuple[int, int]) -> wire.Attach:
        return wire.Attach(self._controller, nonce, [VERSION], list(window))

    def receive_events(self, events: list[wire.Event | wire.Gap], size: int) -> None:
        """The events of one message of `size` bytes. Without a cursor none are sent."""

    def on_attached(self, answer: wire.Attached) -> None:
        """Attached, for the first time or anew."""

    # attaching ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Attach, or attach anew: with a new nonce, until it is answered."""
        if self._is_closed:
            return
        if self.is_attaching:  # what was asked is asked again, at once
            self._ask_to_attach()
            return
        self._nonce = secrets.token_bytes(16)
        self._request = self.attach_request(self._nonce, self._window())
        self._attempt = 0
        self._ask_to_attach()

    @property
    def is_attaching(self) -> bool:
        """Asked, and not answered yet."""
        return self._attach_due is not None

    def _ask_to_attach(self) -> None:
        assert self._request is not None
        message = wire.encode(self._request)
        self._outboxes.loose(self._group, message, refused=self._on_refusal_by_hub)
        step = ATTACH_AGAIN[min(self._attempt, len(ATTACH_AGAIN) - 1)]
        self._attempt += 1
        self._attach_due = self._clock.now() + step
        self._arm()
        self._wake()

    def receive_attached(self, answer: wire.Attached) -> None:
        if answer.nonce != self._nonce:
            return
        if self.answer is not None:
            if self.answer.nonce == answer.nonce and not self._prefer(answer):
                return
            if answer.generation < self.answer.generation:
                self.split_brain = True  # it has a successor, which is away for the moment
                return
        now = self._clock.now()
        self._attach_due = None
        self._end_old_attachment(answer)
        if self.answer is not None and self.answer.incarnation != answer.incarnation:
            for call in self.calls.values():
                call.renew()
        self.answer = answer
        self.refused = None
        assert self._request is not None
        self._inbound = ReceiveWindow(*self._request.window, now=now)
        self._outbox = Outbox(self._group, SendWindow(answer.attachment, *answer.window))
        self._outboxes.add(self._outbox)
        self.on_attached(answer)
        for call in list(self.calls.values()):
            self._take_up(call)
        for id in self._cancelled:
            self.send(wire.Cancel(id))
        self.attached.set()
        self._arm()
        self._wake()

    def _end_old_attachment(self, new: wire.Attached) -> None:
        """Tell the same sidecar that we speak to it by a new id: else the old attachment would
        keep its reader's place for the 90 s that it takes to lapse."""
        old, outbox = self.answer, self._outbox
        self._drop_outbox()
        if old is None or outbox is None or old.incarnation != new.incarnation:
            return
        window = outbox.window
        head = wire.Head(old.attachment, window.bytes, window.messages)
        self._outboxes.loose(self._group, wire.join([head, wire.Detach()]), repeat=True)

    def _prefer(self, answer: wire.Attached) -> bool:
        """Two sidecars answered: the highest (generation, incarnation) is the one to speak to."""
        assert self.answer is not None
        if answer.attachment == self.answer.attachment:
            return False
        if answer.incarnation != self.answer.incarnation and not self.split_brain:
            self.split_brain = True
            log.warning("split brain: two sidecars answer for run %s", self.subject.run)
        ours = (self.answer.generation, self.answer.incarnation)
        return (answer.generation, answer.incarnation) > ours

    def receive_refused(self, refused: wire.Refused) -> None:
        if refused.nonce != self._nonce:
            return
        error = wire.error_from(refused.error)
        if self.answer is not None and error.code is Code.LIMIT:
            return  # full, for old attachments have not lapsed yet: ask again, as if unanswered
        self._fail(error)

    def _on_refusal_by_hub(self) -> None:
        why = f"no right to send to `{self._group}`: the token is for another run, or to watch"
        self._fail(CallError(Code.FORBIDDEN, why))

    def _fail(self, error: CallError) -> None:
        """There is no attachment to be had, so there will be no results."""
        self._attach_due = None
        self.refused = error
        for call in list(self.calls.values()):
            call.fail(error)
        self.attached.set()

    def receive_hello(self, hello: wire.Hello) -> None:
        """A sidecar has a new connection, or does not know us: attach anew. Only the newest
        sidecar of a run is believed."""
        if self.answer is not None:
            theirs = (hello.generation, hello.incarnation)
            if theirs < (self.answer.generation, self.answer.incarnation):
                self.split_brain = True
                return
        self.begin()

    def _take_up(self, call: PendingCall) -> None:
        assert self._outbox is not None
        if call.call is not None and not call.accepted:
            if self._may_have_run_elsewhere(call.call, call.sent_to):
                call.fail(left_behind(call.id))
                return
            if not call.is_only_asked_about:
                self._send_call(call)
        self.send(call.ask())
        if call.cancel_wanted:
            self.send(wire.Cancel(call.id))
        for sender in call.senders.values():
            sender.bind(self._outbox)

    def _may_have_run_elsewhere(self, call: wire.Call, sent_to: wire.Attached | None) -> bool:
        """It went to another process, which never said `accepted` and whose receipts this one
        does not have. Sent here too, it could run twice; only what does no harm twice is. The
        series tells one state folder from another."""
        assert self.answer is not None
        if sent_to is None or sent_to.incarnation == self.answer.incarnation:
            return False
        if DURABLE_RECEIPTS in self.answer.features and sent_to.series == self.answer.series:
            return False
        return call.command not in REPEATABLE

    def _send_call(self, call: PendingCall) -> None:
        assert call.call is not None
        if self._outbox is not None:
            call.sent_to = self.answer
        self.send(call.call)

    # sending ------------------------------------------------------------------------------

    def send(self, envelope: wire.Envelope) -> None:
        """Control; without an attachment it is not lost, for attaching repairs everything."""
        if self._outbox is not None:
            self._outbox.control(envelope)
            self._wake()

    def _say(self, envelope: wire.Envelope) -> None:
        """What a later one of its kind makes needless: see `Outbox.exempt`."""
        if self._outbox is not None:
            self._outbox.exempt(envelope)
            self._wake()

    def start(self, call: PendingCall) -> None:
        """Send a new call. Raises `CallError` if the attachment was refused."""
        if self._is_closed:
            raise CallError(Code.CANCELLED, "this side has detached")
        if self.refused is not None:
            raise self.refused
        if len(self.calls) >= OPEN_CALLS:
            raise CallError(Code.LIMIT, f"{len(self.calls)} calls are open already")
        self.calls[call.id] = call
        if call.call is None:
            self.send(call.ask())
        else:
            self._send_call(call)
        self._arm()

    def add_sender(self, call: PendingCall, sender: Sender) -> None:
        call.senders[sender.stream.n] = sender
        if self._outbox is not None:
            sender.bind(self._outbox)

    def cancel(self, call: PendingCall) -> None:
        if not call.has_ended:
            call.cancel_wanted = True
            self.send(wire.Cancel(call.id))

    def forget(self, call: PendingCall) -> None:
        """Nobody waits for it here any more: what is left of its streams is broken off. A cancel
        is said again to each sidecar to come, until one has answered."""
        self.calls.pop(call.id, None)
        if call.cancel_wanted and not call.has_ended:
            self._cancelled[call.id] = None
            if len(self._cancelled) > OPEN_CALLS:
                del self._cancelled[next(iter(self._cancelled))]
        gone = CallError(Code.CANCELLED, "nobody waits for this call any more")
        for sender in call.senders.values():
            sender.stop(gone)
        for receiver in call.receivers.values():
            receiver.reset(gone)

    # receiving ----------------------------------------------------------------------------

    def receive_message(self, head: wire.Head, envelopes: list[wire.Any_], size: int) -> None:
        """A message of our attachment, of `size` bytes."""
        assert self._inbound is not None
        now = self._clock.now()
        self._inbound.receive(head, now=now)
        events: list[wire.Event | wire.Gap] = []
        for envelope in envelopes:
            if isinstance(envelope, wire.Event | wire.Gap):
                events.append(envelope)
            else:
                self._receive_one(envelope, now)
        if events:
            self.receive_events(events, size)
        self._arm()

    def _receive_one(self, envelope: wire.Any_, now: float) -> None:
        match envelope:
            case wire.Window():
                if self._outbox is not None:
                    self._outbox.window.receive(envelope)
                    self._outbox.receive_window_totals(now=now)
                    self._wake()
            case wire.Blocked(id=None):
                if self._inbound is not None:
                    self._inbound.urge(now=now)
            case wire.Strange(type=number):
                if number < wire.IGNORABLE:
                    self.send(wire.Unsupported(number))
            case wire.Unsupported(type=number):
                log.warning("the sidecar of run %s knows no envelope %d", self.subject.run, number)
            case _:
                call = self.calls.get(getattr(envelope, "id", b""))
                if call is not None:
                    self._for_call(call, envelope)
                elif isinstance(envelope, wire.Result):
                    self._cancelled.pop(envelope.id, None)

    def _for_call(self, call: PendingCall, envelope: wire.Any_) -> None:
        match envelope:
            case wire.Accepted():
                call.accepted = True
            case wire.Result():
                call.receive_result(envelope)
            case wire.State():
                self._state(call, envelope)
            case wire.Credit() | wire.Rewind():
                sender = call.senders.get(envelope.n)
                if sender is not None:
                    sender.receive(envelope)
            case wire.Reset():
                if envelope.n in call.senders:
                    call.senders[envelope.n].receive(envelope)
                else:
                    call.receiver(envelope.n, has_begun=True).feed(envelope)
            case wire.Data() | wire.End() | wire.Skip() | wire.Blocked():
                if envelope.n is not None:
                    call.receiver(envelope.n, has_begun=True).feed(envelope)

    def _state(self, call: PendingCall, state: wire.State) -> None:
        if call.receive_state(state):
            self._send_call(call)

    def hold(self, size: int) -> None:
        if self._inbound is not None:
            self._inbound.hold(size)

    def release(self, size: int) -> None:
        if self._inbound is not None:
            self._inbound.release(size, now=self._clock.now())
            self._arm()

    # time ---------------------------------------------------------------------------------

    def _on_deadline(self) -> None:
        now = self._clock.now()
        if self._attach_due is not None and now >= self._attach_due:
            self._ask_to_attach()
        for call in list(self.calls.values()):
            call.handle_deadline(now=now)
        self._arm()

    def _arm(self) -> None:
        now = self._clock.now()
        times = [self._attach_due, *(call.next_deadline() for call in self.calls.values())]
        if self._inbound is not None and self._outbox is not None:
            statement = self._inbound.statement(now=now)
            if statement is not None:
                self._outbox.exempt(statement)
                self._wake()
            times += [self._inbound.next_deadline(), self._blocked(self._outbox, now)]
        self._timer.set(min((t for t in times if t is not None), default=None))

    def _blocked(self, outbox: Outbox, now: float) -> float | None:
        if not outbox.is_held:
            return None
        blocked = outbox.window.blocked(now)
        if blocked is not None:
            outbox.exempt(blocked)
            self._wake()
        return outbox.window.blocked_at

    def close(self) -> None:
        """Detach. Calls go on at the sidecar; whoever waits for one here is told."""
        if self._is_closed:
            return
        self._is_closed = True
        self._timer.cancel()
        gone = CallError(Code.CANCELLED, "this side detached before the call ended")
        for call in list(self.calls.values()):
            call.fail(gone)
            self.forget(call)
        self._say(wire.Detach())

    def drop(self) -> None:
        """After `close`, when the goodbye is on its way."""
        self._drop_outbox()

    def _drop_outbox(self) -> None:
        if self._outbox is not None:
            self._outboxes.remove(self._outbox)
            self._outbox = None
