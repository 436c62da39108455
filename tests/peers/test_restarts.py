"""Restarts: whoever kills the sidecar loses nothing that it has said, and is told the truth.

Each test stands for what users reported of other systems that run commands for somebody else
(owner/repo#number); its name is what ours promises. Hub, sidecar, client and programs are real,
and the sidecar is killed with -9.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from rawpeer import raw_peer
from stack import PATIENCE, Stack, open_stack, until

from sidecar.client import CallError, Code, Event, RemoteProcess, Started
from sidecar.client.exec import collect
from sidecar.clock import SystemClock
from sidecar.identity import new_id
from sidecar.protocol import envelope as wire

pytestmark = pytest.mark.slow  # real processes, killed and started again

UNTIL_GO = "until [ -e go ]; do sleep 0.01; done"


class Mortal:
    """A stack whose sidecar is a process that can be killed, and comes back to its state."""

    def __init__(self, stack: Stack, state: Path) -> None:
        self.stack = stack
        self.workspace = stack.workspace
        self._state = str(state)
        self._child = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return self.stack.start_sidecar_process(state=self._state, log_level="error")

    async def kill(self) -> None:
        self._child.kill()
        await anyio.to_thread.run_sync(self._child.wait)

    async def restart(self) -> None:
        await self.kill()
        self._child = self._start()

    def lines(self, name: str) -> list[str]:
        path = self.workspace / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
async def mortal(tmp_path: Path) -> AsyncIterator[Mortal]:
    async with open_stack(tmp_path, sidecars=0) as stack:
        yield Mortal(stack, tmp_path / "state")


async def test_a_reader_gets_every_event_once_through_two_restarts(mortal: Mortal) -> None:
    """anthropics/claude-code#89228: messages gone and sessions stranded after a restart of the
    bridge; langchain-ai/langsmith-sdk PR #3021: records gone, and nobody said so."""
    run = await mortal.stack.attach()
    ended: Counter[bytes] = Counter()
    numbers: list[int] = []

    async def follow() -> None:
        async with run.events() as events:
            async for event in events:
                assert isinstance(event, Event), event
                numbers.append(event.seq)
                if event.name == "exec.ended":
                    assert event.call is not None
                    ended[event.call] += 1
                    if len(ended) == 15:
                        return

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        ids = []
        for number in range(15):
            id = new_id(SystemClock())
            ids.append(id)
            await run.call("exec.run", {"argv": ["true"], "live": False}, id=id)
            if number % 5 == 4 and number < 14:
                await mortal.restart()
    assert ended == Counter(ids)
    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_result_outlives_whoever_gave_it(mortal: Mortal) -> None:
    """opensandbox-group/OpenSandbox#1277: the result has to be had again after the stream ended,
    here also after the process that ran the command."""
    run = await mortal.stack.attach()
    async with run.open("exec.run", {"shell": "echo out; exit 3", "live": False}) as call:
        first = await call.wait()
    await mortal.restart()
    async with run.resume(call.id) as again:
        assert await again.wait() == first
    assert (first["status"], first["stdout"]["data"]) == (3, b"out\n")


async def test_a_command_sent_before_and_after_a_restart_runs_once(mortal: Mortal) -> None:
    """kubernetes-sigs/agent-sandbox#1352: sent again after a 5xx, up to six runs of one command."""
    id = new_id(SystemClock())
    arguments = {"shell": "echo ran >> count; echo $$; exit 3", "live": False}
    first = await (await mortal.stack.attach()).call("exec.run", arguments, id=id)
    async with raw_peer(mortal.stack.hub) as peer:
        for _ in range(2):
            peer.forget()
            await mortal.restart()
            await peer.expect(wire.Hello, timeout=PATIENCE)
            await peer.attach()
            await peer.call("exec.run", arguments, id=id)
            assert await peer.result(id) == first
    assert mortal.lines("count") == ["ran"]


async def test_what_was_running_is_unknown_and_never_runs_again_by_itself(mortal: Mortal) -> None:
    """kunobi/kobe PR #131: reserve the key before the spawn, and answer honestly *unknown* after a
    crash; cloudflare/cloudflare-os#444: "ran, output lost" looks like "never ran"."""
    run = await mortal.stack.attach()
    shell = f"echo ran >> count; {UNTIL_GO}; echo end >> count"
    async with run.open("exec.run", {"shell": shell}) as call:
        await until(lambda: mortal.lines("count") == ["ran"])
        await mortal.restart()
        with pytest.raises(CallError) as caught:
            await call.wait()
    assert (caught.value.code, caught.value.started) == (Code.OUTCOME_UNKNOWN, Started.YES)
    with pytest.raises(CallError) as caught:
        await run.call("exec.run", {"shell": shell}, id=call.id)
    assert (caught.value.code, caught.value.started) == (Code.OUTCOME_UNKNOWN, Started.YES)
    with pytest.raises(CallError) as caught:
        async with run.resume(new_id(SystemClock())) as never:
            await never.wait()
    assert (caught.value.code, caught.value.started) == (Code.UNKNOWN_CALL, Started.NO)
    (mortal.workspace / "go").touch()
    await until(lambda: mortal.lines("count")[-1] == "end")
    assert mortal.lines("count") == ["ran", "end"]


async def test_nobody_invents_an_exit_that_happened_while_there_was_no_sidecar(
    mortal: Mortal,
) -> None:
    """cloudflare/sandbox-sdk#873: "complete, exit 0" of what nobody had seen to end."""
    run = await mortal.stack.attach()
    remote = await run.start(f"echo before; {UNTIL_GO}; touch done; exit 7")
    await until_size(remote, 7)
    await mortal.restart()
    await run.ping()
    [listed] = await run.processes()
    assert listed.state != "ended"
    (mortal.workspace / "go").touch()
    await until((mortal.workspace / "done").exists)
    with pytest.raises(CallError) as caught:
        await remote.wait()
    assert caught.value.code is Code.OUTCOME_UNKNOWN
    [listed] = await run.processes()
    assert (listed.status, listed.signal) == (None, None)
    assert (await remote.read()).data == b"before\n"


async def until_size(remote: RemoteProcess, size: int) -> None:
    with anyio.fail_after(PATIENCE):
        while (await remote.read()).size < size:  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def test_a_command_that_comes_while_there_is_no_sidecar_waits_for_the_next(
    mortal: Mortal,
) -> None:
    """anthropics/claude-code#89228: what was said while the bridge was away was gone."""
    run = await mortal.stack.attach()
    await run.ping()
    await mortal.kill()
    async with run.open("exec.run", {"shell": "echo ran >> count", "live": False}) as call:
        await anyio.sleep(0.1)
        assert not call.has_ended
        await mortal.restart()
        assert (await collect(call)).status == 0
    assert mortal.lines("count") == ["ran"]
