"""A dispatcher with one attached controller, whose outbox is read by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from stack import until

from sidecar.clock import ManualClock
from sidecar.context import Bound, CallContext, Handler, Means, Resumer
from sidecar.dispatch import Dispatcher
from sidecar.egress import Egress
from sidecar.policy import Policy
from sidecar.protocol import envelope as wire
from sidecar.protocol.attach import Attachments, Facts, Origin
from sidecar.protocol.effects import Effect
from sidecar.protocol.ids import uuid7
from sidecar.protocol.names import Scope, Subject
from sidecar.receipts import MemoryReceipts, Receipts

ID = uuid7(millis=1_800_000_000_000, random=bytes(10))
OTHER = uuid7(millis=1_800_000_000_000, random=b"\xff" * 10)


class Bench:
    """A dispatcher with one attached controller, whose outbox is read by hand."""

    def __init__(
        self, receipts: Receipts | None = None, *, clock: ManualClock | None = None
    ) -> None:
        self.clock = clock or ManualClock()
        self.loose: list[tuple[str, list[Any]]] = []
        self.wakes: list[str] = []
        policy = Policy()
        means = Means(
            hands=None,  # type: ignore[arg-type]  # no handler here acts
            clock=self.clock,
            policy=policy,
            egress=Egress(policy),
            emit=lambda name, data, *, call=None: 1,
            wake=lambda: self.wakes.append("now"),
            wake_soon=lambda: self.wakes.append("soon"),
            processes=None,  # type: ignore[arg-type]  # nor starts any program
            facts=dict,
            end_run=None,  # type: ignore[arg-type]  # nor ends anything
            forget_reader=lambda name: None,
            uploads=None,  # type: ignore[arg-type]  # nor writes any file
        )
        self.dispatcher = Dispatcher(
            means,
            receipts or MemoryReceipts(),
            incarnation=b"i" * 16,
            loose=lambda group, data: self.loose.append((group, wire.decode(data))),
            last_seq=lambda: 7,
        )
        self.attachments = Attachments(Subject("demo"))
        self.origin = self.attach(b"1")

    def attach(self, nonce: bytes) -> Origin:
        request = wire.Attach("me", nonce * 16, [1], [1 << 30, 1 << 20])
        facts = Facts(bytes(16), bytes(16), 1, 1, 0, {})
        attachment = self.attachments.attach(
            request, Scope.FULL, facts, new_id=nonce * 16, now=self.clock.now()
        )
        return Origin(Scope.FULL, attachment)

    def install(
        self, handler: Handler, *, effect: Effect = Effect.EXEC, resume: Resumer | None = None
    ) -> None:
        bound = Bound("test", effect, wire.loads, handler, resume)
        self.dispatcher.install({"test": bound})

    def call(self, arguments: Any = None, *, id: bytes = ID, **options: Any) -> None:
        origin = options.pop("origin", self.origin)
        call = wire.Call(id, "test", wire.dumps(arguments), credit=1 << 20, **options)
        self.dispatcher.call(call, origin)

    def said(self, origin: Origin | None = None) -> list[Any]:
        """What the attachment was sent since the last time, without heads."""
        attachment = (origin or self.origin).attachment
        assert attachment is not None
        envelopes: list[Any] = []
        while message := attachment.outbox.next_message(now=self.clock.now(), urgent_only=False):
            envelopes += wire.decode(message.data)[1:]
        return envelopes

    async def expect(self, kind: type[Any], origin: Origin | None = None) -> Any:
        """The next envelope of this kind; those before it are passed over."""
        found: list[Any] = []

        def look() -> bool:
            found.extend(x for x in self.said(origin) if isinstance(x, kind))
            return bool(found)

        await until(look)
        return found[0]


@asynccontextmanager
async def running(dispatcher: Dispatcher) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        group.start_soon(dispatcher.run)
        await anyio.wait_all_tasks_blocked()
        yield
        group.cancel_scope.cancel()


async def echo(ctx: CallContext, arguments: Any) -> dict[str, Any]:
    return {"echo": arguments}


def raising(error: BaseException) -> Handler:
    async def handler(ctx: CallContext, arguments: Any) -> dict[str, Any]:
        await ctx.started()
        raise error

    return handler
