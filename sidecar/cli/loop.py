"""An event loop for one verb, which a signal ends in order."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import anyio


def run(verb: Callable[[], Awaitable[int | None]]) -> int:
    """Run `verb` to its end; its exit status. SIGINT, SIGTERM and SIGHUP cancel it, so that it
    cleans up behind itself, and the status says which it was (128 + its number)."""
    return anyio.run(_until_signalled, verb)


async def _until_signalled(verb: Callable[[], Awaitable[int | None]]) -> int:
    status: int | None = None
    failure: Exception | None = None

    async def watch() -> None:
        nonlocal status
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async for number in signals:
                status = 128 + number
                group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        try:
            status = await verb()
        except Exception as error:
            failure = error  # raised below, so that the task group does not wrap it
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return status or 0
