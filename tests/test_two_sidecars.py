"""Two sidecars of one run, an old pod and a new one: one is spoken to, and nothing runs twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from rawpeer import raw_peer
from stack import PATIENCE, RUN, Stack, open_stack, until

from sidecar.client import CallError, Code
from sidecar.hub import Hub, HubSettings
from sidecar.protocol import envelope as wire

pytestmark = pytest.mark.slow  # real processes, killed and started again

LIFE = 2.0  # seconds of a token: the old one asks for another soon, and is told


def state_of(stack: Stack, number: int) -> dict[str, Any]:
    path = stack.workspace.parent / f"state-{number}" / "state.json"
    found = json.loads(path.read_text()) if path.exists() else {"state": "none"}
    assert isinstance(found, dict)
    return found


async def test_both_answer_attach_and_the_platform_has_counted_which_is_newer(
    tmp_path: Path,
) -> None:
    async with (
        open_stack(tmp_path, sidecars=0, hub=Hub(HubSettings(platform=True))) as stack,
        raw_peer(stack.hub) as peer,
    ):
        stack.start_sidecar_process(**stack.endpoint())
        old = await peer.expect(wire.Hello, timeout=PATIENCE)
        stack.start_sidecar_process(**stack.endpoint())
        new = await peer.expect(wire.Hello, timeout=PATIENCE)
        assert (old.generation, new.generation) == (1, 2)
        answers = [await peer.attach()]
        answers.append(await peer.expect(wire.Attached, nonce=answers[0].nonce))
        assert {(one.generation, one.incarnation) for one in answers} == {
            (1, old.incarnation),
            (2, new.incarnation),
        }
        assert answers[0].attachment != answers[1].attachment


@pytest.mark.slow
async def test_the_newer_is_spoken_to_the_older_idles_and_no_call_runs_twice(
    tmp_path: Path,
) -> None:
    hub = Hub(HubSettings(platform=True, token_life=LIFE))
    async with open_stack(tmp_path, sidecars=0, hub=hub) as stack:
        stack.start_sidecar_process(**stack.endpoint())
        run = await stack.attach()
        old = run.incarnation
        called = 0

        async def call() -> None:
            nonlocal called
            called += 1
            try:
                await run.exec(f"echo {called} >> count")
            except CallError as error:  # it says what became of it, and is not repeated
                assert error.code in (Code.ENDING, Code.OUTCOME_UNKNOWN, Code.NOT_ACCEPTED), error

        await call()
        stack.start_sidecar_process(**stack.endpoint())
        with anyio.fail_after(3 * PATIENCE):
            while state_of(stack, 0)["state"] != "superseded":
                await call()
        await until(lambda: run.split_brain and run.incarnation != old)
        assert (await run.info())["generation"] == 2

        for _ in range(3):  # longer than a token lives: they do not take turns
            await anyio.sleep(LIFE / 2)
            await call()
        assert hub.platform.get(RUN).generation == 2
        assert (state_of(stack, 0)["state"], state_of(stack, 1)["state"]) == (
            "superseded",
            "running",
        )
        ran = (stack.workspace / "count").read_text().split()
        assert len(ran) == len(set(ran)), "a call ran twice"
        assert ran[0] == "1"
        assert ran[-1] == str(called)


async def test_who_was_superseded_stays_so_when_started_again(tmp_path: Path) -> None:
    hub = Hub(HubSettings(platform=True, token_life=LIFE))
    async with open_stack(tmp_path, sidecars=0, hub=hub) as stack, raw_peer(hub) as peer:
        options = {**stack.endpoint(), "state": str(tmp_path / "state-0")}
        old = stack.start_sidecar_process(**options)
        await peer.expect(wire.Hello, timeout=PATIENCE)
        stack.start_sidecar_process(**stack.endpoint(), state=str(tmp_path / "state-1"))
        await peer.expect(wire.Hello, timeout=PATIENCE)
        await until(lambda: state_of(stack, 0)["state"] == "superseded")
        old.kill()
        await anyio.to_thread.run_sync(old.wait)
        first = state_of(stack, 0)["pid"]
        again = stack.start_sidecar_process(**options)
        await until(lambda: state_of(stack, 0)["pid"] != first)
        await anyio.sleep(LIFE)
        assert state_of(stack, 0)["state"] == "superseded"
        assert again.poll() is None
        assert hub.platform.get(RUN).generation == 2
