"""`sidecar run --hands` and `sidecar hands`, each a real process, and what happens when one of
them dies, is another user, or lives in another PID namespace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from procs import alive_with, sleep_of_its_own
from stack import RUN, Stack, open_stack, until

from sidecar.client import CallError, Code, Controller, RemoteProcess, Run, Started, Terminal

AS_OTHER = Path(__file__).parent / "support" / "asother.py"
OTHER = 65534  # a user who has nothing
NAMESPACE = ("unshare", "--pid", "--mount-proc", "--kill-child")


@pytest.fixture
def socket() -> Iterator[Path]:
    """Where hands listens: a short path, in a folder that another user may use, too."""
    with tempfile.TemporaryDirectory(prefix="hands-") as folder:
        os.chmod(folder, 0o777)
        yield Path(folder) / "socket"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path, sidecars=0) as stack:
        yield stack


async def connected(run: Run) -> None:
    """Until the sidecar has hands."""
    with anyio.fail_after(10):
        while (await run.info())["hands"]["state"] != "connected":  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def until_output(remote: RemoteProcess, wanted: bytes) -> None:
    with anyio.fail_after(10):
        while (await remote.read(1)).data != wanted:  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    await anyio.to_thread.run_sync(child.wait)


# Both alive --------------------------------------------------------------------------------


async def test_programs_run_in_hands_with_pipes_and_on_terminals(
    stack: Stack, socket: Path
) -> None:
    hands = await stack.start_hands_process(socket)
    core = stack.start_sidecar_process(hands=str(socket))
    run = await stack.attach()
    assert (await run.info())["form"] == "socket"

    ended = await run.exec("echo $PPID; cat >&2; exit 5", input=b"in")
    assert (int(ended.stdout), ended.stderr, ended.status) == (hands.pid, b"in", 5)
    assert hands.pid != core.pid
    assert (await run.info())["trust"] == "shared"

    remote = await run.start("read line; echo $line; exit 6", stdin=True)
    await remote.input(b"fed\n", end=True)
    assert ((await remote.wait()).status, (await remote.read(1)).data) == (6, b"fed\n")

    shell = "stty size; read line; stty size; tty -s && exit 7"
    async with run.process(shell, terminal=Terminal(20, 70), stdin=True) as program:
        assert await program.stdout.receive() == b"20 70\r\n"
        await program.remote.resize(30, 90)
        await program.write(b"\r")
        rest = [chunk async for chunk in program.stdout]
        assert b"".join(rest).endswith(b"30 90\r\n")
        assert (await program.wait()).status == 7


# Hands dies --------------------------------------------------------------------------------

MIDDLE = "echo before; until [ -e go ]; do sleep 0.01; done; echo after; exit 3"


async def test_a_program_goes_on_without_its_hands_and_its_end_is_seen_but_not_how(
    stack: Stack, socket: Path
) -> None:
    hands = await stack.start_hands_process(socket)
    stack.start_sidecar_process(hands=str(socket))
    run = await stack.attach()
    async with run.open("exec.run", {"shell": MIDDLE}) as call:
        stdout = call.receiver(1)
        assert await stdout.receive() == b"before\n"
        await kill(hands)
        await stack.start_hands_process(socket)
        await connected(run)
        assert [one.state for one in await run.processes()] == ["running"]
        (stack.workspace / "go").touch()
        assert await stdout.receive() == b"after\n"
        with pytest.raises(CallError) as caught:
            await call.wait()
    assert (caught.value.code, caught.value.started) == (Code.OUTCOME_UNKNOWN, Started.YES)
    assert (await run.exec("echo next")).stdout == b"next\n"


async def test_a_program_that_dies_with_its_hands_leaves_what_it_printed(
    stack: Stack, socket: Path
) -> None:
    hands = await stack.start_hands_process(socket)
    stack.start_sidecar_process(hands=str(socket))
    run = await stack.attach()
    found: list[CallError] = []

    async def collect() -> None:
        with pytest.raises(CallError) as caught:
            await run.exec(f"echo partial; echo output >&2; exec sleep {while_}")
        found.append(caught.value)

    with sleep_of_its_own() as while_:
        async with anyio.create_task_group() as group:
            group.start_soon(collect)
            await until(lambda: len(alive_with(while_)) == 1)
            await kill(hands)
            [pid] = alive_with(while_)
            os.kill(pid, signal.SIGKILL)
            await stack.start_hands_process(socket)
    [error] = found
    assert (error.code, error.started) == (Code.OUTCOME_UNKNOWN, Started.YES)
    assert error.details["output"] == {1: b"partial\n", 2: b"output\n"}
    assert (await run.exec("echo next")).stdout == b"next\n"


async def test_what_outlived_its_hands_is_killed_with_all_that_it_started(
    stack: Stack, socket: Path
) -> None:
    with sleep_of_its_own() as while_:
        hands = await stack.start_hands_process(socket)
        stack.start_sidecar_process(hands=str(socket))
        run = await stack.attach()
        remote = await run.start(f"setsid sleep {while_} & sleep {while_}")
        await until(lambda: len(alive_with(while_)) == 2)
        await kill(hands)
        await stack.start_hands_process(socket)
        await connected(run)
        with pytest.raises(CallError) as caught:
            await remote.kill()
        assert caught.value.code is Code.OUTCOME_UNKNOWN  # nobody could see how
        assert alive_with(while_) == []


async def test_programs_that_hands_ends_with_are_told_with_how_they_ended(
    stack: Stack, socket: Path
) -> None:
    hands = await stack.start_hands_process(socket)
    stack.start_sidecar_process(hands=str(socket))
    run = await stack.attach()
    on_terminal = await run.start(["sh", "-c", TRAPPED, "8"], terminal=Terminal())
    async with run.process(["sh", "-c", TRAPPED, "9"]) as program:
        assert await program.stdout.receive() == b"ready\n"
        await until_output(on_terminal, b"ready\r\n")
        hands.terminate()
        assert b"".join([chunk async for chunk in program.stdout]) == b"told\n"
        assert (await program.wait()).status == 9
    assert (await on_terminal.wait()).status == 8
    assert (await on_terminal.read(1)).data.endswith(b"told\r\n")
    assert await anyio.to_thread.run_sync(hands.wait) == 0


TRAPPED = "trap 'echo told; exit $0' TERM; echo ready; while :; do sleep 0.01; done"


@pytest.mark.slow
async def test_a_call_that_gets_no_answer_because_hands_is_away_is_left_over_of_a_run(
    stack: Stack, socket: Path
) -> None:
    hands = await stack.start_hands_process(socket)
    core = stack.start_sidecar_process(hands=str(socket))
    run = await stack.attach()
    async with run.open("exec.run", {"shell": MIDDLE}) as call:
        assert await call.receiver(1).receive() == b"before\n"
        await kill(hands)
        await run.end(timeout=8.0)
        assert await anyio.to_thread.run_sync(core.wait) == 75
    state = Path(stack.settings().state).with_name("state-0")
    assert json.loads((state / "state.json").read_text())["left_over"] == {"calls": 1}
    (stack.workspace / "go").touch()


@pytest.mark.slow
async def test_without_hands_nothing_is_started(stack: Stack, socket: Path) -> None:
    stack.start_sidecar_process(hands=str(socket))
    run = await stack.attach()
    with pytest.raises(CallError) as caught:
        await run.exec(["true"])
    assert (caught.value.code, caught.value.started) == (Code.HANDS_AWAY, Started.NO)
    info = await run.info()
    assert (info["hands"]["state"], "capabilities" in info) == ("away", False)
    await stack.start_hands_process(socket)
    assert (await run.exec(["true"])).status == 0


# Core dies ---------------------------------------------------------------------------------


async def test_a_program_goes_on_without_its_core_and_the_next_one_has_all_of_it(
    stack: Stack, socket: Path
) -> None:
    await stack.start_hands_process(socket)
    core = stack.start_sidecar_process(hands=str(socket))
    run = await stack.attach()
    started = await run.start("read line; echo $line; exit 7", stdin=True)
    on_terminal = await run.start("read line; echo $line; exit 8", terminal=Terminal())
    await kill(core)

    stack.start_sidecar_process(hands=str(socket))
    async with Controller.connect(stack.url("later"), controller="later") as controller:
        again = await controller.attach(RUN, timeout=10)
        await connected(again)
        listed = {one.id: one for one in await again.processes()}
        assert {id: (one.state, one.pid) for id, one in listed.items()} == {
            started.id: ("running", started.pid),
            on_terminal.id: ("running", on_terminal.pid),
        }
        found = await again.find(started.id)
        await found.input(b"later\n", end=True)
        assert ((await found.wait()).status, (await found.read(1)).data) == (7, b"later\n")
        found = await again.find(on_terminal.id)
        await found.input(b"typed\r")
        assert (await found.wait()).status == 8
        assert (await found.read(1)).data.endswith(b"typed\r\n")


async def test_what_ended_while_there_was_no_core_is_told_to_the_next(
    stack: Stack, socket: Path
) -> None:
    await stack.start_hands_process(socket)
    core = stack.start_sidecar_process(hands=str(socket))
    run = await stack.attach()
    remote = await run.start("until [ -e go ]; do sleep 0.01; done; echo alone; exit 9")
    await kill(core)
    (stack.workspace / "go").touch()
    await until(lambda: not Path(f"/proc/{remote.pid}").exists())

    stack.start_sidecar_process(hands=str(socket))
    async with Controller.connect(stack.url("later"), controller="later") as controller:
        again = await controller.attach(RUN, timeout=10)
        await connected(again)
        found = await again.find(remote.id)
        assert ((await found.wait()).status, (await found.read(1)).data) == (9, b"alone\n")


# Hands is another user, or elsewhere -------------------------------------------------------


@pytest.mark.optional
async def test_hands_of_another_user_is_isolated_and_can_be_killed_in_the_middle(
    stack: Stack, socket: Path
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory(prefix="work-") as name:
        os.chown(name, OTHER, OTHER)
        stack.workspace = Path(name)
        other = (str(AS_OTHER), str(OTHER))
        hands = await stack.start_hands_process(socket, program=other)
        core = stack.start_sidecar_process(hands=str(socket))
        run = await stack.attach()
        ended = await run.exec("id -u; id -G; echo mine > file")
        assert ended.stdout.split() == [b"65534", b"65534"]
        assert (await run.info())["trust"] == "isolated"
        assert (Path(name) / "file").stat().st_uid == OTHER
        spied = await run.exec(f"cat /proc/{core.pid}/environ; ls /proc/{core.pid}/fd")
        assert (spied.stdout, spied.status) != (b"", 0)
        assert b"SIDECAR_TOKEN" not in spied.stdout

        with sleep_of_its_own() as while_, pytest.raises(CallError) as caught:
            await run.exec(f"setsid sleep {while_} & sleep {while_}", timeout=0.3)
        assert caught.value.code is Code.TIMEOUT
        assert alive_with(while_) == []

        async with run.open("exec.run", {"shell": MIDDLE}) as call:
            assert await call.receiver(1).receive() == b"before\n"
            await kill(hands)
            await stack.start_hands_process(socket, program=other)
            (stack.workspace / "go").touch()
            with pytest.raises(CallError) as caught:
                await call.wait()
        assert (caught.value.code, caught.value.started) == (Code.OUTCOME_UNKNOWN, Started.YES)
        assert (await run.exec(["id", "-u"])).stdout == b"65534\n"


@pytest.mark.optional
async def test_hands_may_be_pid_1_of_a_namespace_of_its_own(stack: Stack, socket: Path) -> None:
    if subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode != 0:  # noqa: ASYNC221
        pytest.skip("this kernel or container allows no namespaces")
    await stack.start_hands_process(socket, prefix=NAMESPACE)
    stack.start_sidecar_process(hands=str(socket))
    run = await stack.attach()
    ended = await run.exec("echo $PPID; (setsid sh -c 'sleep 0.05 &' &); exit 4")
    assert (ended.stdout, ended.status) == (b"1\n", 4)
    with sleep_of_its_own() as while_:
        remote = await run.start(f"setsid sleep {while_} & sleep {while_}")
        await until(lambda: len(alive_with(while_)) == 2)
        await remote.kill()
        assert alive_with(while_) == []
