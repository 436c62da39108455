"""Core is killed with -9 while programs run, with hands as a process and without: what goes on,
what is found again, and what is said of what cannot be known."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from core import MIDDLE, PRINTER, Core, check_lines
from procs import alive_with, sleep_of_its_own
from stack import Stack, open_stack, until

from sidecar.client import CallError, Code, Retry, Run, Started
from sidecar.protocol.streams import CONTENT
from sidecar.streaming import BytesSource

pytestmark = pytest.mark.slow  # real processes, killed and started again


@pytest.fixture
def socket() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hands-") as folder:
        yield Path(folder) / "socket"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path, sidecars=0) as stack:
        yield stack


async def attach(stack: Stack) -> Run:
    return await stack.attach()


# With hands as a process -------------------------------------------------------------------


async def test_a_call_whose_bytes_a_killed_core_took_along_is_not_run_by_the_next(
    stack: Stack, socket: Path
) -> None:
    core = Core(stack, socket)  # without hands it receives bytes, and accepts no call
    run = await attach(stack)
    async with run.open("files.write", {"path": "file"}) as call:
        sender = run.send(call, CONTENT, BytesSource(bytes(100_000)))
        await until(lambda: sender.is_finished)
        assert not call.accepted
        await core.kill()
        await stack.start_hands_process(socket)
        core.start()
        with anyio.fail_after(20), pytest.raises(CallError) as caught:
            await call.wait()
    error = caught.value
    assert (error.code, error.started, error.retry) == (
        Code.NOT_ACCEPTED,
        Started.NO,
        Retry.NEW_ID,
    )
    assert os.listdir(stack.workspace) == []
    written = await run.files.write("file", bytes(100_000))
    assert written.size == 100_000


async def test_output_that_no_disk_took_is_not_gone_on_with_at_another_place(
    stack: Stack, socket: Path
) -> None:
    """The core before had it in memory only. What the next one reads begins at 0 again."""
    await stack.start_hands_process(socket)
    core = Core(stack, socket)
    run = await attach(stack)
    later = "until [ -e go ]; do sleep 0.01; done; echo more than before"
    shell = f"echo before; {later}; until [ -e end ]; do sleep 0.01; done; exit 3"
    async with run.open("exec.run", {"shell": shell, "live": True}) as call:
        assert await call.receiver(1).receive() == b"before\n"
        await core.kill()
        (spool,) = stack.workspace.parent.glob("state-*/spools/*.1")
        os.truncate(spool, 0)  # as a full disk leaves it
        (stack.workspace / "go").touch()
        core.start()
        await printed(run, call.id, b"more than before\n")
        await core.kill_and_start()
        other = await stack.attach("other")
        async with other.resume(call.id, streams={1: 7}) as again:
            with pytest.raises(CallError) as caught:
                await again.receiver(1).receive()
            assert caught.value.code is Code.ANSWER_GONE
            (stack.workspace / "end").touch()
            value = await again.wait()
    assert (value["status"], value["before"]) == (3, "unknown")
    assert value["stdout"]["gaps"] == [{"at": 0, "bytes": None, "why": "killed"}]


async def printed(run: Run, id: bytes, wanted: bytes) -> None:
    """Until core has it; hands may not be back yet."""
    with anyio.fail_after(20):
        while True:
            with suppress(CallError):
                found = await run.call("exec.read", {"exec": id, "n": 1})
                if found["data"] == wanted:
                    return
            await anyio.sleep(0.01)


async def test_a_program_prints_on_while_core_is_killed_twice(stack: Stack, socket: Path) -> None:
    await stack.start_hands_process(socket)
    core = Core(stack, socket)
    run = await attach(stack)
    async with run.process(["python3", "-uc", PRINTER]) as program:
        got = bytearray()

        async def read() -> None:
            async for n, chunk in program.output():
                assert n == 1
                got.extend(chunk)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            for mark in (100_000, 250_000):
                with anyio.fail_after(20):
                    while len(got) < mark:  # noqa: ASYNC110
                        await anyio.sleep(0.005)
                await core.kill_and_start()
        with anyio.fail_after(20):
            ended = await program.wait()
    assert (ended.status, ended.signal) == (7, None)
    if not ended.gaps:
        check_lines(bytes(got))
    else:  # what is missing is missing there, and nowhere else
        lines = bytes(got).split(b"\n")
        whole = [int(line) for line in lines if len(line) == 8]
        assert whole == sorted(set(whole))
        assert len(ended.gaps[1]) <= 2
    [info] = [one for one in await run.processes() if one.id == program.remote.id]
    assert (info.state, info.status, info.owner) == ("ended", 7, "me")


async def test_the_deadline_and_the_grace_of_a_program_outlive_core(
    stack: Stack, socket: Path
) -> None:
    await stack.start_hands_process(socket)
    core = Core(stack, socket)
    run = await attach(stack)
    with sleep_of_its_own() as while_:
        began = anyio.current_time()
        async with run.process(
            f"trap '' TERM; echo ready; while :; do sleep {while_}; done", timeout=3.0, grace=0.2
        ) as program:
            assert await program.stdout.receive() == b"ready\n"
            await core.kill_and_start()
            with anyio.fail_after(15), pytest.raises(CallError) as caught:
                await program.wait()
        assert caught.value.code is Code.TIMEOUT
        assert caught.value.details["which"] == "total"
        assert anyio.current_time() - began < 8.0
        assert alive_with(while_) == []


async def test_a_program_that_was_started_is_found_with_all_that_it_printed(
    stack: Stack, socket: Path
) -> None:
    await stack.start_hands_process(socket)
    core = Core(stack, socket)
    run = await attach(stack)
    ended = await run.start("echo early; echo wrong >&2; exit 4", cwd=".")
    assert (await ended.wait()).status == 4
    remote = await run.start(MIDDLE, timeout=60.0)
    async with remote.attach() as program:
        assert await program.stdout.receive() == b"before\n"
        await core.kill_and_start()
        (stack.workspace / "go").touch()
        assert await program.stdout.receive() == b"after\n"
        with anyio.fail_after(10):
            assert (await program.wait()).status == 3
    assert (await remote.read(1)).data == b"before\nafter\n"
    again = await run.find(ended.id)
    assert (await again.wait()).status == 4
    assert [(await again.read(n)).data for n in (1, 2)] == [b"early\n", b"wrong\n"]
    listed = {one.id: one for one in await run.processes()}
    assert [listed[id].owner for id in (ended.id, remote.id)] == ["me", "me"]
    assert listed[ended.id].shell == "echo early; echo wrong >&2; exit 4"


async def test_what_ends_while_there_is_no_core_answers_its_call(
    stack: Stack, socket: Path
) -> None:
    await stack.start_hands_process(socket)
    core = Core(stack, socket)
    run = await attach(stack)
    ended = []

    async def call() -> None:
        ended.append(await run.exec(MIDDLE))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await until(lambda: bool(list((core_state(stack) / "spools").glob("*.1"))))
            await core.kill()
            (stack.workspace / "go").touch()
            await anyio.sleep(0.3)  # it ends with nobody there
            core.start()
    assert (ended[0].status, ended[0].stdout) == (3, b"before\nafter\n")


async def test_a_sidecar_that_is_told_to_stop_leaves_programs_to_the_next(
    stack: Stack, socket: Path
) -> None:
    await stack.start_hands_process(socket)
    core = Core(stack, socket)
    run = await attach(stack)
    ended = []

    async def call() -> None:
        ended.append(await run.exec(MIDDLE))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await until(lambda: bool(list((core_state(stack) / "spools").glob("*.1"))))
            core.child.terminate()
            assert await anyio.to_thread.run_sync(core.child.wait) == 0
            core.start()
            (stack.workspace / "go").touch()
    assert (ended[0].status, ended[0].stdout) == (3, b"before\nafter\n")


def core_state(stack: Stack) -> Path:
    return stack.workspace.parent / "state-0"


async def test_hands_that_was_restarted_with_core_has_nothing_to_tell(
    stack: Stack, socket: Path
) -> None:
    hands = await stack.start_hands_process(socket)
    core = Core(stack, socket)
    run = await attach(stack)
    with sleep_of_its_own() as while_:
        remote = await run.start(f"echo before; exec sleep {while_}")
        await until(lambda: len(alive_with(while_)) == 1)
        await core.kill()
        hands.kill()
        await anyio.to_thread.run_sync(hands.wait)
        await stack.start_hands_process(socket)
        core.start()
        with anyio.fail_after(15):
            [info] = await run.processes()
            while info.state != "running":
                await anyio.sleep(0.02)
                [info] = await run.processes()
        assert (await remote.read(1)).data == b"before\n"
        with anyio.fail_after(15), pytest.raises(CallError) as caught:
            await remote.kill(grace=0.5)
        assert caught.value.code is Code.OUTCOME_UNKNOWN
        assert alive_with(while_) == []


# In the process of core --------------------------------------------------------------------


async def test_without_hands_a_program_is_found_and_its_outcome_is_unknown(stack: Stack) -> None:
    core = Core(stack, None)
    run = await attach(stack)
    kept = await run.exec("echo kept; exit 5")
    with sleep_of_its_own() as while_:
        async with run.process(f"echo before; exec sleep {while_}") as program:
            assert await program.stdout.receive() == b"before\n"
            await core.kill_and_start()
            with anyio.fail_after(15), pytest.raises(CallError) as caught:
                await program.wait()
            assert (caught.value.code, caught.value.started) == (
                Code.OUTCOME_UNKNOWN,
                Started.YES,
            )
            assert await program.stdout.receive() == b""
        listed = {one.id: one for one in await run.processes()}
        info = listed.pop(program.remote.id)
        assert (info.state, info.status, info.sizes[1]) == ("running", None, 7)
        [other] = listed.values()
        assert (other.state, other.status) == ("ended", 5)
        assert kept.status == 5
        assert (await (await run.find(other.id)).read(1)).data == b"kept\n"
        found = await run.find(info.id)
        assert (await found.read(1)).data == b"before\n"
        with anyio.fail_after(15), pytest.raises(CallError) as caught:
            await found.kill(grace=0.5)
        assert caught.value.code is Code.OUTCOME_UNKNOWN
        assert alive_with(while_) == []
        [info] = [one for one in await run.processes() if one.id == info.id]
        assert (info.state, info.status, info.signal) == ("unknown", None, None)


async def test_without_hands_one_that_is_gone_is_unknown(stack: Stack) -> None:
    core = Core(stack, None)
    run = await attach(stack)
    remote = await run.start("echo before; sleep 0.2; exit 6")
    async with remote.attach() as program:
        assert await program.stdout.receive() == b"before\n"
        await core.kill()
        await anyio.sleep(0.4)
        core.start()
        with anyio.fail_after(15), pytest.raises(CallError) as caught:
            await program.wait()
    assert caught.value.code is Code.OUTCOME_UNKNOWN
    [info] = await run.processes()
    assert (info.state, info.status, info.sizes[1]) == ("unknown", None, 7)


# Files -------------------------------------------------------------------------------------


async def test_a_file_is_sent_on_from_where_its_reader_is(stack: Stack) -> None:
    core = Core(stack, None)
    run = await attach(stack)
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
                if before < 6_000_000 <= len(got) or before < 12_000_000 <= len(got):
                    await core.kill_and_start()
            assert await receiver.receive() == b""
    assert got == content


async def test_a_file_that_changed_meanwhile_is_not_sent_on(stack: Stack) -> None:
    core = Core(stack, None)
    run = await attach(stack)
    (stack.workspace / "large").write_bytes(bytes(24 << 20))
    async with run.open("files.read", {"path": "large"}, credit=1 << 20) as call:
        receiver = call.receiver(3)
        await receiver.receive()
        await core.kill()
        (stack.workspace / "large").write_bytes(b"x" * (24 << 20))
        core.start()
        with anyio.fail_after(30), pytest.raises(CallError) as caught:
            while await receiver.receive():
                pass
    assert caught.value.code is Code.SOURCE_CHANGED


# Input and shells --------------------------------------------------------------------------


async def test_input_that_was_under_way_is_broken_off_and_more_can_be_sent(
    stack: Stack, socket: Path
) -> None:
    await stack.start_hands_process(socket)
    core = Core(stack, socket)
    run = await attach(stack)
    async with run.process("read a; echo $a; read b; echo $b; exit 3", stdin=True) as program:
        await program.write(b"one\n")
        assert await program.stdout.receive() == b"one\n"
        await core.kill_and_start()
        with anyio.fail_after(15):
            with pytest.raises(anyio.BrokenResourceError):
                while True:
                    await program.write(b"twice?\n")
                    await anyio.sleep(0.02)
            assert [one.has_input for one in await run.processes()] == [True]
            await program.remote.input(b"two\n")
            assert await program.stdout.receive() == b"two\n"
            assert (await program.wait()).status == 3


async def test_a_shell_goes_on_with_its_variables_and_its_output(
    stack: Stack, socket: Path
) -> None:
    await stack.start_hands_process(socket)
    core = Core(stack, socket)
    run = await attach(stack)
    async with run.shell() as shell:
        assert (await shell.run("kept=1; cd /usr; echo before")).output == b"before\n"
        await core.kill_and_start()
        with anyio.fail_after(20):
            ran = await shell.run("echo $kept; pwd")
        assert ran.output == b"1\n/usr\n"
