"""Core is stopped with SIGTERM while calls are open, with hands as a process and without: that
costs no more than if it were killed, and what ends with it says so."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from core import MIDDLE, PRINTER, Core, check_lines
from procs import alive_with, sleep_of_its_own
from stack import Stack, open_stack, until

from sidecar.client import CallError, Code, Cursor, Event, Run, Started
from sidecar.hub import Hub, HubSettings
from sidecar.localsocket import ask
from sidecar.streaming import BytesSource

pytestmark = pytest.mark.slow  # real processes, killed and started again

PROMPT = 5.0  # seconds within which a core ends that has nothing to wait for


@pytest.fixture
def socket() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hands-") as folder:
        yield Path(folder) / "socket"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path, sidecars=0) as stack:
        yield stack


def note_of(stack: Stack, number: int = 0) -> dict[str, Any]:
    path = stack.workspace.parent / f"state-{number}" / "state.json"
    found = json.loads(path.read_text()) if path.exists() else {"state": "none"}
    assert isinstance(found, dict)
    return found


async def told(run: Run, call: bytes) -> list[str]:
    """The names of all events of a call until now."""
    found = []
    last = (await run.info())["events"]["last"]
    with anyio.fail_after(10):
        async for event in run.events(after=Cursor()):
            assert isinstance(event, Event)
            if event.call == call:
                found.append(event.name)
            if event.seq == last:
                break
    return found


# With hands as a process -------------------------------------------------------------------


async def test_a_program_prints_on_while_core_is_stopped_twice(stack: Stack, socket: Path) -> None:
    await stack.start_hands_process(socket)
    core = Core(stack, socket)
    run = await stack.attach()
    async with run.process(["python3", "-uc", PRINTER]) as program:
        got = bytearray()

        async def read() -> None:
            async for _, chunk in program.output():
                got.extend(chunk)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            for mark in (100_000, 250_000):
                with anyio.fail_after(20):
                    while len(got) < mark:  # noqa: ASYNC110
                        await anyio.sleep(0.005)
                began = anyio.current_time()
                await core.stop_and_start()
                assert anyio.current_time() - began < PROMPT
        with anyio.fail_after(20):
            ended = await program.wait()
    assert (ended.status, ended.signal, ended.gaps) == (7, None, {})
    check_lines(bytes(got))
    assert note_of(stack)["why"] is None


async def test_time_that_a_program_has_counts_from_its_start(stack: Stack, socket: Path) -> None:
    await stack.start_hands_process(socket)
    core = Core(stack, socket)
    run = await stack.attach()
    with sleep_of_its_own() as while_:
        began = anyio.current_time()
        async with run.process(
            f"trap '' TERM; echo ready; while :; do sleep {while_}; done", timeout=3.0, grace=0.2
        ) as program:
            assert await program.stdout.receive() == b"ready\n"
            await core.stop()
            await anyio.sleep(1.0)
            assert len(alive_with(while_)) == 1
            core.start()
            with anyio.fail_after(15), pytest.raises(CallError) as caught:
                await program.wait()
        assert (caught.value.code, caught.value.details["which"]) == (Code.TIMEOUT, "total")
        assert caught.value.details["signal"] == signal.SIGKILL
        assert 3.0 <= anyio.current_time() - began < 8.0
        assert alive_with(while_) == []


async def test_who_follows_a_program_and_who_waits_for_it_go_on(stack: Stack, socket: Path) -> None:
    await stack.start_hands_process(socket)
    core = Core(stack, socket)
    run = await stack.attach()
    remote = await run.start(MIDDLE)
    async with remote.attach() as program, anyio.create_task_group() as group:
        assert await program.stdout.receive() == b"before\n"
        waited: list[int | None] = []

        async def wait() -> None:
            waited.append((await remote.wait()).status)

        group.start_soon(wait)
        await anyio.sleep(0.1)
        await core.stop()
        (stack.workspace / "go").touch()
        await anyio.sleep(0.2)  # it ends with nobody there
        core.start()
        with anyio.fail_after(15):
            assert await program.stdout.receive() == b"after\n"
            assert (await program.wait()).status == 3
    assert waited == [3]
    assert await told(run, remote.id) == ["exec.started", "exec.resumed", "exec.ended"]


async def test_a_shell_lives_on(stack: Stack, socket: Path) -> None:
    await stack.start_hands_process(socket)
    core = Core(stack, socket)
    run = await stack.attach()
    async with run.shell() as shell:
        assert (await shell.run("kept=1; cd /usr; echo before")).output == b"before\n"
        await core.stop_and_start()
        with anyio.fail_after(20):
            assert (await shell.run("echo $kept; pwd")).output == b"1\n/usr\n"


async def test_a_program_of_a_superseded_core_that_is_stopped_goes_on(
    tmp_path: Path, socket: Path
) -> None:
    hub = Hub(HubSettings(platform=True, token_life=2.0))
    async with open_stack(tmp_path, sidecars=0, hub=hub) as stack:
        await stack.start_hands_process(socket)
        core = Core(stack, socket, **stack.endpoint())
        run = await stack.attach()
        with sleep_of_its_own() as while_:
            async with run.open("exec.run", {"shell": f"exec sleep {while_}"}):
                await until(lambda: len(alive_with(while_)) == 1)
                stack.sidecars.append(None)  # type: ignore[arg-type]
                stack.start_sidecar_process(**stack.endpoint())
                await until(lambda: note_of(stack)["state"] == "superseded")
                assert await core.stop() == 0
                assert note_of(stack)["state"] == "superseded"
                assert len(alive_with(while_)) == 1


@pytest.mark.parametrize("teller", ["run.end", "drain"])
async def test_the_end_of_a_run_ends_its_programs(stack: Stack, socket: Path, teller: str) -> None:
    await stack.start_hands_process(socket)
    core = Core(stack, socket)
    run = await stack.attach()
    with sleep_of_its_own() as while_:
        await run.start(f"exec sleep {while_}")
        async with run.open("exec.run", {"shell": f"exec sleep {while_}"}) as call:
            await until(lambda: len(alive_with(while_)) == 2)
            if teller == "drain":
                await ask(tmp_socket(stack), {"op": "drain", "timeout": 3.0})
            else:
                await run.end(timeout=3.0)
            with anyio.fail_after(15), pytest.raises(CallError) as caught:
                await call.wait()
            assert caught.value.code is Code.CANCELLED
        assert await core.ended() == 0
        assert alive_with(while_) == []
    assert note_of(stack)["state"] == "ended"


async def test_a_run_that_ends_while_its_core_stops_ends_its_programs(
    stack: Stack, socket: Path
) -> None:
    await stack.start_hands_process(socket)
    core = Core(stack, socket)
    run = await stack.attach()
    with sleep_of_its_own() as while_:
        async with run.open("exec.run", {"shell": f"exec sleep {while_}"}) as call:
            await until(lambda: len(alive_with(while_)) == 1)
            async with run.open("files.write", {"path": "slow"}) as upload:
                await until(lambda: upload.accepted)
                core.child.send_signal(signal.SIGTERM)
                await until(lambda: note_of(stack)["state"] == "draining")
                await ask(tmp_socket(stack), {"op": "drain", "timeout": 3.0})
                with anyio.fail_after(15), pytest.raises(CallError) as caught:
                    await call.wait()
                assert caught.value.code is Code.CANCELLED
        assert await core.ended() == 0
        assert alive_with(while_) == []
    assert note_of(stack)["state"] == "ended"


def tmp_socket(stack: Stack) -> Path:
    return stack.workspace.parent / "state-0" / "admin.sock"


# What nothing can go on with ---------------------------------------------------------------


async def test_a_call_that_cannot_be_taken_up_may_end_by_itself(stack: Stack) -> None:
    core = Core(stack, None)
    run = await stack.attach()
    async with run.open("files.write", {"path": "slow"}) as call:
        await until(lambda: call.accepted)
        core.child.send_signal(signal.SIGTERM)
        await until(lambda: note_of(stack)["state"] == "draining")
        run.send(call, 3, BytesSource(b"all of it"))
        with anyio.fail_after(15):
            assert (await call.wait())["size"] == 9
    assert await core.ended() == 0
    assert (stack.workspace / "slow").read_bytes() == b"all of it"
    assert note_of(stack)["why"] is None


async def test_one_that_does_not_is_cancelled_when_the_time_is_up(stack: Stack) -> None:
    core = Core(stack, None, drain=2.0)
    run = await stack.attach()
    async with run.open("files.write", {"path": "slow"}) as call:
        await until(lambda: call.accepted)
        core.child.send_signal(signal.SIGTERM)
        with anyio.fail_after(15), pytest.raises(CallError) as caught:
            await call.wait()
        assert (caught.value.code, caught.value.started) == (Code.CANCELLED, Started.YES)
    assert await core.ended() == 0
    assert note_of(stack)["why"] == "1 open calls and 0 programs were ended"
    assert list(stack.workspace.iterdir()) == []


# In the process of core --------------------------------------------------------------------


async def test_without_hands_programs_end_with_core_and_their_calls_say_so(stack: Stack) -> None:
    core = Core(stack, None)
    run = await stack.attach()
    with sleep_of_its_own() as while_:
        remote = await run.start(f"trap 'exit 9' TERM; while :; do sleep {while_} & wait; done")
        async with run.process(
            f"trap '' TERM; echo ready; while :; do sleep {while_}; done", grace=0.3
        ) as program:
            assert await program.stdout.receive() == b"ready\n"
            await until(lambda: len(alive_with(while_)) == 2)
            assert await core.stop() == 0
            assert alive_with(while_) == []
            with anyio.fail_after(10), pytest.raises(CallError) as caught:
                await program.wait()
        error = caught.value
        assert (error.code, error.started) == (Code.CANCELLED, Started.YES)
        assert (error.details["signal"], error.details["stdout"]["size"]) == (signal.SIGKILL, 6)
        assert note_of(stack)["why"] == "0 open calls and 2 programs were ended"

        core.start()
        listed = {one.id: one for one in await run.processes()}
        assert (listed[remote.id].state, listed[remote.id].status) == ("ended", 9)
        assert listed[program.remote.id].signal == signal.SIGKILL
        for id in (remote.id, program.remote.id):
            assert await told(run, id) == ["exec.started", "exec.ended"]


async def test_their_answers_are_stored_for_who_was_away(stack: Stack) -> None:
    core = Core(stack, None)
    run = await stack.attach()
    with sleep_of_its_own() as while_:
        async with run.open("exec.run", {"shell": f"exec sleep {while_}"}) as call:
            await until(lambda: len(alive_with(while_)) == 1)
            await stack.hub.drop("me")
            assert await core.stop() == 0
            core.start()
            with anyio.fail_after(15), pytest.raises(CallError) as caught:
                await call.wait()
    assert (caught.value.code, caught.value.details["signal"]) == (Code.CANCELLED, signal.SIGTERM)


async def test_a_file_is_sent_on_by_the_next_one(stack: Stack) -> None:
    core = Core(stack, None)
    run = await stack.attach()
    content = bytes(range(256)) * 4096 * 24
    (stack.workspace / "large").write_bytes(content)
    got = bytearray()
    async with run.open("files.read", {"path": "large"}, credit=1 << 20) as call:
        receiver = call.receiver(3)
        with anyio.fail_after(30):
            while len(got) < len(content):
                chunk = await receiver.receive()
                before = len(got)
                got += chunk
                if before < 6_000_000 <= len(got):
                    await core.stop_and_start()
            assert await receiver.receive() == b""
    assert got == content
