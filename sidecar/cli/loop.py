"""An event loop for one verb, which a signal ends in order."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(verb: Callable[[], Awaitable[int | None]]) -> int:
    """Run `verb` to its end; its exit status. SIGINT, SIGTERM and SIGHUP cancel it, so that it
    cleans up behind itself, and the status says which it was (128 + its number)."""
    return anyio.run(_until_signalled, verb)


async def _until_signalled(verb: Callable[[], Awaitable[int | None]]) -> int:
    status: int | None = None

    async def watch(block: anyio.CancelScope) -> None:
        nonlocal status
        with anyio.open_signal_receiver(*SIGNALS) as signals:
            async for number in signals:
                status = 128 + number
                block.cancel()

    async with beside(watch):
        status = await verb()
    return status or 0


@asynccontextmanager
async def beside(
    task: Callable[[anyio.CancelScope], Awaitable[None]],
) -> AsyncIterator[anyio.CancelScope]:
    """Run `task` beside the block, whose scope it gets, and cancel it at the block's end. What
    either raises ends both, and is raised as it is, not wrapped in a group."""
    failure: Exception | None = None

    async def run_task() -> None:
        nonlocal failure
        try:
            await task(group.cancel_scope)
        except Exception as error:
            failure = failure or error
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(run_task)
        try:
            yield group.cancel_scope
        except Exception as error:
            failure = failure or error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
