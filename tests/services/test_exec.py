"""Programs through the whole stack: output, input, ends, and nothing left behind."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from stack import Stack, open_stack, until

from sidecar.client import CallError, Code, Completed, ProgramFailed, Run, Started
from sidecar.processes.process import Process
from sidecar.processes.record import Ended

MB = 1_000_000


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path_factory.mktemp("exec")) as stack:
        yield stack


@pytest.fixture(scope="module")
async def run(stack: Stack) -> Run:
    return await stack.attach()


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Output ----------------------------------------------------------------------------------


async def test_output_is_binary_and_arrives_byte_for_byte(run: Run) -> None:
    printed = await run.exec([sys.executable, "-c", "import os; os.write(1, bytes(range(256)))"])
    assert printed.stdout == bytes(range(256))


async def test_300_000_characters_of_three_bytes_arrive_unbroken(run: Run) -> None:
    code = "import sys; sys.stdout.buffer.write('\u20ac'.encode() * 300_000)"
    printed = await run.exec([sys.executable, "-c", code])
    assert printed.stdout.decode() == "\u20ac" * 300_000


async def test_ten_megabytes_without_a_newline_arrive(run: Run) -> None:
    printed = await run.exec("head -c 10000000 /dev/zero | tr '\\0' x")
    assert printed.stdout == b"x" * 10 * MB


async def test_both_outputs_arrive_apart_from_each_other(run: Run) -> None:
    printed = await run.exec("head -c 300000 /dev/zero; head -c 200000 /dev/zero | tr '\\0' e >&2")
    assert (printed.stdout, printed.stderr) == (bytes(300_000), b"e" * 200_000)


async def test_output_is_seen_while_the_program_runs(run: Run) -> None:
    async with run.process("echo first; read line; echo $line", stdin=True) as program:
        output = program.output()
        assert await anext(output) == (1, b"first\n")
        await program.write(b"second\n")
        assert await anext(output) == (1, b"second\n")
        assert (await program.wait()).status == 0


@pytest.mark.parametrize("size", [0, 1, 30_000, 31_743, 31_744, 31_745, 64_000, 65_536, 70_000])
async def test_output_of_any_size_around_the_limits_of_a_result(size: int, run: Run) -> None:
    printed = await run.exec(["head", "-c", str(size), "/dev/zero"])
    assert (printed.status, printed.stdout) == (0, bytes(size))


@pytest.mark.slow
async def test_hundred_megabytes_in_and_out_take_constant_memory(run: Run) -> None:
    def resident() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    digest = hashlib.sha256()
    chunk = os.urandom(MB)
    async with run.process(["cat"], stdin=True) as program:

        async def feed() -> None:
            for _ in range(100):
                await program.write(chunk)
            program.close_stdin()

        before = resident()
        async with anyio.create_task_group() as group:
            group.start_soon(feed)
            async for _, data in program.output():
                digest.update(data)
        assert (await program.wait()).dropped == {}
        # Both ends, the hub and the buffers of three sockets are in this one process.
        assert resident() - before < 64 * MB
    assert digest.digest() == hashlib.sha256(chunk * 100).digest()


# Background children ----------------------------------------------------------------------


async def test_a_background_child_that_holds_the_pipe_delays_the_end_a_tenth_of_a_second(
    run: Run,
) -> None:
    printed = await run.exec("sleep 5 & echo $!")
    assert printed.duration < 1.0
    pid = int(printed.stdout)
    assert is_alive(pid)
    os.kill(pid, signal.SIGKILL)


async def test_a_background_child_that_prints_for_ever_holds_up_nothing_and_lives(
    run: Run,
) -> None:
    printed = await run.exec("yes & echo $! >&2")
    pid = int(printed.stderr)
    try:
        assert printed.duration < 2.0
        assert await run.ping() < 1.0
        await anyio.sleep(0.1)
        assert is_alive(pid)  # not ended by SIGPIPE
    finally:
        os.kill(pid, signal.SIGKILL)


async def test_what_a_child_prints_right_after_the_end_is_still_taken(run: Run) -> None:
    printed = await run.exec("(sleep 0.03; echo late) & echo early")
    assert printed.stdout == b"early\nlate\n"


async def test_a_program_that_is_forgotten_as_it_ends_is_answered_in_full(
    run: Run, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it has ended it is the first to go, and its call has not been answered yet."""
    supervise = Process.supervise

    async def supervise_and_forget(self: Process) -> Ended:
        ended = await supervise(self)
        make_room = stack.sidecar.means.processes.spools.make_room
        asyncio.get_running_loop().call_soon(make_room, 1 << 40)
        return ended

    monkeypatch.setattr(Process, "supervise", supervise_and_forget)
    arguments = {"shell": "echo all", "stdin": "stream", "live": False}
    answer = await run.call("exec.run", arguments)
    assert (answer["status"], answer["stdout"]["data"]) == (0, b"all\n")


# Input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 5 * MB])
async def test_input_arrives_byte_for_byte(size: int, run: Run) -> None:
    data = os.urandom(size)
    printed = await run.exec(["sha256sum"], input=data)
    assert printed.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_input_that_is_never_read_does_not_keep_the_call(run: Run) -> None:
    assert (await run.exec(["true"], input=os.urandom(5 * MB))).status == 0
    assert (await run.exec("sleep 0.05; exit 3", input=os.urandom(60_000))).status == 3


async def test_input_that_is_closed_early_tells_the_writer(run: Run) -> None:
    async with run.process("head -c 10; exec <&-; sleep 600", stdin=True) as program:
        with anyio.fail_after(5):
            with pytest.raises(anyio.BrokenResourceError):
                while True:
                    await program.write(os.urandom(100_000))


async def test_without_input_a_program_reads_nothing(run: Run) -> None:
    assert (await run.exec(["cat"])).stdout == b""


# Ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 2, 126, 127, 128, 255])
async def test_the_status_is_the_one_that_was_observed(status: int, run: Run) -> None:
    ended = await run.exec(["sh", "-c", f"exit {status}"])
    assert (ended.status, ended.signal, ended.returncode) == (status, None, status)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
async def test_a_signal_is_told_apart_from_a_status(number: signal.Signals, run: Run) -> None:
    ended = await run.exec(["sh", "-c", f"kill -{number.value} $$"])
    assert (ended.status, ended.signal) == (None, number)
    assert ended.returncode == 128 + number
    with pytest.raises(ProgramFailed):
        ended.check()


async def test_a_timeout_kills_and_leaves_the_output_so_far(run: Run) -> None:
    with pytest.raises(CallError) as caught:
        await run.exec("echo so far; exec sleep 600", timeout=0.2)
    error = caught.value
    assert (error.code, error.started) == (Code.TIMEOUT, Started.YES)
    assert error.details["which"] == "total"
    assert error.details["output"] == {1: b"so far\n", 2: b""}
    assert not is_alive(error.details["pid"])


async def test_a_timeout_leaves_large_output_too(run: Run) -> None:
    with pytest.raises(CallError) as caught:
        await run.exec("head -c 3000000 /dev/zero; exec sleep 600", timeout=0.5)
    assert caught.value.details["output"] == {1: bytes(3 * MB), 2: b""}


async def test_a_program_that_ignores_term_is_killed_after_the_grace(run: Run) -> None:
    arguments = {"shell": "trap '' TERM; echo ready; while :; do sleep 0.01; done"}
    with pytest.raises(CallError) as caught:
        await run.call("exec.run", {**arguments, "timeout": 0.2, "grace": 0.2})
    assert caught.value.details["signal"] == signal.SIGKILL


async def test_a_cancel_kills_the_whole_group(run: Run) -> None:
    async with run.process("sleep 600 & echo $! $$; wait") as program:
        _, line = await anext(program.output())
        pids = list(map(int, line.split()))
        assert all(map(is_alive, pids))
        program.cancel()
        with pytest.raises(CallError) as caught:
            await program.wait()
    assert (caught.value.code, caught.value.started) == (Code.CANCELLED, Started.YES)
    assert not any(map(is_alive, pids))


async def test_leaving_the_block_kills_the_program(run: Run) -> None:
    async with run.process("echo $$; exec sleep 600") as program:
        _, line = await anext(program.output())
    await until(lambda: not is_alive(int(line)))


async def test_a_deadline_ends_the_call(run: Run) -> None:
    with pytest.raises(CallError) as caught:
        await run.call("exec.run", {"shell": "exec sleep 600", "grace": 0.1}, deadline=0.2)
    assert caught.value.code is Code.TIMEOUT
    assert caught.value.details["which"] == "deadline"


async def test_every_start_has_its_end_in_the_journal(run: Run, stack: Stack) -> None:
    async with run.process("echo $$; exec sleep 600") as program:
        _, line = await anext(program.output())
    await until(lambda: stack.sidecar.dispatcher.open_calls == 0)
    names = []
    async with run.events() as events:
        async for event in events:
            if getattr(event, "data", None) and event.data.get("pid") == int(line):  # type: ignore[union-attr]
                names.append(event.name)  # type: ignore[union-attr]
            if event.cursor.seq == stack.sidecar.journal.last:
                break
    assert names == ["exec.started", "exec.ended"]


# The world it starts in --------------------------------------------------------------------


async def test_a_program_starts_in_the_workspace_with_a_clean_environment(
    run: Run, stack: Stack
) -> None:
    (stack.workspace / "inner").mkdir(exist_ok=True)
    printed = await run.exec("pwd; echo $WHO; env | grep -o ^SIDECAR_.*=", env={"WHO": "me"})
    seen = printed.stdout.decode().split()
    assert seen == [str(stack.workspace), "me", "SIDECAR_EXEC_ID="]
    printed = await run.exec(["pwd"], cwd="inner")
    assert printed.stdout.decode().strip() == str(stack.workspace / "inner")


async def test_hundred_at_once_leave_no_descriptor_no_zombie_and_no_thread(tmp_path: Path) -> None:
    ended: list[Completed] = []

    def children() -> set[str]:
        return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async with open_stack(tmp_path) as stack:
        run = await stack.attach()

        async def one(number: int) -> None:
            ended.append(await run.exec(f"echo {number}; exit {number}"))

        await run.exec(["true"])
        await until(lambda: not stack.sidecar.dispatcher._open)
        before, threads = (descriptors(), children()), threading.active_count()
        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(one, number)
        assert sorted(x.status or 0 for x in ended) == list(range(100))
        assert all(int(x.stdout) == x.status for x in ended)
        await until(lambda: not stack.sidecar.dispatcher._open)
        # Not more than before; less, where something of another test was still closing then.
        await until(lambda: descriptors() <= before[0] and children() <= before[1])
        assert threading.active_count() <= threads + 8  # the pool of workers, which stays
        printed = sum(len(x.stdout) for x in ended)
        assert stack.sidecar.means.processes.spools.used == printed
