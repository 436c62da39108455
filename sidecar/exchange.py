"""Between the channel and the calls: who is attached, what they may be sent, what came.

The exchange is the channel's source and its receiver. It parses every hub message, finds the
attachment it belongs to, keeps the windows of both directions, starts event readers, answers
`attach`, says `hello` on each new connection, and hands calls and streams to the dispatcher.

Until there are a journal and a dispatcher, messages are kept as they came: see `early`.

A message with a wrong attachment or with broken CBOR has no known sender: see `strangers`.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskGroup

from sidecar.clock import Clock
from sidecar.early import EarlyMessages
from sidecar.errors import CallError, ChannelError, Code, ProtocolError
from sidecar.journal import Journal, Reader
from sidecar.protocol import attach
from sidecar.protocol import envelope as wire
from sidecar.protocol.attach import Attachment, Attachments, Identity, Origin
from sidecar.protocol.names import Scope
from sidecar.protocol.outbox import Outboxes
from sidecar.protocol.publish import Publish
from sidecar.protocol.webpubsub.frames import Message
from sidecar.readers import EventReader
from sidecar.strangers import Strangers
from sidecar.timer import Timer

if TYPE_CHECKING:
    from sidecar.dispatch import Dispatcher

log = logging.getLogger(__name__)

COMPANY = 0.020  # seconds that an `accepted` waits for the result; far below a caller's patience


class Exchange:
    """The I/O around attachments, windows and readers of one sidecar."""

    def __init__(self, identity: Identity, clock: Clock) -> None:
        self.identity = identity
        self._clock = clock
        self._attachments = Attachments(identity.subject)
        self._outboxes = Outboxes()
        self._timer = Timer(clock, self._on_deadline)
        self._dispatcher: Dispatcher | None = None
        self._journal: Journal  # from `begin` on; before it, nothing is looked into
        self._early = EarlyMessages()
        self._wake_channel: Callable[[], None] = _asleep
        self._group: TaskGroup | None = None
        self._readers: dict[Attachment, EventReader] = {}
        self._strangers = Strangers(self._hello, now=clock.now())
        self.first_hello = anyio.Event()

    def connect(self, wake: Callable[[], None]) -> None:
        """To the channel, which needs this one to be made first."""
        self._wake_channel = wake

    def trust(self, trust: str) -> None:
        """How far hands is known to be from us, for every hello from now on."""
        self.identity = replace(self.identity, trust=trust)

    def begin(self, dispatcher: Dispatcher, journal: Journal) -> None:
        """Answer from now on, and first of all who came early. Both tasks are running."""
        self._journal = journal
        self._dispatcher = dispatcher
        for message in self._early.take():
            try:
                self.channel_message(message, now=self._clock.now())
            except Exception:  # as the channel does it: a defect must not take the others along
                log.exception("an early message was not understood")

    async def run(self) -> None:
        """Until cancelled: the readers live here."""
        try:
            async with anyio.create_task_group() as self._group:
                await anyio.sleep_forever()
        finally:
            self._timer.cancel()

    def wake(self) -> None:
        """Something waits to be sent."""
        self._wake_channel()

    def wake_soon(self) -> None:
        """Something waits that need not be a message of its own."""
        self._timer.sooner(self._clock.now() + COMPANY)

    def loose(self, group: str, data: bytes) -> None:
        """Send a message that belongs to no attachment, again if the hub did not take it."""
        self._outboxes.loose(group, data, repeat=True)
        self._wake_channel()

    @property
    def attached(self) -> int:
        return len(self._attachments)

    @property
    def readers(self) -> int:
        return len(self._readers)

    @property
    def dropped(self) -> Counter[str]:
        """How many messages were dropped, by reason."""
        return self._strangers.dropped

    async def caught_up(self) -> None:
        """Until every reader has handed out all events there are now."""
        for reader in list(self._readers.values()):
            await reader.caught_up(self._journal.last)

    # the channel's source -----------------------------------------------------------------

    def next_publish(self, *, now: float, urgent_only: bool) -> Publish | None:
        message = self._outboxes.next_message(now=now, urgent_only=urgent_only)
        if message is None:
            self._watch_held(now)
            return None
        return message.publish()

    # the channel's receiver ---------------------------------------------------------------

    def channel_opened(self, *, fresh: bool, now: float) -> None:
        if fresh:
            self._strangers.say_hello(now=now)
            self.first_hello.set()

    def channel_down(self, error: ChannelError, *, now: float) -> None:
        """Nothing to do: attachments outlive connections, and the channel logs the reason."""

    def channel_message(self, message: Message, *, now: float) -> None:
        if self._dispatcher is None:
            if not self._early.keep(message):
                self._strangers.dropped["early"] += 1
            return
        scope, from_server = self._scope(message)
        if scope is None:
            what = f"a message through {message.group!r}"
            self._strangers.drop("group", what, Scope.WATCH, now=now)
            return
        try:
            envelopes = wire.decode(message.data)
        except ProtocolError as error:
            self._strangers.drop("broken", str(error), scope, now=now)
            return
        if isinstance(envelopes[0], wire.Head):
            self._from_attachment(envelopes[0], envelopes[1:], scope, now)
            return
        for envelope in envelopes:
            if isinstance(envelope, wire.Attach) and not from_server:
                self._attach(envelope, scope, now)
            elif isinstance(envelope, wire.Call) and from_server:
                self._call_by_rest(envelope)
            else:
                name = type(envelope).__name__
                self._strangers.drop("stray", f"{name} outside of an attachment", scope, now=now)

    def _scope(self, message: Message) -> tuple[Scope | None, bool]:
        if message.source == "server":
            return Scope.FULL, True
        return self.identity.subject.scope_of(message.group or ""), False

    def _from_attachment(
        self, head: wire.Head, envelopes: list[wire.Any_], scope: Scope, now: float
    ) -> None:
        attachment = self._attachments.find(head.attachment)
        if attachment is None or attachment.scope is not scope:
            if envelopes == [wire.Detach()]:
                return  # it has gone already, and nobody has to attach anew for it
            what = "a message of an attachment that is not known here"
            self._strangers.drop("attachment", what, scope, now=now)
            return
        attachment.heard = now
        attachment.inbound.receive(head, now=now)
        for envelope in envelopes:
            self._envelope(attachment, envelope, now)
        self._arm_for(attachment, now)

    def _envelope(self, attachment: Attachment, envelope: wire.Any_, now: float) -> None:
        assert self._dispatcher is not None
        origin = Origin(attachment.scope, attachment)
        match envelope:
            case wire.Data() | wire.Credit() | wire.End() | wire.Skip() | wire.Reset():
                self._dispatcher.stream(envelope, origin)
            case wire.Rewind():
                self._dispatcher.stream(envelope, origin)
            case wire.Window():
                attachment.outbox.window.receive(envelope)
                attachment.outbox.receive_window_totals(now=now)
                self.wake()
            case wire.Call():
                self._dispatcher.call(envelope, origin)
            case wire.Cancel():
                self._dispatcher.cancel(envelope.id, origin)
            case wire.Ask():
                self._dispatcher.ask(envelope, origin)
            case wire.EventAck():
                self._ack(attachment, envelope)
            case wire.Blocked():
                self._blocked(attachment, envelope, origin, now)
            case wire.Detach():
                self._end(attachment, "it detached")
                self._arm(now)
            case wire.Strange(type=number):
                self._strange(attachment, number)
            case _:
                what = f"{type(envelope).__name__} is for controllers"
                self._strangers.drop("stray", what, attachment.scope, now=now)

    # attachments --------------------------------------------------------------------------

    def _attach(self, request: wire.Attach, scope: Scope, now: float) -> None:
        try:
            group = self.identity.subject.reply_group(request.controller)
        except CallError as error:
            self._strangers.drop("controller", str(error), scope, now=now)
            return
        if not self._strangers.may_answer(scope, now=now):
            return
        try:
            attachment, reader = self._admit(request, scope, now)
        except CallError as error:
            refusal = wire.Refused(request.nonce, wire.error_map(error))
            self._outboxes.loose(group, wire.encode(refusal))
            self._wake_channel()
            return
        self._outboxes.loose(group, wire.encode(attachment.answer))
        if reader is not None:
            self._start_reader(attachment, reader)
        self._wake_channel()
        self._arm(now)

    def _admit(
        self, request: wire.Attach, scope: Scope, now: float
    ) -> tuple[Attachment, Reader | None]:
        """The attachment, with its reader if both are new."""
        known = self._attachments.known(request, now=now)
        if known is not None:
            return known, None
        if request.after is None and request.reader is not None:
            raise CallError(Code.INVALID, f"reader {request.reader!r} without a cursor")
        attachment = self._attachments.attach(
            request, scope, self._facts(), new_id=secrets.token_bytes(16), now=now
        )
        reader = None
        if request.after is not None:
            try:
                reader = self._journal.open_reader(
                    request.reader, after=request.after, series=request.series
                )
            except CallError:
                self._attachments.end(attachment)
                raise
        self._outboxes.add(attachment.outbox)
        log.info("%s attached (%s)", attachment.controller, attachment.scope)
        return attachment, reader

    def _start_reader(self, attachment: Attachment, reader: Reader) -> None:
        events = EventReader(reader, attachment.outbox, wake=self.wake)
        self._readers[attachment] = events
        assert self._group is not None, "run() starts first"
        self._group.start_soon(events.run)

    def _ack(self, attachment: Attachment, ack: wire.EventAck) -> None:
        reader = self._readers.get(attachment)
        if reader is None:
            return
        try:
            reader.ack(ack.seq)
        except CallError as error:
            self._strangers.dropped["ack"] += 1
            log.warning("%s acked badly: %s", attachment.controller, error)

    def _end(self, attachment: Attachment, why: str) -> None:
        assert self._dispatcher is not None
        log.info("attachment of %s ended: %s", attachment.controller, why)
        self._attachments.end(attachment)
        self._dispatcher.attachment_ended(attachment)
        self._outboxes.remove(attachment.outbox)
        reader = self._readers.pop(attachment, None)
        if reader is not None:
            reader.close()

    def _facts(self) -> attach.Facts:
        assert self._dispatcher is not None
        return attach.Facts(
            series=self._journal.series,
            incarnation=self.identity.incarnation,
            generation=self.identity.generation,
            first=self._journal.first,
            last=self._journal.last,
            features=(attach.DURABLE_RECEIPTS,) if self._dispatcher.durable else (),
            limits=attach.LIMITS,
        )

    # time ---------------------------------------------------------------------------------

    def _on_deadline(self) -> None:
        assert self._dispatcher is not None
        now = self._clock.now()
        for attachment in self._attachments.lapsed(now=now):
            self._end(attachment, "90 s of silence")
        for attachment in self._attachments.all():
            if attachment.outbox.overflowed:
                self._end(attachment, "too much waits for it")
                continue
            self._state_window(attachment, now)
            self._state_blocked(attachment, now)
        self._dispatcher.sweep(now=now)
        self._wake_channel()
        self._arm(now)

    def _state_window(self, attachment: Attachment, now: float) -> None:
        statement = attachment.inbound.statement(now=now)
        if statement is not None:
            attachment.outbox.exempt(statement)

    def _state_blocked(self, attachment: Attachment, now: float) -> None:
        if attachment.outbox.is_held:
            blocked = attachment.outbox.window.blocked(now)
            if blocked is not None:
                attachment.outbox.exempt(blocked)

    def _watch_held(self, now: float) -> None:
        """Nothing may go: an outbox whose window is shut says so in a second."""
        for attachment in self._attachments.all():
            if attachment.outbox.is_held:
                attachment.outbox.window.blocked(now)
                self._timer.sooner(attachment.outbox.window.blocked_at)

    def _arm_for(self, attachment: Attachment, now: float) -> None:
        """After a message of one attachment: the others' deadlines are as they were."""
        if attachment.inbound.next_deadline() <= now:
            self._state_window(attachment, now)
            self._wake_channel()
        self._timer.sooner(attachment.inbound.next_deadline())

    def _arm(self, now: float) -> None:
        assert self._dispatcher is not None
        times = [self._attachments.next_deadline(), self._dispatcher.next_deadline()]
        for attachment in self._attachments.all():
            if attachment.outbox.is_held:
                times.append(attachment.outbox.window.blocked_at)
            if attachment.inbound.next_deadline() <= now:
                self._state_window(attachment, now)
                self._wake_channel()
        self._timer.set(min((t for t in times if t is not None), default=None))

    # what has no attachment ---------------------------------------------------------------

    def _call_by_rest(self, call: wire.Call) -> None:
        """A stateless caller: the answer goes to the group of the controller it names."""
        assert self._dispatcher is not None
        if call.incarnation is not None and call.incarnation != self.identity.incarnation:
            self._strangers.dropped["incarnation"] += 1  # meant for another sidecar of this run
            return
        try:
            group = self.identity.subject.reply_group(call.reply or "")
        except CallError as error:
            self._strangers.dropped["controller"] += 1
            log.warning("a call by REST was dropped, its reply is no controller id: %s", error)
            return
        origin = Origin(Scope.FULL, reply_group=group, incarnation=call.incarnation)
        self._dispatcher.call(call, origin)

    def _strange(self, attachment: Attachment, number: int) -> None:
        if number < wire.IGNORABLE:
            attachment.outbox.control(wire.Unsupported(number))
            self._wake_channel()

    def _blocked(
        self, attachment: Attachment, blocked: wire.Blocked, origin: Origin, now: float
    ) -> None:
        assert self._dispatcher is not None
        if blocked.id is None:
            attachment.inbound.urge(now=now)
        else:
            self._dispatcher.stream(blocked, origin)

    def _hello(self) -> None:
        group = self.identity.subject.hello_group
        self._outboxes.loose(group, wire.encode(self.identity.hello()))
        self._wake_channel()


def _asleep() -> None:
    """There is no channel to wake yet."""
