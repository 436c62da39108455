"""Programs that outlive the call that started them: followed, fed, resized, signalled, kept."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from procs import alive_with, sleep_of_its_own
from stack import RUN, Stack, open_stack, until

from sidecar.client import CallError, Code, Controller, Run, Started, Terminal
from sidecar.client.processes import RemoteProcess
from sidecar.hands.interface import Exit
from sidecar.protocol.names import Scope
from sidecar.streaming.pushing import PushSource

MB, MIB = 1_000_000, 1 << 20


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path_factory.mktemp("start")) as stack:
        yield stack


@pytest.fixture(scope="module")
async def run(stack: Stack) -> Run:
    return await stack.attach()


@pytest.fixture(scope="module")
async def other(stack: Stack) -> Run:
    """Another controller."""
    return await stack.attach("other")


async def entry_of(run: Run, remote: RemoteProcess) -> dict[str, Any]:
    """What `exec.list` says of it."""
    listed = (await run.call("exec.list"))["processes"]
    found: dict[str, Any]
    [found] = [entry for entry in listed if entry["exec"] == remote.id]
    return found


async def printed(remote: RemoteProcess, size: int, n: int = 1) -> None:
    """Wait until it has printed `size` bytes."""
    with anyio.fail_after(10):
        while (await remote.read(n)).size < size:  # noqa: ASYNC110
            await anyio.sleep(0.005)


async def everything(remote: RemoteProcess, n: int = 1) -> bytes:
    """What can be read of an output now, piece by piece."""
    data = b""
    while len(data) < (piece := await remote.read(n, len(data))).size:
        data += piece.data
    return data


# Life --------------------------------------------------------------------------------------


async def test_a_program_outlives_its_call_and_the_controller_that_started_it(
    stack: Stack, run: Run
) -> None:
    async with Controller.connect(stack.url("passing"), controller="passing") as controller:
        passing = await controller.attach(RUN)
        remote = await passing.start("echo here; read line; echo $line", stdin=True)
        await passing.detach()
    found = RemoteProcess(run, remote.id)
    assert await found.input(b"there\n") == 6
    assert (await found.wait()).status == 0
    assert await everything(found) == b"here\nthere\n"
    assert (await entry_of(run, found))["owner"] == "passing"


async def test_the_exec_id_is_the_id_of_the_call_and_so_of_exec_run_too(run: Run) -> None:
    async with run.process("echo $SIDECAR_EXEC_ID; read line", stdin=True) as program:
        remote = RemoteProcess(run, program.call_id)
        await printed(remote, 33)
        assert await everything(remote) == program.call_id.hex().encode() + b"\n"
        await remote.input(b"go on\n", end=True)
        assert (await program.wait()).status == 0
    assert (await remote.wait()).status == 0


async def test_an_end_is_told_to_everybody_who_waits_and_whoever_comes_later(run: Run) -> None:
    remote = await run.start("read line; exit 3", stdin=True)
    statuses: list[int | None] = []

    async def wait() -> None:
        statuses.append((await remote.wait()).status)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(wait)
        await remote.input(b"\n")
    await wait()
    assert statuses == [3, 3, 3, 3]


# Output ------------------------------------------------------------------------------------


async def test_any_number_of_readers_read_from_any_offset_live_and_after_the_end(
    run: Run, other: Run
) -> None:
    size = 3 * MB
    remote = await run.start(
        f"head -c {size} /dev/zero | tr '\\0' a; read line; echo end", stdin=True
    )
    got: dict[int, bytes] = {}

    async def read(reader: Run, offset: int) -> None:
        handle = RemoteProcess(reader, remote.id)
        async with handle.attach(stdout=offset, stderr=None) as program:
            got[offset] = b"".join([data async for _, data in program.output()])
            assert (await program.wait()).status == 0

    await printed(remote, size - 1)
    async with anyio.create_task_group() as group:
        for offset in (0, 1, 1000, size - 1):
            group.start_soon(read, other if offset % 2 else run, offset)
        await printed(remote, size)
        await remote.input(b"\n")
    whole = b"a" * size + b"end\n"
    assert got == {offset: whole[offset:] for offset in got}
    await read(other, 7)
    assert got[7] == whole[7:]


async def test_without_following_a_reader_gets_what_was_printed_until_now(run: Run) -> None:
    remote = await run.start("echo first; read line; echo second", stdin=True)
    await printed(remote, 6)
    async with remote.attach(follow=False) as program:
        assert [chunk async for chunk in program.output()] == [(1, b"first\n")]
    async with run.open("exec.attach", {"exec": remote.id, "follow": False}) as call:
        value = await call.wait()
    assert value["state"] == "running"
    assert value["stdout"] == {"size": 6, "dropped": 0}
    await remote.kill()


async def test_a_reader_who_leaves_holds_no_call_and_ends_no_program(
    run: Run, stack: Stack
) -> None:
    remote = await run.start(["sleep", "60"])
    before = stack.sidecar.dispatcher.open_calls
    async with remote.attach() as program:
        await until(lambda: stack.sidecar.dispatcher.open_calls > before)
        program.cancel()
        with pytest.raises(CallError, match="cancelled"):
            await program.wait()
    await until(lambda: not stack.sidecar.dispatcher._open)
    entry = await entry_of(run, remote)
    assert (entry["state"], entry["stdout"]["readers"]) == ("running", 0)
    await remote.kill(grace=0)


async def test_head_and_tail_are_kept_and_what_was_dropped_is_told_in_fields(run: Run) -> None:
    remote = await run.start("head -c 20000000 /dev/zero; echo end")
    await remote.wait()
    assert (await entry_of(run, remote))["stdout"]["dropped"] == 20_000_004 - 16 * MIB
    piece = await remote.read(1, 5 * MIB)
    assert piece.offset == 20_000_004 - 12 * MIB
    assert (piece.size, piece.dropped, piece.ended) == (20_000_004, 20_000_004 - 16 * MIB, False)
    async with remote.attach() as program:
        data = b"".join([data async for _, data in program.output()])
        assert (await program.wait()).dropped == {1: 20_000_004 - 16 * MIB}
    assert data == bytes(16 * MIB - 4) + b"end\n"
    assert program.stdout.stream.skipped == [(4 * MIB, 20_000_004 - 12 * MIB)]


async def test_a_program_that_holds_waits_for_its_reader_and_loses_nothing(run: Run) -> None:
    size = 40 * MB
    code = f"yes 0123456789 | head -c {size}"
    remote = await run.start(code, on_full="hold")
    await printed(remote, 16 * MIB)
    await anyio.sleep(0.05)
    assert (await remote.read(1)).size == 16 * MIB  # full, and nobody there
    digest = hashlib.sha256()
    async with remote.attach() as program:
        async for _, data in program.output():
            digest.update(data)
        assert (await program.wait()).dropped == {}
    line = b"0123456789\n"
    assert digest.digest() == hashlib.sha256((line * (size // 11 + 1))[:size]).digest()


async def test_only_the_latest_reader_of_its_owner_holds_the_program(run: Run, other: Run) -> None:
    remote = await run.start("read line; head -c 50000000 /dev/zero; read line", stdin=True)
    async with RemoteProcess(other, remote.id).attach(), remote.attach():
        async with remote.attach() as latest:  # the two before it read nothing
            await remote.input(b"\n")
            got = 0
            async for _, data in latest.output():
                got += len(data)
                if got >= 50 * MB:
                    break
            assert latest.stdout.stream.skipped == []
    await remote.kill(grace=0)


async def test_a_pace_maker_who_falls_silent_is_waited_for_and_then_no_longer(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path, hold_time=0.3) as stack:
        run = await stack.attach()
        remote = await run.start("head -c 30000000 /dev/zero")
        async with remote.attach():  # and reads nothing
            assert (await remote.wait()).status == 0
        assert (await remote.read(1)).size == 30 * MB


async def test_a_terminal_has_one_output_and_an_input_without_an_end(run: Run) -> None:
    remote = await run.start(
        ["python3", "-c", "import os; print(os.isatty(0), os.get_terminal_size()); input()"],
        terminal={"rows": 30, "cols": 100},  # type: ignore[arg-type]  # as it goes out
        stdin=True,
    )
    await printed(remote, 1)
    for call, which in (("exec.read", None), ("exec.input", "terminal")):
        arguments = {"n": 2} if call == "exec.read" else {"end": True}
        with pytest.raises(CallError) as caught:
            await run.call(call, {"exec": remote.id, **arguments})
        assert (caught.value.code, caught.value.details.get("which")) == (Code.INVALID, which)
    await remote.input(b"\x04")
    assert (await remote.wait()).status == 1  # EOFError
    assert b"True os.terminal_size(columns=100, lines=30)" in await everything(remote)


# Children ----------------------------------------------------------------------------------


async def test_what_a_daemon_prints_later_is_kept_and_the_daemon_lives(run: Run) -> None:
    with sleep_of_its_own() as word:
        code = f"(for i in 1 2 3; do sleep 0.1; echo later; done; sleep {word}) & echo at once"
        remote = await run.start(code)
        async with remote.attach() as program:
            assert [data async for _, data in program.output()][0] == b"at once\n"
            assert (await program.wait()).duration < 1
        await printed(remote, 8 + 3 * 6)
        assert (await everything(remote)).endswith(b"later\nlater\nlater\n")
        async with remote.attach(stdout=8) as program:
            assert b"".join([d async for _, d in program.output()]) == b"later\n" * 3
        await until(lambda: bool(alive_with(word)))
        entry = await entry_of(run, remote)
        assert (entry["state"], entry["stdout"]["held"]) == ("ended", True)
        assert "sleep" in [one["name"] for one in entry["survivors"]]
        await remote.kill(grace=0.5)
        await until(lambda: not alive_with(word))
        assert (await entry_of(run, remote))["survivors"] == []


async def test_daemons_end_with_the_program_if_told_so(run: Run) -> None:
    with sleep_of_its_own() as word:
        remote = await run.start(f"setsid sleep {word} & sleep 0.1", daemons="end", grace=0.5)
        assert (await remote.wait()).status == 0
        await until(lambda: not alive_with(word))


async def test_a_kill_reaches_what_left_the_session(run: Run) -> None:
    with sleep_of_its_own() as word:
        remote = await run.start(
            f"setsid sh -c 'setsid sleep {word} & sleep {word}' & sleep {word}"
        )
        await until(lambda: len(alive_with(word)) >= 3)
        assert (await remote.kill(grace=0.5)).signal in (signal.SIGTERM, signal.SIGKILL)
        assert alive_with(word) == []


# Input -------------------------------------------------------------------------------------


async def test_several_writers_interleave_by_chunk(run: Run, other: Run) -> None:
    remote = await run.start(["cat"], stdin=True)
    lines = {run: b"a" * 9_999 + b"\n", other: b"b" * 9_999 + b"\n"}

    async def write(writer: Run) -> None:
        handle = RemoteProcess(writer, remote.id)
        for _ in range(30):
            assert await handle.input(lines[writer]) == 10_000

    async with anyio.create_task_group() as group:
        group.start_soon(write, run)
        group.start_soon(write, other)
    await remote.input(b"", end=True)
    await remote.wait()
    found = (await everything(remote)).splitlines(keepends=True)
    assert sorted(found) == sorted([*lines.values()] * 30)


async def test_input_by_a_stream_ends_with_it_and_not_with_a_writer_who_left(run: Run) -> None:
    remote = await run.start(["cat"], stdin=True)
    async with remote.attach(input=True, follow=True) as program:
        await program.write(b"one ")
        await printed(remote, 4)
    assert (await entry_of(run, remote))["input"]
    async with remote.attach(input=True, stdout=4) as program:
        await program.write(b"two")
        program.close_stdin()
        assert [chunk async for chunk in program.output()] == [(1, b"two")]
        assert (await program.wait()).status == 0


async def test_a_stream_of_input_that_is_broken_off_is_no_end_of_input(run: Run) -> None:
    arguments = {"argv": ["cat"], "stdin": "stream"}
    async with run.open("exec.run", arguments) as call:
        source = PushSource()
        sender = run.send(call, 0, source)
        await source.push(b"never all of it")
        remote = RemoteProcess(run, call.id)
        await printed(remote, 15)
        sender.fail(CallError(Code.CANCELLED, "the writer has left"))
        await remote.input(b", and the rest")
        await printed(remote, 29)
        await remote.input(b"", end=True)
        assert (await call.wait())["status"] == 0
    assert await everything(remote) == b"never all of it, and the rest"


async def test_ten_megabytes_go_through_a_program_that_was_attached_to(run: Run) -> None:
    remote = await run.start(["sha256sum"], stdin=True)
    chunk = os.urandom(MB)
    async with remote.attach(input=True) as program:
        for _ in range(10):
            await program.write(chunk)
        program.close_stdin()
        output = b"".join([data async for _, data in program.output()])
    assert output.split()[0].decode() == hashlib.sha256(chunk * 10).hexdigest()


@pytest.mark.parametrize("terminal", [None, Terminal()])
async def test_who_comes_to_write_after_the_end_gets_the_output_and_the_end(
    terminal: Terminal | None, run: Run
) -> None:
    """A short program may end between its start and the first attachment to it."""
    remote = await run.start("echo out; exit 3", stdin=True, terminal=terminal)
    with pytest.raises(CallError):
        while True:  # until the end was seen
            await remote.input(b"")
    async with remote.attach(input=True) as program:
        await program.write(b"nobody reads this")
        output = b"".join([data async for _, data in program.output()])
        assert (await program.wait()).status == 3
    assert output.split() == [b"out"]


async def test_a_writer_who_waits_learns_of_the_end_of_the_program(run: Run) -> None:
    remote = await run.start(["sleep", "0.2"], stdin=True)
    piece = {"exec": remote.id, "data": bytes(60_000)}
    assert await run.call("exec.input", piece) == {"taken": 60_000}
    assert 0 < (await run.call("exec.input", piece))["taken"] < 60_000  # what a pipe takes
    with pytest.raises(CallError) as caught:
        await remote.input(b"x")
    assert caught.value.code is Code.INVALID
    # The kernel closes its end of the pipe before anybody can learn that it has ended.
    assert caught.value.details["which"] in ("ended", "closed")


# Times -------------------------------------------------------------------------------------


@pytest.mark.parametrize("option, which", [("timeout", "total"), ("idle_timeout", "idle")])
async def test_a_timeout_keeps_the_output_and_says_which_it_was(
    run: Run, option: str, which: str
) -> None:
    remote = await run.start("echo partial; exec sleep 60", **{option: 0.2})  # type: ignore[arg-type]
    with pytest.raises(CallError) as caught:
        await remote.wait()
    error = caught.value
    assert (error.code, error.started, error.details["which"]) == (Code.TIMEOUT, Started.YES, which)
    assert (error.details["signal"], error.details["stdout"]["size"]) == (signal.SIGTERM, 8)
    assert await everything(remote) == b"partial\n"
    assert (await entry_of(run, remote))["which"] == which


async def test_bytes_in_and_out_put_the_idle_timeout_off(run: Run) -> None:
    remote = await run.start(
        "for i in 1 2 3 4 5 6; do sleep 0.1; echo $i; done; cat > /dev/null",
        stdin=True,
        idle_timeout=0.4,
    )
    for _ in range(12):
        await anyio.sleep(0.1)
        await remote.input(b"x")
    await remote.input(b"", end=True)
    assert (await remote.wait()).status == 0


# Terminals ---------------------------------------------------------------------------------


async def test_a_resize_is_an_event_with_the_offset_of_the_output(run: Run, stack: Stack) -> None:
    code = "trap 'stty size' WINCH; echo ready; while read line; do :; done"
    terminal = {"rows": 24, "cols": 80}
    remote = await run.start(code, terminal=terminal, stdin=True)  # type: ignore[arg-type]
    await printed(remote, len(b"ready\r\n"))
    after = stack.sidecar.journal.last
    assert await remote.resize(50, 132) == len(b"ready\r\n")
    await remote.input(b"\n")
    await printed(remote, len(b"ready\r\n50 132\r\n"))
    second = await remote.resize(10, 20)
    entry = await entry_of(run, remote)
    assert entry["terminal"] == {
        "rows": 10,
        "cols": 20,
        "resizes": [[7, 50, 132], [second, 10, 20]],
    }
    seen = []
    async with run.events() as events:
        async for event in events:
            if event.cursor.seq > after and getattr(event, "name", "") == "exec.resized":
                seen.append(event.data)  # type: ignore[union-attr]
            if event.cursor.seq == stack.sidecar.journal.last:
                break
    assert [(one["rows"], one["cols"], one["offset"]) for one in seen] == [
        (50, 132, 7),
        (10, 20, second),
    ]
    await remote.kill(grace=0)


@pytest.mark.parametrize("name", ["USR1", "SIGUSR1", "usr1", int(signal.SIGUSR1), "10"])
async def test_signals_go_by_name_or_number(name: str | int, run: Run) -> None:
    remote = await run.start(
        "trap 'echo got it; exit 0' USR1; echo ready; while :; do sleep 0.01; done"
    )
    await printed(remote, 6)
    await remote.signal(name, to="program")
    assert (await remote.wait()).status == 0
    assert await everything(remote) == b"ready\ngot it\n"


# Who may what ------------------------------------------------------------------------------


async def test_an_end_that_nobody_observed_is_told_with_what_was_printed(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        hands = stack.sidecar.means.hands

        async def wait(key: bytes) -> Exit:
            await anyio.sleep(0.1)
            raise CallError(Code.OUTCOME_UNKNOWN, "hands was restarted")

        hands.wait = wait  # type: ignore[method-assign]
        with pytest.raises(CallError) as caught:
            await run.exec("echo printed; exec sleep 60")
        error = caught.value
        assert (error.code, error.started) == (Code.OUTCOME_UNKNOWN, Started.YES)
        assert error.details["output"] == {1: b"printed\n", 2: b""}
        [entry] = (await run.call("exec.list"))["processes"]
        assert (entry["state"], entry["status"], entry["signal"]) == ("unknown", None, None)
        assert (await run.call("exec.read", {"exec": entry["exec"]}))["data"] == b"printed\n"


async def test_who_only_watches_reads_but_neither_writes_nor_sets_the_pace(
    run: Run, stack: Stack
) -> None:
    remote = await run.start("read line; head -c 30000000 /dev/zero", stdin=True)
    url = stack.url("me", scope=Scope.WATCH)  # the name of the owner, but not its rights
    async with Controller.connect(url, controller="me", watch=True) as controller:
        watcher = RemoteProcess(await controller.attach(RUN), remote.id)
        with pytest.raises(CallError) as caught:
            async with watcher.attach(input=True) as program:
                await program.wait()
        assert caught.value.code is Code.FORBIDDEN
        with pytest.raises(CallError) as caught:
            await watcher.input(b"x")
        assert caught.value.code is Code.FORBIDDEN
        async with watcher.attach():
            await remote.input(b"\n")
            with anyio.fail_after(5):
                assert (await remote.wait()).status == 0  # it did not wait for the watcher


# Keeping -----------------------------------------------------------------------------------


async def test_the_list_is_bounded_and_says_what_it_leaves_out(run: Run) -> None:
    remote = await run.start(["true", "\u20ac" * 1000, "second"], cwd=".")
    await remote.wait()
    entry = await entry_of(run, remote)
    assert entry["argv"] == ["true", "\u20ac" * 339]
    assert entry["cut"] == 3 * 661 + len("second")
    assert (entry["cwd"], entry["status"], entry["adopted"]) == (".", 0, False)
    assert entry["began_ms"] <= entry["ended_ms"]
    assert entry["survivors"] == []
    shell = await run.start("true " + "x" * 2000)
    await shell.wait()
    assert len((await entry_of(run, shell))["shell"]) == 1024


@pytest.mark.slow
async def test_ended_programs_are_kept_and_those_of_exec_run_go_first(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        started = await run.start("echo kept")
        await started.wait()
        first = run.open("exec.run", {"argv": ["true"]})
        async with first as call:
            await call.wait()
        for _ in range(170):
            await run.exec(["true"])
        await until(lambda: len(stack.sidecar.means.processes.all()) <= 160)
        assert await everything(started) == b"kept\n"
        with pytest.raises(CallError) as caught:
            await RemoteProcess(run, call.id).wait()
        assert caught.value.code is Code.NOT_FOUND
        assert "ended and was forgotten" in caught.value.message


async def test_the_budget_of_all_spools_evicts_the_oldest_that_ended(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        stack.sidecar.means.processes.spools.limit = 20 * MIB
        run = await stack.attach()
        programs = []
        for _ in range(4):
            programs.append(await run.start("head -c 8000000 /dev/zero"))
            await programs[-1].wait()
        states = [entry["exec"] for entry in (await run.call("exec.list"))["processes"]]
        assert states == [program.id for program in programs[2:]]
        assert (await programs[3].read(1)).dropped == 0
