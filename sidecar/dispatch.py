"""One task per call: receipt, `accepted`, the handler, deadline and cancel, the one answer.

The order is what makes a repeated call harmless: the receipt is written before `accepted` is
sent, `started` is written before the handler may have effects, and the answer is stored before
it is sent. Whoever asked last gets the result; the streams of a call move with it.

Dispatch knows no command. `runtime` installs the catalogue when the sidecar has said hello,
and calls that came earlier wait for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from sidecar import policy
from sidecar.answers import Answers
from sidecar.context import CallContext, Handler, Means
from sidecar.errors import CallError, Code, Started
from sidecar.opencalls import OpenCall, OpenCalls
from sidecar.protocol import calls, limits
from sidecar.protocol import envelope as wire
from sidecar.protocol.attach import Attachment, Origin
from sidecar.protocol.effects import Effect
from sidecar.protocol.ids import show
from sidecar.protocol.names import Scope
from sidecar.protocol.receipts import Conflict, Expired, Fenced, New, Repeat, State
from sidecar.protocol.streams import reset_for
from sidecar.receipts import Receipts, by_scope
from sidecar.streaming import BytesSource, Sender

log = logging.getLogger(__name__)

INLINE_BYTES = limits.ANSWER_BYTES - 1024  # leaves room for the envelope around the value
RESULT_STREAM = 4  # carries the CBOR of a result that is too large to stand inline


@dataclass(frozen=True, slots=True)
class Bound:
    """A command of the catalogue with what dispatch needs to know of it."""

    name: str
    effect: Effect
    parse: Callable[[bytes], Any]
    handler: Handler


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
        self._last_seq = last_seq
        self._open = OpenCalls()
        self._commands: dict[str, Bound] | None = None
        self._installed = anyio.Event()
        self._group: TaskGroup | None = None
        self.counts = {"accepted": 0, "ended": 0, "failed": 0}

    def install(self, commands: dict[str, Bound]) -> None:
        """The catalogue, with its handlers."""
        self._commands = commands
        self._installed.set()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; cancelling ends every call. Started when calls may come."""
        async with anyio.create_task_group() as self._group:
            task_status.started()
            await anyio.sleep_forever()

    @property
    def open_calls(self) -> int:
        return sum(1 for call in self._open.values() if call.result is None)

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
            on_started=lambda: self._mark_started(open_call),
        )
        open_call = self._open[call.id] = OpenCall(context, digest, origin)
        self._start(self._serve, open_call, call)

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
            self._start(self._answers.recall, ask.id, origin)
            return
        if not known.may_be_touched(origin):
            self._answers.refuse(ask.id, calls.not_yours(ask.id), origin)
            return
        self._move(known, origin)
        for n, sender in known.context.senders.items():
            self._resume(sender, n, ask, origin)
        if known.result is not None:
            self._answers.send(known.result, origin)
            return
        received = {n: r.stream.received for n, r in known.context.receivers.items()}
        state = "started" if known.started is not Started.NO else "accepted"
        self._answers.send(wire.State(ask.id, state, received), origin)

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

    # one call -----------------------------------------------------------------------------

    async def _serve(self, call: OpenCall, request: wire.Call) -> None:
        try:
            with call.scope:
                result = await self._answer(call, request)
            if call.scope.cancelled_caught:
                error = calls.cancelled(request.id, started=call.started)
                result = calls.failure(request.id, error)
            await self._end(call, result)
            for sender in list(call.context.senders.values()):
                await sender.finished()
        finally:
            del self._open[request.id]

    async def _answer(self, call: OpenCall, request: wire.Call) -> wire.Result:
        try:
            settled = await self._begin(call, request)
            if settled is not None:
                return settled
            bound = await self._find(request, call.origin)
            call.only_reads = bound.effect is Effect.READ
            arguments = bound.parse(request.arguments)
            self._accept(call)
            value = await self._run(call, bound, arguments)
            return self._result(call, value)
        except CallError as error:
            return calls.failure(request.id, error, seq=self._last_seq())
        except ExceptionGroup as group:
            found = group.subgroup(CallError)
            if found is None:
                return self._defect(call, request)
            return calls.failure(request.id, calls.first_of(found), seq=self._last_seq())
        except Exception:
            return self._defect(call, request)

    def _defect(self, call: OpenCall, request: wire.Call) -> wire.Result:
        """Ours, not the caller's: to be called while the exception is handled."""
        log.exception("call %s: %s failed inside", show(request.id), request.command)
        defect = calls.defect(started=call.started)
        return calls.failure(request.id, defect, seq=self._last_seq())

    async def _begin(self, call: OpenCall, request: wire.Call) -> wire.Result | None:
        """The receipt. None if the call is new and to be run."""
        scope = call.context.scope
        if scope is Scope.WATCH and await self._receipts[Scope.FULL].get(request.id) is not None:
            raise calls.not_yours(request.id)
        outcome = await self._receipts[scope].begin(
            request.id, call.digest, now_wall=self._means.clock.wall()
        )
        match outcome:
            case New():
                call.is_new = True
                self.counts["accepted"] += 1
                return None
            case Repeat(state=State.ENDED, answer=answer):
                if answer is None:
                    raise calls.answer_gone(request.id)
                return calls.stored_result(answer)
            case Repeat():
                raise calls.outcome_unknown(request.id)
            case Conflict():
                raise calls.conflict(request.id)
            case Expired():
                raise calls.expired(request.id)
            case Fenced():
                raise calls.fenced(request.id)

    async def _find(self, call: wire.Call, origin: Origin) -> Bound:
        await self._installed.wait()
        assert self._commands is not None
        bound = self._commands.get(call.command)
        if bound is None:
            names = ", ".join(sorted(self._commands))
            raise CallError(Code.UNKNOWN_COMMAND, f"no command {call.command!r}; there are {names}")
        attached = origin.attachment is not None
        is_addressed = attached or origin.incarnation == self._incarnation
        request = policy.Request(bound.name, bound.effect, origin.scope, is_addressed)
        self._means.policy.decide(request).enforce()
        return bound

    def _accept(self, call: OpenCall) -> None:
        call.accepted = True
        self._answers.send(wire.Accepted(call.context.id), call.origin)

    async def _run(self, call: OpenCall, bound: Bound, arguments: Any) -> dict[str, Any]:
        deadline = call.context.deadline
        left = float("inf") if deadline is None else deadline - self._means.clock.now()
        with anyio.move_on_after(left) as scope:
            return await bound.handler(call.context, arguments)
        assert scope.cancelled_caught
        raise calls.too_late(call.context.id, started=call.started)

    def _result(self, call: OpenCall, value: dict[str, Any]) -> wire.Result:
        encoded = wire.dumps(value)
        if len(encoded) <= INLINE_BYTES:
            return wire.Result(call.context.id, encoded, seq=self._last_seq())
        call.context.send(RESULT_STREAM, BytesSource(encoded))
        return wire.Result(call.context.id, seq=self._last_seq())

    async def _end(self, call: OpenCall, result: wire.Result) -> None:
        """Store the answer, then send it. Shielded: an observed outcome is not lost."""
        if not call.is_new:
            call.result = result
            self._answers.stored(result, call.origin)
            return
        result = replace(result, streams=call.stream_ends())
        stored = None if RESULT_STREAM in call.context.senders else calls.storable(result)
        with anyio.CancelScope(shield=True):
            wall = self._means.clock.wall()
            await self._receipts[call.context.scope].end(call.context.id, stored, now_wall=wall)
        call.result = result
        self.counts["ended" if result.error is None else "failed"] += 1
        self._answers.send(result, call.origin)

    async def _mark_started(self, call: OpenCall) -> None:
        with anyio.CancelScope(shield=True):
            await self._receipts[call.context.scope].started(call.context.id)
        call.started = Started.YES

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

    def _resume(self, sender: Sender, n: int, ask: wire.Ask, origin: Origin) -> None:
        at = ask.streams.get(n)
        if at is None or origin.attachment is None:
            return
        try:
            sender.resume(*at)
        except CallError as error:
            self._answers.send(reset_for(ask.id, n, error.code, error.message), origin)
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
