"""Follows the events of the run from the first one to the last, through every cut."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from sidecar.client import Event, Gap, Run

SKIPPED = 3  # the event that is thrown away to show that its absence is noticed


class Follower:
    """Collects what one reader is sent."""

    def __init__(self, run: Run, *, skip_one: bool) -> None:
        self.items: list[Event | Gap] = []
        self._run = run
        self._skip_one = skip_one
        self._grown = anyio.Event()

    @classmethod
    @asynccontextmanager
    async def follow(cls, run: Run, *, skip_one: bool) -> AsyncIterator[Follower]:
        """Follow for the length of the block; with `skip_one` lose an event on purpose."""
        this = cls(run, skip_one=skip_one)
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(this._collect)
            try:
                yield this
            except Exception as error:
                failure = error  # raised below, so that the task group does not wrap it
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def until(self, seq: int) -> None:
        """Return when event `seq`, or a later one, was there."""
        while not self.items or self.items[-1].cursor.seq < seq:
            self._grown = anyio.Event()
            await self._grown.wait()

    async def _collect(self) -> None:
        async with self._run.events() as events:
            async for item in events:
                if self._skip_one and item.cursor.seq == SKIPPED:
                    continue
                self.items.append(item)
                self._grown.set()
