"""A bell: wakes everybody who waits now, and nobody who comes later.

The usual loop asks, waits, and asks again, without a suspension between asking and waiting:

    while not there_is_something():
        await bell.wait()

Ringing costs nothing while nobody waits, so it may be rung for every event and chunk.
"""

from __future__ import annotations

import anyio


class Bell:
    """For one event loop; a thread rings it through `loop.call_soon_threadsafe`."""

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def ring(self) -> None:
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Return at the next ring. Cancelling it loses nothing."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()
