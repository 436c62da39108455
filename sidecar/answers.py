"""What goes back to a caller outside of a running call: refusals, and what receipts remember."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sidecar.context import Means
from sidecar.errors import CallError, Code
from sidecar.protocol import calls
from sidecar.protocol import envelope as wire
from sidecar.protocol.attach import Origin
from sidecar.protocol.ids import show
from sidecar.protocol.names import Scope
from sidecar.protocol.receipts import FenceOutcome, State
from sidecar.protocol.streams import reset_for
from sidecar.receipts import Receipts


class Answers:
    """Sends to origins; asks the receipts."""

    def __init__(
        self,
        receipts: Mapping[Scope, Receipts],
        means: Means,
        *,
        loose: Callable[[str, bytes], None],
        last_seq: Callable[[], int],
    ) -> None:
        self._receipts = receipts
        self._means = means
        self._loose = loose
        self._last_seq = last_seq
        self.refused = 0

    def send(self, envelope: wire.Envelope, origin: Origin) -> None:
        """To the attachment, or loose to the reply group, where `accepted` means nothing."""
        if origin.attachment is not None:
            origin.attachment.outbox.control(envelope)
        elif origin.reply_group is not None and not isinstance(envelope, wire.Accepted):
            self._loose(origin.reply_group, wire.encode(envelope))
        if isinstance(envelope, wire.Accepted):
            self._means.wake_soon()  # the result of a short call may travel in the same message
        else:
            self._means.wake()

    def refuse(self, id: bytes, error: CallError, origin: Origin) -> None:
        """The one answer of a call that is not run."""
        self.refused += 1
        self.send(calls.failure(id, error, seq=self._last_seq()), origin)

    def stored(self, result: wire.Result, origin: Origin) -> None:
        """A result that was kept, and that its streams were not."""
        for envelope in (result, *calls.gone_streams(result)):
            self.send(envelope, origin)

    def stray(self, envelope: Any, origin: Origin) -> None:
        """Something for a stream that is not here. Credit for one that has ended needs no
        answer."""
        if isinstance(envelope, wire.Credit) or getattr(envelope, "n", None) is None:
            return
        message = f"call {show(envelope.id)} has no stream {envelope.n} open for this attachment"
        self.reset(envelope, CallError(Code.UNKNOWN_CALL, message), origin)

    def reset(self, envelope: Any, error: CallError, origin: Origin) -> None:
        """The stream that `envelope` is about ends here, for `error`."""
        self.send(reset_for(envelope.id, envelope.n, error.code, error.message), origin)

    async def fence(self, id: bytes, origin: Origin) -> None:
        """A cancel for a call that is not open."""
        try:
            outcome = await self._receipts[origin.scope].fence(
                id, now_wall=self._means.clock.wall()
            )
        except CallError as error:
            self.refuse(id, error, origin)
            return
        match outcome:
            case FenceOutcome.FENCED:
                self.refuse(id, calls.fenced(id), origin)
                await self._receipts[origin.scope].tidy()
            case FenceOutcome.EXPIRED:
                self.refuse(id, calls.expired(id), origin)
            case _:
                await self.recall(id, origin)

    async def recall(self, id: bytes, origin: Origin) -> None:
        """What the receipts remember of a call that is not open."""
        receipt = await self._receipts[origin.scope].get(id)
        if receipt is None:
            self.send(wire.State(id, "unknown_call"), origin)
        elif receipt.state is State.FENCED:
            self.refuse(id, calls.fenced(id), origin)
        elif receipt.state is State.RESEND:
            self.send(wire.State(id, "resend"), origin)
        elif receipt.state is not State.ENDED:
            self.refuse(id, calls.outcome_unknown(id), origin)
        elif receipt.answer is None:
            self.refuse(id, calls.answer_gone(id), origin)
        else:
            self.stored(calls.stored_result(receipt.answer), origin)
