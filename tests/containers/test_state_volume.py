"""What a container leaves on its state volume, the next one goes on with."""

from __future__ import annotations

from pathlib import Path

import pytest
from boxes import Box, events_of, open_box
from podman import Engine

from sidecar.client import CallError, Code
from sidecar.clock import SystemClock
from sidecar.identity import new_id


async def kill_and_replace(box: Box) -> None:
    """No goodbye, and another container on the same volume."""
    await box.podman("kill", "--signal=KILL", box.name)
    assert await box.ended() == 137
    await box.remove()
    await box.start()


async def test_a_killed_container_is_followed_by_one_that_knows_what_was_done(
    engine: Engine, agent_image: str, tmp_path: Path
) -> None:
    async with open_box(engine, agent_image, tmp_path) as box:
        first = await box.attach("first")
        incarnation, done = first.incarnation, new_id(SystemClock())
        once = {"argv": ["sh", "-c", "echo run >>runs.txt; echo out; exit 7"]}
        answer = await first.call("exec.run", once, id=done)
        before = await events_of(first)
        program = await first.start(["sh", "-c", "echo run >>programs.txt; sleep 600"])
        await kill_and_replace(box)

        second = await box.attach("second")
        assert second.incarnation != incarnation
        assert await second.call("exec.run", once, id=done) == answer
        assert (box.workspace / "runs.txt").read_bytes() == b"run\n"
        after = await events_of(second)
        assert after[: len(before)] == before
        assert [seq for seq, _ in after] == list(range(1, len(after) + 1))
        assert after[len(before) :][:2] == [(4, "exec.started"), (5, "sidecar.started")]
        assert [info.state for info in await second.processes()] == ["ended", "unknown"]
        with pytest.raises(CallError) as caught:
            await (await second.find(program.id)).wait()
        assert caught.value.code is Code.OUTCOME_UNKNOWN
