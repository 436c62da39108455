"""Calls of `files.write` that are fed by hand, and what the sidecar has of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from stack import Stack, until

from sidecar.client import Run
from sidecar.client.pending import PendingCall
from sidecar.protocol.streams import CONTENT
from sidecar.streaming.pushing import PushSource


def received(stack: Stack, call: bytes | None = None) -> int:
    """How many bytes the open call (or this one of them) has taken from its stream."""
    found = [
        receiver.position
        for id, one in stack.sidecar.dispatcher._open.items()
        if call in (None, id) and (receiver := one.context.receivers.get(CONTENT)) is not None
    ]
    return sum(found)


class Feed:
    """A call, and what it is fed from."""

    def __init__(self, stack: Stack, call: PendingCall, source: PushSource) -> None:
        self._stack = stack
        self._pushed = 0
        self.call = call
        self.source = source

    async def push(self, content: bytes) -> None:
        """Returns when the sidecar has taken it."""
        await self.source.push(content)
        self._pushed += len(content)
        await until(lambda: received(self._stack, self.call.id) == self._pushed)

    async def end(self) -> dict[str, Any]:
        self.source.end()
        answer: dict[str, Any] = await self.call.wait()
        return answer


@asynccontextmanager
async def feeding(stack: Stack, run: Run, **arguments: Any) -> AsyncIterator[Feed]:
    """`files.write`; the call is cancelled at the end of the block unless it has ended."""
    async with run.open("files.write", arguments) as call:
        source = PushSource()
        run.send(call, CONTENT, source)
        yield Feed(stack, call, source)
