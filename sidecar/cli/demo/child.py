"""The sidecar of the demo: a process of its own, as it would be in a sandbox."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
from anyio.abc import Process

import sidecar
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
    environ = {name: value for name, value in os.environ.items() if not _is_ours(name)}
    environ |= {f"SIDECAR_{name.upper()}": value for name, value in settings.items()}
    with log.open("wb") as output:
        process = await anyio.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environ,
            # `python -m` looks here first, so that it is the same sidecar that runs the demo.
            cwd=Path(sidecar.__path__[0]).parent,
            # Ctrl-C at a terminal goes to the whole group. The demo ends its sidecar itself.
            start_new_session=True,
        )
    try:
        yield Child(process, log)
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with anyio.move_on_after(END):
        await process.wait()
    if process.returncode is None:
        process.kill()
    await process.aclose()


def _is_ours(name: str) -> bool:
    """Settings of whoever runs the demo are none of its sidecar's."""
    return name.startswith("SIDECAR_")
