"""The calls of a sidecar: new ones and repeated ones, who asks, who cancels, their streams.

One task per call; `callrunner` has what happens in it. Whoever asked last gets the result; the
streams of a call move with it.

Dispatch knows no command. `runtime` installs the catalogue when the sidecar has said hello,
and calls that came earlier wait for it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from sidecar.answers import Answers
from sidecar.callrunner import CallRunner
from sidecar.context import Bound, CallContext, Means
from sidecar.errors import CallError, Code, Started
from sidecar.opencalls import OpenCall, OpenCalls
from sidecar.protocol import calls, limits
from sidecar.protocol import envelope as wire
from sidecar.protocol.attach import Attachment, Origin
from sidecar.protocol.ids import show
from sidecar.protocol.names import Scope
from sidecar.protocol.receipts import Receipt, Terms
from sidecar.protocol.streams import reset_for
from sidecar.receipts import Receipts, by_scope
from sidecar.streaming import Sender

log = logging.getLogger(__name__)


class Dispatcher:
    """All calls of one sidecar."""

    def __init__(
        self,
        means: Means,
        receipts: Receipts,
        *,
        incarnation: bytes,
        loose: Callable[[str, bytes], None],
        last_seq: Callable[[], int],
    ) -> None:
        self._means = means
        self._receipts = by_scope(receipts)
        self._incarnation = incarnation
        self._answers = Answers(self._receipts, means, loose=loose, last_seq=last_seq)
        self._runner = CallRunner(
            means, self._receipts, self._answers, incarnation=incarnation, last_seq=last_seq
        )
        self._open = OpenCalls()
        self._group: TaskGroup | None = None

    def install(self, commands: dict[str, Bound]) -> None:
        """The catalogue, with its handlers."""
        self._runner.install(commands)

    def recover(self) -> None:
        """Take up the calls that were started when an earlier life ended. `run` is running, and
        no call has come yet, so that whoever asks finds them; their resumers wait for the
        catalogue."""
        for receipt in self._receipts[Scope.FULL].left_open():
            open_call = self._revive(receipt)
            self._open[receipt.call_id] = open_call
            self._start(self._see, receipt.call_id, self._runner.resume, open_call, receipt)

    def refuse_new(self, error: CallError | None) -> None:
        """Answer new calls with `error` from now on; None: take them again. A refusal leaves no
        receipt, and calls that are known still get their answers."""
        self._runner.refusal = error

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; then every call is left as it is. Started when calls may come."""
        async with anyio.create_task_group() as self._group:
            task_status.started()
            await anyio.sleep_forever()

    @property
    def durable(self) -> bool:
        """Whether what became of a call is still known after a restart."""
        return self._receipts[Scope.FULL].durable

    @property
    def counts(self) -> Mapping[str, int]:
        return self._runner.counts

    @property
    def open_calls(self) -> int:
        return sum(1 for call in self._open.values() if call.result is None)

    async def idle(self, *, but_left: bool = False) -> None:
        """Return once every call has its answer, and who is there has received its streams. With
        `but_left` those are not waited for that the next sidecar goes on with."""
        while any(
            call.is_busy and not (but_left and call.may_be_left) for call in self._open.values()
        ):
            await self._runner.progress.wait()

    def cancel_all(self, *, but_left: bool = False) -> int:
        """Cancel every call that has no answer yet; its answer says so. How many those are."""
        found = [
            call
            for call in self._open.values()
            if call.result is None and not (but_left and call.may_be_left)
        ]
        for call in found:
            call.scope.cancel()
        return len(found)

    def hush(self) -> None:
        """Send nothing more of what calls stream that have no answer yet: who receives it asks
        the next sidecar for the rest."""
        for call in self._open.values():
            if call.result is None:
                for sender in call.context.senders.values():
                    sender.bind(None)

    # what comes in ------------------------------------------------------------------------

    def call(self, call: wire.Call, origin: Origin) -> None:
        """A call arrived, new or again."""
        digest = calls.call_digest(call)
        known = self._open.get(call.id)
        if known is not None:
            self._again(known, call.id, digest, origin)
            return
        try:
            self._open.check_call(call, origin.scope)
        except CallError as error:
            self._answers.refuse(call.id, error, origin)
            return
        open_call = self._open[call.id] = self._opened(call, digest, origin)
        self._start(self._see, call.id, self._runner.serve, open_call, call)

    def _opened(self, call: wire.Call, digest: bytes, origin: Origin) -> OpenCall:
        now = self._means.clock.now()
        context = CallContext(
            id=call.id,
            command=call.command,
            scope=origin.scope,
            means=self._means,
            deadline=None if call.deadline_ms is None else now + call.deadline_ms / 1000,
            traceparent=call.traceparent,
            credit=call.credit if origin.attachment is not None else 0,
            caller=origin.attachment,
            start_sender=self._start_sender,
            on_started=lambda note: self._runner.mark_started(open_call, note),
        )
        open_call = OpenCall(context, digest, origin)
        return open_call

    def _revive(self, receipt: Receipt) -> OpenCall:
        """The call of a receipt, with nobody there who asked for it."""
        terms = receipt.terms or Terms("", 0.0)
        context = CallContext(
            id=receipt.call_id,
            command=terms.command,
            scope=Scope.FULL,
            means=self._means,
            deadline=terms.deadline,
            traceparent=terms.traceparent,
            credit=terms.credit,
            caller=None,
            start_sender=self._start_sender,
            on_started=lambda note: self._runner.mark_started(open_call, note),
            is_resumed=True,
        )
        open_call = OpenCall(
            context,
            receipt.digest,
            Origin(Scope.FULL),
            started=Started.YES,
            is_new=True,
            accepted=True,
            lonely_since=self._means.clock.now(),
        )
        return open_call

    async def _see(self, id: bytes, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        try:
            await work(*arguments)
        finally:
            del self._open[id]
            self._runner.progress.ring()

    def cancel(self, id: bytes, origin: Origin) -> None:
        """Stop a call; one that never came is fenced. Its result says what happened."""
        known = self._open.get(id)
        if known is None:
            self._start(self._answers.fence, id, origin)
        elif not known.may_be_touched(origin):
            self._answers.refuse(id, calls.not_yours(id), origin)
        elif known.result is None:
            known.scope.cancel()

    def ask(self, ask: wire.Ask, origin: Origin) -> None:
        """Tell what became of a call, and move its result and streams to who asks."""
        known = self._open.get(ask.id)
        if known is None:
            self._start(self._recall, ask, origin)
            return
        if not known.may_be_touched(origin):
            self._answers.refuse(ask.id, calls.not_yours(ask.id), origin)
            return
        self._move(known, origin)
        known.context.asked = dict(ask.streams)
        for sender in known.context.senders.values():
            self._resume(known, sender, ask, origin)
        if known.result is not None:
            self._answers.send(known.result, origin)
            return
        if known.accepted:
            self._answers.send(known.state(), origin)
        else:  # nobody is told of a receipt that is not written yet
            known.was_asked = True

    async def _recall(self, ask: wire.Ask, origin: Origin) -> None:
        """A call that is not open. If it ended before a restart, and who asks misses bytes of its
        streams, these are sent again from where they came."""
        receipt = await self._receipts[origin.scope].get(ask.id)
        answer = None if receipt is None else receipt.answer
        origins = None if answer is None else calls.stored_origins(answer)
        may_revive = origin.scope is Scope.FULL and len(self._open) < limits.OPEN_CALLS
        if receipt is None or answer is None or origins is None or not (ask.streams and may_revive):
            await self._answers.recall(ask.id, origin)
            return
        if ask.id not in self._open:  # else somebody has asked meanwhile
            terms = Terms(origins.command, 0.0, credit=origins.credit)
            call = self._open[ask.id] = self._revive(replace(receipt, terms=terms))
            call.is_new, call.result = False, calls.stored_result(answer)
            self._start(self._see, ask.id, self._runner.send_again, call, origins.note)
        self.ask(ask, origin)

    def stream(self, envelope: Any, origin: Origin) -> None:
        """Stream data or control for a call of this attachment; for any other, `reset`."""
        known = self._open.get(envelope.id)
        if known is None or known.context.caller is not origin.attachment:
            if not isinstance(envelope, wire.Reset):
                self._answers.stray(envelope, origin)
            return
        if isinstance(envelope, wire.Credit | wire.Rewind):
            self._answer_sender(known, envelope, origin)
        elif isinstance(envelope, wire.Reset) and envelope.n in known.context.senders:
            known.context.senders[envelope.n].receive(envelope)
        elif isinstance(envelope, wire.Blocked) and envelope.n is None:
            return
        else:
            self._feed(known, envelope, origin)

    def _feed(self, call: OpenCall, envelope: Any, origin: Origin) -> None:
        if envelope.n not in call.context.receivers:
            try:
                self._open.check_stream(call)
            except CallError as error:
                if not isinstance(envelope, wire.Reset):
                    self._answers.reset(envelope, error, origin)
                return
        call.context.receiver(envelope.n).feed(envelope)

    def attachment_ended(self, attachment: Attachment) -> None:
        """Its calls go on; their streams wait for somebody to ask."""
        now = self._means.clock.now()
        for call in self._open.values():
            if call.context.caller is attachment:
                call.context.caller = None
                call.lonely_since = now
                for sender in call.context.senders.values():
                    sender.bind(None)
        self._runner.progress.ring()

    def next_deadline(self) -> float | None:
        """When `sweep` has something to give up."""
        lonely = [
            call.lonely_since
            for call in self._open.values()
            if call.lonely_since is not None and call.may_be_given_up
        ]
        return min(lonely) + limits.STREAM_WAIT if lonely else None

    def sweep(self, *, now: float) -> None:
        """Give up streams that nobody asked for in ten minutes, and calls that only look."""
        for id, call in list(self._open.items()):
            lonely = call.lonely_since
            is_due = lonely is not None and now >= lonely + limits.STREAM_WAIT
            if is_due and call.may_be_given_up:
                call.lonely_since = None
                call.scope.cancel()  # one that has a result has left this scope
                gone = CallError(Code.CANCELLED, "nobody asked for this stream in ten minutes")
                for sender in call.context.senders.values():
                    sender.stop(gone)
                log.info("call %s: streams given up, nobody asked for them", show(id))

    # answers ------------------------------------------------------------------------------

    def _again(self, known: OpenCall, id: bytes, digest: bytes, origin: Origin) -> None:
        if digest != known.digest:
            self._answers.refuse(id, calls.conflict(id), origin)
            return
        if origin.attachment is not known.context.caller:
            self._move(known, origin)
        if known.result is not None:
            self._answers.send(known.result, origin)
        elif known.accepted:
            self._answers.send(wire.Accepted(id), origin)

    def _move(self, call: OpenCall, origin: Origin) -> None:
        call.origin = origin
        call.context.caller = origin.attachment
        call.lonely_since = None
        if origin.attachment is None:
            call.lonely_since = self._means.clock.now()
        for sender in call.context.senders.values():
            sender.bind(None)

    def _resume(self, call: OpenCall, sender: Sender, ask: wire.Ask, origin: Origin) -> None:
        n = sender.stream.n
        at = ask.streams.get(n)
        if at is None or origin.attachment is None:
            return
        if sender.is_finished:
            gone = reset_for(ask.id, n, Code.ANSWER_GONE, "somebody else had all of this stream")
            self._answers.send(sender.last_word(at[0], at[1]) or gone, origin)
            return
        try:
            sender.resume(*at)
        except CallError as error:
            if not call.context.is_resumed:
                self._answers.send(reset_for(ask.id, n, error.code, error.message), origin)
                return
            sender.bind(origin.attachment.outbox)
            call.context.give_up(sender)
            return
        sender.bind(origin.attachment.outbox)

    def _answer_sender(
        self, call: OpenCall, envelope: wire.Credit | wire.Rewind, origin: Origin
    ) -> None:
        sender = call.context.senders.get(envelope.n)
        if sender is None:
            self._answers.stray(envelope, origin)
            return
        try:
            sender.receive(envelope)
        except CallError as error:
            self._answers.reset(envelope, error, origin)
            sender.stop(error)

    def _start_sender(self, sender: Sender) -> None:
        self._start(sender.run)

    def _start(self, function: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        assert self._group is not None, "run() starts first"
        self._group.start_soon(function, *arguments)
