"""One call from its receipt to its one answer.

The order is what makes a repeated call harmless: `accepted` is sent when the receipt is
written, `started` is written before the handler may have effects, and the answer is stored
before it is sent. The handler need not wait for the receipt: only effects have to, and
`started`, which is written behind it, waits for both.

A call that an earlier life of the sidecar had started is taken up by the resumer of its
command, or its answer is `outcome_unknown`. Either way it has one answer, stored as any other.
Cancelled together with all others, for the process ends, a call has none yet: its receipt stays
as it is, and the next life has the last word.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import anyio

from sidecar import policy
from sidecar.answers import Answers
from sidecar.bell import Bell
from sidecar.context import Bound, Means, Resumer
from sidecar.errors import CallError, Code, Started
from sidecar.opencalls import OpenCall
from sidecar.protocol import calls, limits
from sidecar.protocol import envelope as wire
from sidecar.protocol.attach import Origin
from sidecar.protocol.effects import Effect, answers_with_content
from sidecar.protocol.ids import show
from sidecar.protocol.names import Scope
from sidecar.protocol.receipts import (
    Conflict,
    Expired,
    Fenced,
    New,
    Receipt,
    Repeat,
    State,
    Terms,
)
from sidecar.receipts import Receipts
from sidecar.streaming import BytesSource

log = logging.getLogger(__name__)

INLINE_BYTES = limits.ANSWER_BYTES - 1024  # leaves room for the envelope around the value
RESULT_STREAM = 4  # carries the CBOR of a result that is too large to stand inline


class CallRunner:
    """Runs open calls, each in a task of whoever calls `serve` or `resume`."""

    def __init__(
        self,
        means: Means,
        receipts: Mapping[Scope, Receipts],
        answers: Answers,
        *,
        incarnation: bytes,
        last_seq: Callable[[], int],
    ) -> None:
        self.refusal: CallError | None = None  # what new calls are answered, if none is taken
        self.progress = Bell()  # a call has its answer, or has come so far that it may be left
        self.counts = {"accepted": 0, "ended": 0, "failed": 0}
        self._means = means
        self._receipts = receipts
        self._answers = answers
        self._incarnation = incarnation
        self._last_seq = last_seq
        self._commands: dict[str, Bound] | None = None
        self._installed = anyio.Event()

    def install(self, commands: dict[str, Bound]) -> None:
        """The catalogue, with its handlers."""
        self._commands = commands
        self._installed.set()

    async def serve(self, call: OpenCall, request: wire.Call) -> None:
        """A call that came in, until its answer is sent and its streams are received."""
        await self._see_through(call, partial(self._take, call, request))

    async def resume(self, call: OpenCall, receipt: Receipt) -> None:
        """A call that was started when the sidecar ended. One that is cancelled before there is a
        catalogue is cancelled in its resumer all the same, which knows what to clean up."""
        await self._installed.wait()
        await self._see_through(call, partial(self._take_up, call, receipt))

    async def send_again(self, call: OpenCall, note: bytes) -> None:
        """What its caller misses of the streams of a call that ended before a restart. The
        resumer makes them anew; what it answers has been said."""
        context = call.context
        await self._installed.wait()
        assert self._commands is not None
        bound = self._commands.get(context.command)
        assert call.result is not None
        made = call.result
        with call.scope:
            if bound is not None and bound.resume is not None:
                made = await self._answer(call, partial(self._revive, call, bound.resume, note))
        for reset in calls.gone_streams(call.result, made):
            if reset.n not in context.senders:
                self._answers.send(reset, call.origin)
        for sender in list(context.senders.values()):
            await sender.finished()

    async def _revive(self, call: OpenCall, resume: Resumer, note: bytes) -> wire.Result:
        await resume(call.context, note)
        assert call.result is not None
        return call.result

    async def mark_started(self, call: OpenCall, note: bytes | None) -> None:
        """On record before anything of the call can have effects. Cancelled, it has none."""
        await self._receipts[call.context.scope].started(call.context.id, note)
        call.started = Started.YES
        call.note = call.note if note is None else note
        self.progress.ring()

    # from the receipt to the answer -------------------------------------------------------

    async def _see_through(
        self, call: OpenCall, work: Callable[[], Awaitable[wire.Result]]
    ) -> None:
        with call.scope:
            result = await self._answer(call, work)
        if call.scope.cancelled_caught:
            error = calls.cancelled(call.context.id, started=call.started)
            result = calls.failure(call.context.id, error)
        await self._end(call, result)
        await self._receipts[call.context.scope].tidy()
        for sender in list(call.context.senders.values()):
            await sender.finished()

    async def _answer(
        self, call: OpenCall, work: Callable[[], Awaitable[wire.Result]]
    ) -> wire.Result:
        id = call.context.id
        try:
            return await work()
        except CallError as error:
            return calls.failure(id, error, seq=self._last_seq())
        except ExceptionGroup as group:
            found = group.subgroup(CallError)
            if found is None:
                return self._defect(call)
            return calls.failure(id, calls.first_of(found), seq=self._last_seq())
        except Exception:
            return self._defect(call)

    def _defect(self, call: OpenCall) -> wire.Result:
        """Ours, not the caller's: to be called while the exception is handled."""
        log.exception("call %s: %s failed inside", show(call.context.id), call.context.command)
        defect = calls.defect(started=call.started)
        return calls.failure(call.context.id, defect, seq=self._last_seq())

    async def _take(self, call: OpenCall, request: wire.Call) -> wire.Result:
        settled = await self._begin(call)
        if settled is not None:
            return settled
        bound = await self._find(request.command, call.origin)
        call.only_reads = bound.effect is Effect.READ
        call.has_resumer = bound.resume is not None
        arguments = bound.parse(request.arguments)
        call.admitted = True
        self._accept(call)
        value = await self._run(call, lambda: bound.handler(call.context, arguments))
        return self._result(call, bound, value)

    async def _take_up(self, call: OpenCall, receipt: Receipt) -> wire.Result:
        assert self._commands is not None
        bound = self._commands.get(call.context.command)
        resume = None if bound is None else bound.resume
        note = call.note = receipt.note
        if resume is None or note is None:
            raise calls.outcome_unknown(call.context.id)
        call.has_resumer = True
        self.progress.ring()
        value = await self._run(call, lambda: resume(call.context, note))
        assert bound is not None
        return self._result(call, bound, value)

    async def _begin(self, call: OpenCall) -> wire.Result | None:
        """The receipt. None if the call is new and to be run."""
        context = call.context
        id, receipts = context.id, self._receipts[context.scope]
        if context.scope is Scope.WATCH and await self._receipts[Scope.FULL].get(id) is not None:
            raise calls.not_yours(id)
        if (self.refusal or receipts.refusal) and _would_run(await receipts.get(id)):
            await self._refuse(call, receipts)
        outcome = await receipts.begin(
            id,
            call.digest,
            now_wall=self._means.clock.wall(),
            terms=self._terms(call),
            on_written=partial(self._on_written, call),
        )
        match outcome:
            case New():
                call.is_new = True
                self.counts["accepted"] += 1
                return None
            case Repeat(state=State.ENDED, answer=answer):
                if answer is None:
                    raise calls.answer_gone(id)
                return calls.stored_result(answer)
            case Repeat():
                raise calls.outcome_unknown(id)
            case Conflict():
                raise calls.conflict(id)
            case Expired():
                raise calls.expired(id)
            case Fenced():
                raise calls.fenced(id)

    async def _refuse(self, call: OpenCall, receipts: Receipts) -> None:
        """Before there is a receipt, so that the same id may come again."""
        if self.refusal is not None:
            raise self.refusal
        bound = await self._find(call.context.command, call.origin)
        if receipts.refusal is not None and bound.effect is not Effect.READ:
            raise receipts.refusal

    def _terms(self, call: OpenCall) -> Terms:
        context, wall = call.context, self._means.clock.wall()
        deadline, deadline_wall = context.deadline, None
        if deadline is not None:
            deadline_wall = wall + deadline - self._means.clock.now()
        return Terms(
            context.command, wall, deadline, deadline_wall, context.credit, context.traceparent
        )

    async def _find(self, command: str, origin: Origin) -> Bound:
        if self._commands is None:  # an event that is set costs a turn of the loop all the same
            await self._installed.wait()
        assert self._commands is not None
        bound = self._commands.get(command)
        if bound is None:
            names = ", ".join(sorted(self._commands))
            raise CallError(Code.UNKNOWN_COMMAND, f"no command {command!r}; there are {names}")
        attached = origin.attachment is not None
        is_addressed = attached or origin.incarnation == self._incarnation
        request = policy.Request(bound.name, bound.effect, origin.scope, is_addressed)
        self._means.policy.decide(request).enforce()
        return bound

    def _on_written(self, call: OpenCall) -> None:
        call.is_written = True
        self._accept(call)

    def _accept(self, call: OpenCall) -> None:
        """Once it may run and that is on record, whichever comes last."""
        if call.admitted and call.is_written and call.result is None and not call.accepted:
            call.accepted = True
            self._answers.send(wire.Accepted(call.context.id), call.origin)
            if call.was_asked:
                self._answers.send(call.state(), call.origin)

    async def _run(
        self, call: OpenCall, work: Callable[[], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        deadline = call.context.deadline
        left = float("inf") if deadline is None else deadline - self._means.clock.now()
        with anyio.move_on_after(left) as scope:
            call.context.ends.append(scope)
            return await work()
        assert scope.cancelled_caught
        raise calls.too_late(call.context.id, started=call.started)

    def _result(self, call: OpenCall, bound: Bound, value: dict[str, Any]) -> wire.Result:
        """Raises `denied` for content that may not leave."""
        encoded = wire.dumps(value)
        if answers_with_content(bound.name, bound.effect):
            call.context.egress.take(len(encoded))
        if len(encoded) <= INLINE_BYTES:
            return wire.Result(call.context.id, encoded, seq=self._last_seq())
        call.context.send(RESULT_STREAM, BytesSource(encoded), is_counted=True)
        return wire.Result(call.context.id, seq=self._last_seq())

    async def _end(self, call: OpenCall, result: wire.Result) -> None:
        """Store the answer, then send it. Cancelling loses it to the caller only: it goes to the
        receipt at once, and what is waited for is the disk."""
        if not call.is_new:
            call.result = result
            self._answers.stored(result, call.origin)
            self.progress.ring()
            return
        result = replace(result, streams=call.stream_ends())
        stored = None
        if RESULT_STREAM not in call.context.senders:
            stored = calls.storable(result, _origins(call))
        wall = self._means.clock.wall()
        await self._receipts[call.context.scope].end(call.context.id, stored, now_wall=wall)
        call.result = result
        self.counts["ended" if result.error is None else "failed"] += 1
        self._answers.send(result, call.origin)
        self.progress.ring()


def _origins(call: OpenCall) -> calls.Origins | None:
    context = call.context
    if call.note is None:
        return None
    return calls.Origins(context.command, context.credit, call.note)


def _would_run(receipt: Receipt | None) -> bool:
    """Whether a call with this receipt, when it comes, is run."""
    return receipt is None or receipt.state is State.RESEND
