"""A call that this side has sent and not seen the end of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from sidecar.clock import Clock
from sidecar.errors import CallError, Code, Retry, Started
from sidecar.protocol import envelope as wire
from sidecar.protocol.effects import REPEATABLE
from sidecar.protocol.ids import show
from sidecar.protocol.limits import ACCEPT_TIME, STREAM_CREDIT
from sidecar.protocol.streams import ReceiveStream
from sidecar.streaming import Receiver, Sender

RESEND_FIRST = 0.25  # seconds without `accepted`, then twice as long each time
RESEND_MOST = 5.0
FENCE_AGAIN = 2.0  # seconds without an answer to the fence
FENCE_TIME = 10.0  # seconds for the fence to be confirmed
OVERDUE = 60.0  # seconds without an answer after the deadline that the caller set
RESULT_STREAM = 4  # carries a result that is too large to stand in its envelope


class PendingCall:
    """Sent again until `accepted`, then awaited; never run twice, because its id is a key.

    Without `call` it is one of an earlier life of this controller, which is only asked about.

    Who set no deadline and was told `accepted` waits without limit, for the sandbox may sleep.
    Everything else comes to an end here, too: see `handle_deadline`.
    """

    def __init__(
        self,
        id: bytes,
        call: wire.Call | None,
        *,
        credit: int,
        clock: Clock,
        send: Callable[[wire.Envelope], None],
    ) -> None:
        self.id = id
        self.call = call
        self.accepted = call is None
        self.sent_to: wire.Attached | None = None  # how the one introduced itself who may have it
        self.is_only_asked_about = False  # a sidecar took bytes of it along: nobody can run it now
        self.cancel_wanted = False
        self.result: wire.Result | None = None
        self.error: CallError | None = None
        self.receivers: dict[int, Receiver] = {}
        self.senders: dict[int, Sender] = {}
        self._credit = credit
        self._clock = clock
        self._send = send
        self._ended = anyio.Event()
        self._fence_until: float | None = None
        self._was_asked = False
        self._count_anew()

    def _count_anew(self) -> None:
        self._step = RESEND_FIRST
        self._give_up = self._clock.now() + ACCEPT_TIME
        self._overdue_at: float | None = None
        if self.call is None:
            self._overdue_at = self._give_up  # an ask is answered at once, whatever it is about
        elif self.call.deadline_ms is not None:
            self._overdue_at = self._give_up + self.call.deadline_ms / 1000 + OVERDUE
        self._due = self._clock.now() + self._step

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    def receiver(self, n: int, *, start: int = 0, has_begun: bool = False) -> Receiver:
        """The incoming stream `n`, which may not have begun yet; what lies before `start` is
        not wanted. One that an ask did not name waits there until it is asked for, unless it
        `has_begun`: then something of it has just come."""
        known = self.receivers.get(n)
        if known is None:
            stream = ReceiveStream(self.id, n, window=max(self._credit, 1), start=start)
            known = Receiver(stream, send=self._send, clock=self._clock)
            self.receivers[n] = known
            if self._was_asked and not has_begun:
                self._send(self.ask())
        return known

    def ask(self) -> wire.Ask:
        """What became of it? Sent after every new attachment."""
        self._was_asked = True
        return wire.Ask(
            self.id,
            {n: r.stream.resume() for n, r in self.receivers.items() if r.stream.ended is None},
        )

    def renew(self) -> None:
        """It is asked of another process than before, which goes on with what it sends.

        Bytes may be received before a call is accepted. One that lost them with the process
        before is not sent to the next, which would wait for them for ever.
        """
        if not self.accepted and self._has_given_away:
            self.is_only_asked_about = True
        for receiver in self.receivers.values():
            receiver.renew()

    # what the sidecar says ----------------------------------------------------------------

    def receive_result(self, result: wire.Result) -> None:
        if self.result is not None:
            if result.error is not None and self.error is None:  # its receipt is gone
                self.fail(wire.error_from(result.error))
            return
        self.accepted = True
        self.result = result
        if result.error is not None:
            self.error = self._explain(wire.error_from(result.error))
        for n, (offset, sha256) in result.streams.items():
            self.receiver(n).finish_at(offset, sha256)
        if self.error is not None:
            self._stop_streams(self.error)
        for n, receiver in self.receivers.items():
            if n not in result.streams:
                receiver.never_began()
        self._ended.set()

    def receive_state(self, state: wire.State) -> bool:
        """How far it is there. True if it has to be sent, for the first time or again."""
        if self.call is None:
            self._overdue_at = None
        match state.state:
            case "resend":
                return self._begin_anew()
            case "unknown_call":
                return self._is_unknown()
        self.accepted = True
        for n, sender in self.senders.items():
            at = state.received.get(n, 0)
            sender.resume(at, sender.stream.start, sender.stream.limit)
        return False

    def _is_unknown(self) -> bool:
        """To a call that was accepted, that is a loss of memory."""
        if self.call is None:
            code = Code.ANSWER_GONE if self.has_ended else Code.UNKNOWN_CALL
            self.fail(CallError(code, f"the sidecar knows no call {show(self.id)}"))
            return False
        if not self.accepted:
            return not self.is_only_asked_about or self._begin_anew()
        if self.call.command in REPEATABLE:
            return self._begin_anew()
        self.fail(_forgotten(self.id))
        return False

    def _begin_anew(self) -> bool:
        """The sidecar was restarted before it began, or running it twice does no harm."""
        if self.cancel_wanted or self._fence_until is not None:
            return False  # the answer to the cancel is on its way
        if self.call is None:
            self.fail(_never_began(self.id))
            return False
        half = self.receivers.pop(RESULT_STREAM, None)  # nobody has looked at it yet
        if half is not None:
            half.abandon(_broken_off(self.id))
        if any(receiver.stream.received for receiver in self.receivers.values()):
            self.fail(_broken_off(self.id))
            return False
        if self._has_given_away:
            self.fail(_given_away(self.id))
            return False
        for sender in self.senders.values():
            sender.resume(0, 0, min(sender.stream.limit, STREAM_CREDIT))
        self.accepted = False
        self._count_anew()
        return True

    @property
    def _has_given_away(self) -> bool:
        """A sidecar received bytes of it; a source keeps nothing that was received."""
        return any(x.stream.received or x.is_finished for x in self.senders.values())

    def fail(self, error: CallError) -> None:
        """It ends here, whatever it does there. A result that has come stands, but what is
        missing of its streams will not come."""
        if not self._ended.is_set():
            self.error = error
            self._ended.set()
        for sender in self.senders.values():
            sender.stop(error)
        for receiver in self.receivers.values():
            receiver.abandon(error)

    # time ---------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        if self.has_ended:
            return None
        return self._overdue_at if self.accepted else self._due

    def handle_deadline(self, *, now: float) -> None:
        """Send it again, fence it after a minute without `accepted`, or give up what is long
        overdue."""
        if self.has_ended:
            return
        if self.accepted and self._overdue_at is not None and now >= self._overdue_at:
            self.fail(_overdue(self.id))
        if self.accepted or now < self._due:
            return
        if self._fence_until is not None and now >= self._fence_until:
            was_sent = self.sent_to is not None
            self.fail(_not_accepted(self.id, Started.UNKNOWN if was_sent else Started.NO))
        elif now >= self._give_up:
            if self._fence_until is None:
                self._fence_until = now + FENCE_TIME
            self._send(wire.Cancel(self.id))
        elif self.is_only_asked_about:
            self._send(self.ask())
        elif self.call is not None:
            self._send(self.call)
        self._step = min(self._step * 2, RESEND_MOST)
        self._due = now + (FENCE_AGAIN if self._fence_until is not None else self._step)

    # for whoever waits --------------------------------------------------------------------

    async def wait(self) -> Any:
        """The value of the result; raises its error. Cancelling cancels nothing there."""
        await self._ended.wait()
        if self.error is not None:
            raise self.error
        assert self.result is not None
        if self.result.value is not None:
            return wire.loads(self.result.value)
        chunks = [chunk async for chunk in self.receiver(RESULT_STREAM)]
        return wire.loads(b"".join(chunks))

    def _explain(self, error: CallError) -> CallError:
        if self._fence_until is not None and error.code is Code.CANCELLED:
            return _not_accepted(self.id, error.started)
        return error

    def _stop_streams(self, error: CallError) -> None:
        """Incoming streams go on where the sidecar says so: a timeout leaves partial output."""
        for sender in self.senders.values():
            sender.stop(error)
        announced = self.result.streams if self.result is not None else {}
        for n, receiver in self.receivers.items():
            if n not in announced:
                receiver.abandon(error)


def _not_accepted(id: bytes, started: Started) -> CallError:
    return CallError(
        Code.NOT_ACCEPTED,
        f"call {show(id)} was not accepted within {ACCEPT_TIME:g} s",
        started=started,
        retry=Retry.NEW_ID if started is Started.NO else Retry.NEVER,
    )


def _overdue(id: bytes) -> CallError:
    return CallError(
        Code.TIMEOUT,
        f"no sidecar answers for call {show(id)}: whether it ended is unknown; ask for it by its"
        " id",
        started=Started.UNKNOWN,
        retry=Retry.SAME_ID,
        which="answer",
    )


def _never_began(id: bytes) -> CallError:
    return CallError(
        Code.NOT_ACCEPTED,
        f"call {show(id)} had not begun when the sidecar was restarted: it runs only if somebody"
        " who has its arguments sends it again",
        retry=Retry.NEW_ID,
    )


def _given_away(id: bytes) -> CallError:
    return CallError(
        Code.NOT_ACCEPTED,
        f"call {show(id)} had not begun when the sidecar was restarted, and bytes that were sent"
        " for it went with that: send them with a new call",
        retry=Retry.NEW_ID,
    )


def _broken_off(id: bytes) -> CallError:
    return CallError(
        Code.OUTCOME_UNKNOWN,
        f"call {show(id)} answered with a stream when the sidecar was restarted: what is missing"
        " of it will not come",
        started=Started.UNKNOWN,
        retry=Retry.NEW_ID,
    )


def _forgotten(id: bytes) -> CallError:
    return CallError(
        Code.OUTCOME_UNKNOWN,
        f"call {show(id)}: the sidecar was restarted and knows nothing of it",
        started=Started.UNKNOWN,
    )


def left_behind(id: bytes) -> CallError:
    return CallError(
        Code.OUTCOME_UNKNOWN,
        f"call {show(id)} went to a sidecar that another one has replaced before it was accepted:"
        " whether it ran is unknown",
        started=Started.UNKNOWN,
    )
