"""Transfers while the sidecar is killed with -9 and started again on its state folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from stack import RUN, Stack, open_stack

from sidecar.client import Run

pytestmark = pytest.mark.slow  # real processes, killed and started again

SIZE = 60_000_000
KILLS = 2


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path, sidecars=0) as stack:
        yield stack


class Killer:
    """Kills the sidecar as soon as a transfer has come so far, and starts it again."""

    def __init__(self, stack: Stack) -> None:
        self.kills = 0
        self._stack = stack
        self._due = anyio.Event()
        self._child = stack.start_sidecar_process()

    def at(self, done: int) -> None:
        """How many bytes of the transfer have come."""
        if done > SIZE * (self.kills + 1) // (KILLS + 1):
            self._due.set()

    async def run(self) -> None:
        while self.kills < KILLS:
            await self._due.wait()
            self.kills += 1
            self._due = anyio.Event()
            self._child.kill()
            await anyio.to_thread.run_sync(self._child.wait)
            self._stack.sidecars.clear()  # so that the next one has the same state folder
            self._child: subprocess.Popen[bytes] = self._stack.start_sidecar_process()


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_transfer_goes_on_by_itself_after_each_kill(
    way: str, stack: Stack, tmp_path: Path
) -> None:
    killer = Killer(stack)
    run: Run = await (await stack.controller()).attach(RUN, timeout=10)
    content = os.urandom(SIZE)
    here, there = tmp_path / "here", stack.workspace / "there"
    (here if way == "up" else there).write_bytes(content)
    seen: list[int] = []

    def note(done: int) -> None:
        seen.append(done)
        killer.at(done)

    async with anyio.create_task_group() as group:
        group.start_soon(killer.run)
        if way == "up":
            await run.files.upload("there", here, upload="derived", on_progress=note)
        else:
            await run.files.download("there", here, on_progress=note)
    assert killer.kills == KILLS
    assert here.read_bytes() == there.read_bytes() == content
    assert sorted(os.listdir(stack.workspace)) == ["there"]
    behind = [(a - b) for a, b in zip(seen, seen[1:], strict=False) if b < a]
    assert all(step < SIZE // 3 for step in behind), "it was begun anew"
