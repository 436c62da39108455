"""That programs began and ended is told once each, by a core that is killed at any moment."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path

import anyio
import pytest
from core import Core
from stack import open_stack

from sidecar.client import CallError, Code, Cursor, Event, Run

pytestmark = pytest.mark.slow  # real processes, killed and started again

KILLS = 5
SEED = 20261123


@pytest.mark.slow
async def test_each_begin_and_end_is_told_once_through_kills(tmp_path: Path) -> None:
    delays = random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="hands-") as folder:
        async with open_stack(tmp_path, sidecars=0) as stack:
            await stack.start_hands_process(Path(folder) / "socket")
            core = Core(stack, Path(folder) / "socket")
            run = await stack.attach()
            ran: list[bytes] = []
            is_over = False

            async def start_programs() -> None:
                while not is_over:
                    async with run.open("exec.run", {"argv": ["true"]}) as call:
                        try:
                            assert (await call.wait())["status"] == 0
                            ran.append(call.id)
                        except CallError as error:  # killed before it was even on record
                            assert error.code is Code.OUTCOME_UNKNOWN

            with anyio.fail_after(90):
                async with anyio.create_task_group() as group:
                    group.start_soon(start_programs)
                    for _ in range(KILLS):
                        before = len(ran)
                        while len(ran) < before + 3:  # noqa: ASYNC110
                            await anyio.sleep(0.001)
                        await anyio.sleep(delays.uniform(0, 0.02))
                        await core.kill_and_start()
                    is_over = True
                told = await told_of(run)
    assert len(ran) > 3 * KILLS
    assert all(count == 1 for one in told.values() for count in one.values())
    for id in ran:
        assert told[id] == Counter({"exec.started": 1, "exec.ended": 1})


async def told_of(run: Run) -> dict[bytes, Counter[str]]:
    """By call, how often its begin and its end stand in the journal."""
    told: dict[bytes, Counter[str]] = {}
    last = (await run.info())["events"]["last"]
    async for event in run.events(after=Cursor()):
        assert isinstance(event, Event)
        if event.name in ("exec.started", "exec.ended"):
            assert event.call is not None
            told.setdefault(event.call, Counter())[event.name] += 1
        if event.seq == last:
            break
    return told
