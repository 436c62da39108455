"""Once: whoever is not sure whether a command arrived sends it again, and it runs once.

Each test stands for what users reported of other systems that run commands for somebody else
(owner/repo#number); its name is what ours promises. Hub, sidecar, client and programs are real.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from rawpeer import raw_peer
from rest import send_to_sidecar
from stack import RUN, open_stack, until

from sidecar.client import CallError, Code, Started
from sidecar.identity import new_id
from sidecar.protocol import envelope as wire

SIDECAR, ME = f"sandbox:{RUN}", "control:me"


async def test_a_command_sent_six_times_runs_once(tmp_path: Path) -> None:
    """kubernetes-sigs/agent-sandbox#1352: the SDK sent a command again after a 5xx, up to six
    runs of it. Here each try has a connection and an attachment of its own."""
    async with open_stack(tmp_path) as stack:
        arguments = {"shell": "echo ran >> count; echo $$; exit 3", "live": False}
        id = new_id(stack.sidecar.clock)
        for number in range(5):  # whoever sent it is gone before there is an answer
            async with raw_peer(stack.hub, f"try-{number}") as peer:
                await peer.attach()
                await peer.call("exec.run", arguments, id=id)
        async with raw_peer(stack.hub, "last") as peer:
            await peer.attach()
            await peer.call("exec.run", arguments, id=id)
            first = await peer.result(id)
            await peer.call("exec.run", arguments, id=id)
            assert await peer.result(id) == first
        assert first["status"] == 3
        assert (stack.workspace / "count").read_text() == "ran\n"


async def test_a_command_sent_six_times_without_an_attachment_runs_once(tmp_path: Path) -> None:
    """kubernetes-sigs/agent-sandbox#1352, by the hub's REST, as a stateless platform does it."""
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub, "platform") as platform:
        incarnation = stack.sidecar.incarnation
        arguments = wire.dumps({"shell": "echo ran >> count; echo $$"})
        id = platform.new_id()
        call = wire.Call(id, "exec.run", arguments, reply="platform", incarnation=incarnation)
        answers = []
        for _ in range(6):
            await send_to_sidecar(stack.hub, call)
            answers.append(await platform.result(id))
        assert answers == [answers[0]] * 6
        assert (stack.workspace / "count").read_text() == "ran\n"


@pytest.mark.parametrize("is_forgotten", [False, True], ids=["recovered", "forgotten"])
async def test_a_command_whose_acks_were_lost_is_sent_again_and_runs_once(
    is_forgotten: bool, tmp_path: Path
) -> None:
    """kubernetes-sigs/agent-sandbox#1352: the answer was lost, not the command."""
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        stack.hub.faults.lose_acks(1000)
        arguments = {"shell": "echo ran >> count; until [ -e go ]; do sleep 0.01; done"}
        async with run.open("exec.run", arguments) as call:
            await until((stack.workspace / "count").exists)
            if is_forgotten:
                await stack.lose(SIDECAR, ME)
            else:
                await stack.hub.drop(SIDECAR)
                await stack.hub.drop(ME)
            stack.hub.faults.clear()
            await until(lambda: stack.sidecar.channel.status().state == "open")
            (stack.workspace / "go").touch()
            assert (await call.wait())["status"] == 0
        assert stack.hub.faults.struck["lose_acks"] > 0
        assert (stack.workspace / "count").read_text() == "ran\n"


async def test_a_start_with_the_same_id_is_the_same_program(tmp_path: Path) -> None:
    """e2b-dev/E2B#1658: an idempotent create is wanted; PrimeIntellect/prime PR #868 and
    docker/sbx-releases#501: two of what was asked for once."""
    async with open_stack(tmp_path) as stack:
        run, other = await stack.attach(), await stack.attach("other")
        id = new_id(stack.sidecar.clock)
        arguments = {"argv": ["sleep", "600"]}
        answers = [await one.call("exec.start", arguments, id=id) for one in (run, other, run)]
        assert answers == [answers[0]] * 3
        [only] = await run.processes()
        assert (only.id, only.pid) == (id, answers[0]["pid"])


async def test_input_sent_twice_is_typed_once(tmp_path: Path) -> None:
    """kubernetes-sigs/agent-sandbox#1352, for what is worse to repeat than a command."""
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        remote = await run.start(["cat"], stdin=True)
        id = new_id(stack.sidecar.clock)
        arguments = {"exec": remote.id, "data": b"rm\n", "end": False}
        for _ in range(3):
            assert (await run.call("exec.input", arguments, id=id))["taken"] == 3
        await remote.input(b"", end=True)
        await remote.wait()
        assert (await remote.read()).data == b"rm\n"


async def test_the_same_id_with_another_command_runs_nothing(tmp_path: Path) -> None:
    """docker/sbx-releases#501: which of two was run, if one key stood for both?"""
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        id = new_id(stack.sidecar.clock)
        await run.call("exec.run", {"shell": "echo one >> count"}, id=id)
        with pytest.raises(CallError) as caught:
            await run.call("exec.run", {"shell": "echo two >> count"}, id=id)
        assert (caught.value.code, caught.value.started) == (Code.CONFLICT, Started.NO)
        assert (stack.workspace / "count").read_text() == "one\n"


async def test_a_command_that_was_given_up_before_it_came_never_runs(tmp_path: Path) -> None:
    """kubernetes-sigs/agent-sandbox#1352: a late copy of what the caller had done with."""
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub) as peer:
        await peer.attach()
        id = peer.new_id()
        await peer.send(wire.Cancel(id))
        error = await peer.error(id)
        assert (error.code, error.started) == (Code.CANCELLED, Started.NO)
        await peer.call("exec.run", {"shell": "echo ran >> count"}, id=id)
        error = await peer.error(id)
        assert (error.code, error.started) == (Code.CANCELLED, Started.NO)
        assert not (stack.workspace / "count").exists()
