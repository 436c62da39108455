"""The sidecar of the demo: a process of its own, as it would be in a sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import Process

from sidecar.cli import childprocess
from sidecar.errors import SettingsError

DRAIN = 2.0  # seconds that it may take to send what is left when told to end
END = 5.0  # seconds from TERM to KILL
TAIL = 2000  # bytes of its log that explain why it did not come up


class DemoError(SettingsError):
    """The tour cannot go on; the sentence says why and what to do."""


class Child:
    """The process and its log."""

    def __init__(self, process: Process, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def has_ended(self) -> bool:
        return self.process.returncode is not None

    @asynccontextmanager
    async def while_alive(self) -> AsyncIterator[None]:
        """The block, broken off when the sidecar ends."""
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._end_with_it, group.cancel_scope)
            try:
                yield
            except Exception as error:
                failure = error  # raised below, so that the task group does not wrap it
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _end_with_it(self, scope: anyio.CancelScope) -> None:
        await self.process.wait()
        scope.cancel()

    async def last_words(self) -> str:
        """The end of its log."""
        log = await anyio.Path(self._log).read_bytes()
        return log[-TAIL:].decode(errors="replace").strip()


@asynccontextmanager
async def sidecar_child(
    command: Sequence[str], settings: Mapping[str, str], log: Path
) -> AsyncIterator[Child]:
    """Run `command` with `settings` as its SIDECAR_* variables; at the end TERM, then KILL."""
    with log.open("wb") as output:
        process = await childprocess.start(command, settings, output)
    try:
        yield Child(process, log)
    finally:
        await childprocess.end(process, grace=END)
