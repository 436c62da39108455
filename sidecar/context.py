"""What a handler is given: its call, and the means to act, emit and stream.

A handler is `async def handler(ctx, arguments) -> dict`. It raises `CallError` for the
one answer that says no, and it must stand being cancelled at any await: then it cleans up
and lets the cancellation go on. If it `is_left_by` that, for this process ends and the call does
not, it lets go of what is ours and leaves the rest as it is, as if we had been killed.

A resumer is the same for a call of an earlier life of the sidecar: it is given the note that the
handler left, and what it returns is the result.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from sidecar.clock import Clock
from sidecar.egress import CallEgress, Egress, MeteredSource
from sidecar.errors import CallError, Code, Started
from sidecar.hands.interface import Hands
from sidecar.journal import Emit
from sidecar.policy import Policy
from sidecar.processes.table import Processes
from sidecar.protocol import envelope as wire
from sidecar.protocol.effects import Effect
from sidecar.protocol.ids import show
from sidecar.protocol.limits import STREAM_CREDIT
from sidecar.protocol.names import Scope
from sidecar.protocol.streams import ReceiveStream, SendStream
from sidecar.streaming import Receiver, Sender, Source
from sidecar.turns import Turns
from sidecar.uploads import Uploads

if TYPE_CHECKING:
    from sidecar.protocol.attach import Attachment


@dataclass(slots=True)
class Means:
    """What all calls of a sidecar share."""

    hands: Hands
    clock: Clock
    policy: Policy
    egress: Egress
    emit: Emit
    wake: Callable[[], None]  # the channel has something to send
    wake_soon: Callable[[], None]  # it has something that may wait for company, 20 ms at most
    processes: Processes
    facts: Callable[[], Mapping[str, Any]]  # what `sidecar.info` answers
    end_run: Callable[[float | None], Awaitable[Mapping[str, Any]]]  # what `run.end` does
    forget_reader: Callable[[str], None]  # what `events.forget` does
    uploads: Uploads
    turns: Turns = field(default_factory=Turns)  # of what is done to one file, by its identity


@dataclass(slots=True, eq=False)
class CallContext:
    """One call, as its handler sees it."""

    id: bytes
    command: str
    scope: Scope
    means: Means
    deadline: float | None  # on our clock
    traceparent: str | None
    credit: int  # what the caller granted each stream at the start
    caller: Attachment | None  # who asked last; None: a stateless caller, or nobody now
    start_sender: Callable[[Sender], None]
    on_started: Callable[[bytes | None], Awaitable[None]]
    senders: dict[int, Sender] = field(default_factory=dict)
    receivers: dict[int, Receiver] = field(default_factory=dict)
    is_resumed: bool = False  # an earlier life of the sidecar began it
    asked: dict[int, list[int]] = field(default_factory=dict)  # for streams that are not here yet
    ends: list[anyio.CancelScope] = field(default_factory=list)  # cancelled, the call is to end
    egress: CallEgress = field(init=False)  # what of its content may leave

    def __post_init__(self) -> None:
        self.egress = self.means.egress.of_call()

    @property
    def hands(self) -> Hands:
        return self.means.hands

    def emit(self, name: str, data: Any) -> int:
        """Append an event of this call to the journal."""
        return self.means.emit(name, data, call=self.id)

    async def started(self, note: bytes | None = None) -> None:
        """Say in the receipt that the command begins to act: from here on it may have effects,
        and it is never run again by itself.

        `note` is what the resumer of the command is given after a restart of the sidecar: CBOR
        of its own, at most 4 KiB. Another one replaces it. Without any, the answer of a call
        that a restart interrupts is `outcome_unknown`.
        """
        await self.on_started(note)

    def is_left_by(self, error: BaseException) -> bool:
        """Whether `error` cancels this call although nobody wants it to end: this process ends,
        and the next one goes on with it."""
        is_cancelled = isinstance(error, anyio.get_cancelled_exc_class())
        return is_cancelled and not any(scope.cancel_called for scope in self.ends)

    @property
    def controller(self) -> str | None:
        """Who asked last, by its own name; None for a stateless caller."""
        return None if self.caller is None else self.caller.controller

    def check_streams(self) -> None:
        """Raises `needs_attachment` for a caller that has none to send a stream to."""
        if not self.credit and self.caller is None:
            raise CallError(
                Code.NEEDS_ATTACHMENT,
                f"{self.command} answers with a stream: attach and call again",
            )

    def send(
        self,
        n: int,
        source: Source,
        *,
        start: int = 0,
        sent: int | None = None,
        is_counted: bool = False,
    ) -> Sender:
        """Begin to send stream `n` from `source`, its bytes from `start` on; `check_streams` is
        asked first. What may not leave any more ends it with `denied`.

        `sent`, of a resumed call: an earlier life may have sent all up to there. How far it came
        only the receiver knows, so nothing is sent until that asks. `is_counted`: its bytes are
        no content, or were taken from `egress` already.
        """
        self.check_streams()
        limit = start + self.credit
        stream = SendStream(self.id, n, limit=limit, start=start, sent=sent)
        if not is_counted:
            is_resumed = sent is not None
            source = MeteredSource(source, self.egress, start=start, is_resumed=is_resumed)
        sender = Sender(stream, source, clock=self.means.clock, wake=self.means.wake)
        self.senders[n] = sender
        if self.caller is not None:
            if sent is None:
                sender.bind(self.caller.outbox)
            elif (at := self.asked.get(n)) is not None:
                sender.bind(self.caller.outbox)
                try:
                    sender.resume(*at)
                except CallError:
                    self.give_up(sender)
        self.start_sender(sender)
        return sender

    def give_up(self, sender: Sender) -> None:
        """Whoever asked for a stream of a resumed call has more than can be known of it now."""
        n = sender.stream.n
        why = f"stream {n} of call {show(self.id)} is not kept as far as it was sent"
        sender.fail(CallError(Code.ANSWER_GONE, why, started=Started.YES))

    def receiver(self, n: int) -> Receiver:
        """The incoming stream `n`, granted `STREAM_CREDIT` bytes from the start."""
        known = self.receivers.get(n)
        if known is not None:
            return known
        stream = ReceiveStream(self.id, n, window=STREAM_CREDIT)
        receiver = Receiver(stream, send=self._answer, clock=self.means.clock)
        self.receivers[n] = receiver
        return receiver

    def _answer(self, envelope: wire.Envelope) -> None:
        if self.caller is not None:
            self.caller.outbox.control(envelope, repeat=False)
            self.means.wake()


Handler = Callable[[CallContext, Any], Awaitable[dict[str, Any]]]
Resumer = Callable[[CallContext, bytes], Awaitable[dict[str, Any]]]  # given the note of the call


@dataclass(frozen=True, slots=True)
class Bound:
    """A command of the catalogue with what dispatch needs to know of it."""

    name: str
    effect: Effect
    parse: Callable[[bytes], Any]
    handler: Handler
    resume: Resumer | None = None  # takes up a call that was started when the sidecar ended
