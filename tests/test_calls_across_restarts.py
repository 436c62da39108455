"""Calls while the sidecar is killed with -9 and started again on its state folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from rawpeer import raw_peer
from stack import Stack, open_stack, until

from sidecar.client import CallError, Code, Run, Started
from sidecar.clock import SystemClock
from sidecar.durable.receipts import open_receipts
from sidecar.durable.writer import LogWriter
from sidecar.protocol import envelope as wire
from sidecar.protocol.attach import DURABLE_RECEIPTS
from sidecar.protocol.calls import call_digest
from sidecar.protocol.ids import uuid7

pytestmark = pytest.mark.slow  # real processes, killed and started again

EX_UNUSABLE = 77  # `sidecar run`: see its help


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path, sidecars=0) as stack:
        yield stack


class Sidecar:
    """`sidecar run`, in any number of lives on one state folder."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.child: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        self._stack.sidecars.clear()  # so that the next one has the same state folder
        self.child = self._stack.start_sidecar_process()

    async def kill(self) -> None:
        self.child.kill()
        await anyio.to_thread.run_sync(self.child.wait)

    async def kill_and_start(self) -> None:
        await self.kill()
        self.start()


def id_of_now() -> bytes:
    """Whatever clock other tests gave to `identity.new_id`, which never goes back."""
    return uuid7(millis=int(SystemClock().wall() * 1000), random=os.urandom(10))


def lines(stack: Stack, name: str) -> int:
    path = stack.workspace / name
    return len(path.read_text().splitlines()) if path.exists() else 0


async def outcome_of(run: Run, shell: str) -> str:
    """What the caller is told of a program: its answer, or the code of its error."""
    try:
        await run.exec(shell)
    except CallError as error:
        if error.code is Code.OUTCOME_UNKNOWN:
            assert error.started is not Started.NO
        return str(error.code)
    return "answer"


async def test_what_is_killed_at_any_moment_runs_once_and_is_told_as_it_was(
    stack: Stack,
) -> None:
    sidecar = Sidecar(stack)
    run = await stack.attach()
    assert run.attachment.answer is not None
    assert DURABLE_RECEIPTS in run.attachment.answer.features
    outcomes: dict[str, str] = {}
    numbers = count()

    def has_answers(wanted: int) -> bool:
        return len(outcomes) >= wanted

    async def call(name: str) -> None:
        outcomes[name] = await outcome_of(run, f"echo ran >> {name}")

    with anyio.fail_after(50):
        for answered in (1, 11, 21, 31, 41):  # of 9 more in each life, another part
            async with anyio.create_task_group() as group:
                for _ in range(9):
                    group.start_soon(call, f"call-{next(numbers)}")
                await until(partial(has_answers, answered))
                await sidecar.kill_and_start()
    assert len(outcomes) == 45
    assert set(outcomes.values()) <= {"answer", "outcome_unknown"}
    for name, outcome in outcomes.items():
        assert lines(stack, name) <= 1, "it ran twice"
        assert outcome != "answer" or lines(stack, name) == 1
    assert "answer" in outcomes.values()


async def test_a_call_to_a_sidecar_that_is_down_runs_once_when_it_is_back(stack: Stack) -> None:
    sidecar = Sidecar(stack)
    run = await stack.attach()
    await sidecar.kill()
    async with anyio.create_task_group() as group:
        group.start_soon(outcome_of, run, "echo ran >> late")
        await anyio.wait_all_tasks_blocked()
        sidecar.start()
    assert lines(stack, "late") == 1


async def test_the_answer_of_an_earlier_life_is_given_by_the_id_alone(stack: Stack) -> None:
    sidecar = Sidecar(stack)
    run = await stack.attach()
    id = id_of_now()
    first = await run.call("files.mkdir", {"path": "here"}, id=id)
    await sidecar.kill_and_start()
    async with run.resume(id) as call:
        with anyio.fail_after(20):
            assert await call.wait() == first
    again = await run.call("files.mkdir", {"path": "here"}, id=id)
    assert again == first  # it was not made twice, which would be an error
    with pytest.raises(CallError) as caught:
        await run.call("files.mkdir", {"path": "there"}, id=id)
    assert caught.value.code is Code.CONFLICT
    assert not (stack.workspace / "there").exists()


async def accepted(stack: Stack, call: wire.Call) -> None:
    """Leave the state folder as a sidecar does that is killed before `call` begins."""
    folder = stack.settings().state_folder
    folder.mkdir(mode=0o700)
    clock = SystemClock()
    async with LogWriter() as writer:
        receipts = await open_receipts(folder / "receipts", writer, clock)
        await receipts.begin(call.id, call_digest(call), now_wall=clock.wall())
        await receipts.aclose()


async def test_one_that_was_accepted_and_never_began_runs_when_it_comes_again(
    stack: Stack,
) -> None:
    id = id_of_now()
    call = wire.Call(id, "exec.run", wire.dumps({"shell": "echo ran >> once"}))
    await accepted(stack, call)
    Sidecar(stack)
    run = await stack.attach("by-id")
    async with run.resume(id) as pending:
        with anyio.fail_after(20), pytest.raises(CallError) as caught:
            await pending.wait()
    assert (caught.value.code, caught.value.started) == (Code.NOT_ACCEPTED, Started.NO)
    async with raw_peer(stack.hub, "me") as peer:
        await peer.attach()
        await peer.send(wire.Ask(id))
        assert (await peer.expect(wire.State, id=id)).state == "resend"
        assert lines(stack, "once") == 0
        await peer.send(call)
        await peer.expect(wire.Accepted, id=id)
        first = await peer.result(id)
        await peer.send(call)
        assert await peer.result(id) == first
    assert lines(stack, "once") == 1


async def test_a_fence_holds_in_the_next_life(stack: Stack) -> None:
    sidecar = Sidecar(stack)
    await stack.attach("first")
    async with raw_peer(stack.hub, "me") as peer:
        await peer.attach()
        id = peer.new_id()
        await peer.send(wire.Cancel(id))
        assert wire.error_from((await peer.expect(wire.Result, id=id)).error).started is Started.NO
    await sidecar.kill_and_start()
    await stack.attach("second")
    async with raw_peer(stack.hub, "you") as peer:
        await peer.attach()
        await peer.call("exec.run", {"shell": "echo ran >> fenced"}, id=id)
        error = wire.error_from((await peer.expect(wire.Result, id=id)).error)
        assert (error.code, error.started) == (Code.CANCELLED, Started.NO)
    assert lines(stack, "fenced") == 0


async def test_receipts_of_a_newer_version_end_the_program_with_the_way_out(
    stack: Stack,
) -> None:
    sidecar = Sidecar(stack)
    run = await stack.attach()
    await run.call("files.mkdir", {"path": "here"})
    await sidecar.kill()
    (state,) = stack.workspace.parent.glob("state-*")
    (segment, *_) = sorted((state / "receipts").glob("*.log"))
    data = bytearray(segment.read_bytes())
    data[8:10] = (99).to_bytes(2, "little")
    segment.write_bytes(data)
    sidecar.start()
    with anyio.fail_after(20):
        assert await anyio.to_thread.run_sync(sidecar.child.wait) == EX_UNUSABLE
    assert segment.read_bytes() == data


async def test_receipts_that_are_damaged_make_older_ids_expire(stack: Stack) -> None:
    sidecar = Sidecar(stack)
    run = await stack.attach()
    earlier: list[Any] = [id_of_now() for _ in range(2)]
    await run.call("files.mkdir", {"path": "here"}, id=earlier[0])
    await sidecar.kill()
    (state,) = stack.workspace.parent.glob("state-*")
    for segment in (state / "receipts").glob("*.log"):
        data = bytearray(segment.read_bytes())
        data[-1] ^= 1
        segment.write_bytes(data)
    sidecar.start()
    with anyio.fail_after(20), pytest.raises(CallError) as caught:
        await run.call("files.mkdir", {"path": "there"}, id=earlier[1])
    assert (caught.value.code, caught.value.started) == (Code.EXPIRED_ID, Started.UNKNOWN)
    await run.call("files.mkdir", {"path": "there"})
