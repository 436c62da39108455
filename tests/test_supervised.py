"""`sidecar supervise` with a real hub: core and hands as two users, killed, ended and attacked."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread
import attacks
import pytest
from core import MIDDLE
from stack import RUN, Stack, open_stack, until
from supervised import AGENT, CORE, Supervised, supervised

from sidecar.client import CallError, Code, Run
from sidecar.protocol.names import sidecar_grant

pytestmark = pytest.mark.slow  # two interpreters each, killed and started again


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path, sidecars=0) as stack:
        yield stack


@pytest.fixture
async def box(stack: Stack) -> AsyncIterator[Supervised]:
    """Started, with a token that is good."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to run processes as other users")
    with supervised() as box:
        box.give_token(stack.hub.mint(sidecar_grant(RUN)))
        url = stack.hub.address.client_url
        box.start("sleep", "600", as_pid_1=True, SIDECAR_HUB=url, SIDECAR_DRAIN="5")
        yield box
        # In a thread: core speaks to the hub, which is here, until it has ended.
        await anyio.to_thread.run_sync(box.close)


async def part(box: Supervised, verb: str, *, but: int = 0) -> int:
    return await anyio.to_thread.run_sync(lambda: box.part(verb, but=but))


async def ended(box: Supervised) -> int:
    return await anyio.to_thread.run_sync(box.wait)


async def shell(run: Run, line: str) -> str:
    return (await run.exec(["sh", "-c", line])).stdout.decode().strip()


async def test_programs_are_the_agents_and_core_says_so(stack: Stack, box: Supervised) -> None:
    run = await stack.attach()
    assert await shell(run, "id -u; id -G") == f"{AGENT}\n{AGENT}"
    info = await run.call("sidecar.info", {})
    assert info["trust"] == "isolated"
    assert await shell(run, "env | grep -c SIDECAR_; grep NoNewPrivs /proc/self/status") == (
        "1\nNoNewPrivs:\t1"  # the mark that every program has
    )


async def test_core_is_killed_and_the_program_goes_on(stack: Stack, box: Supervised) -> None:
    run = await stack.attach()
    ended = []

    async def call() -> None:
        ended.append(await run.exec(MIDDLE))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await until(lambda: bool(list((box.state / "spools").glob("*.1"))))
            core = await part(box, "run")
            os.kill(core, signal.SIGKILL)
            assert await part(box, "run", but=core) != core
            (box.workspace / "go").touch()
    assert (ended[0].status, ended[0].stdout) == (3, b"before\nafter\n")
    assert "core ended with status 137 (128 + SIGKILL): starting it again in 0.1 s" in box.log


async def test_hands_is_killed_by_the_agent_and_comes_back(stack: Stack, box: Supervised) -> None:
    run = await stack.attach()
    hands = await part(box, "hands")
    with anyio.fail_after(20):
        with pytest.raises(CallError) as caught:
            await shell(run, "kill -9 $PPID; sleep 1")
        assert caught.value.code is Code.OUTCOME_UNKNOWN
        assert await part(box, "hands", but=hands) != hands
        assert await shell(run, "echo again") == "again"


async def test_a_run_that_is_ended_ends_it_all(stack: Stack, box: Supervised) -> None:
    run = await stack.attach()
    await run.call("run.end", {})
    assert await ended(box) == 0
    assert "core ended with status 0: ending" in box.log


async def test_what_was_said_is_delivered_before_it_ends(stack: Stack, box: Supervised) -> None:
    run = await stack.attach()
    await shell(run, "true")
    box.send(signal.SIGTERM)
    assert await ended(box) == 143  # of `sleep`
    assert "core ended with status 0" in box.log
    assert json.loads((box.state / "state.json").read_bytes())["state"] == "stopped"


async def test_no_way_leads_from_the_agent_to_core_or_the_first_process(
    stack: Stack, box: Supervised
) -> None:
    run = await stack.attach()
    await shell(run, "true")
    # Their numbers in the namespace of PID 1, in which the program runs, too.
    core = int(box.says(r"core is process (\d+)")[1])
    program = Path(attacks.__file__).read_text()
    for target in attacks.targets(core, CORE, str(box.state), [str(box.token)]):
        done = await run.exec([sys.executable, "-c", program, json.dumps(target)])
        assert len(json.loads(done.stdout)) > 35
        assert attacks.breaches(done.stdout) == {}, target
    assert await shell(run, "echo well") == "well"
    assert " again in " not in box.log
