"""Shell sessions through the whole stack. What shells make of commands: test_shellsession.py."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from procs import alive_with, sleep_of_its_own
from stack import Stack, open_stack, until

from sidecar.client import CallError, Code, Run, ShellSession, Started, Terminal
from sidecar.client.program import Limits
from sidecar.clock import SystemClock
from sidecar.identity import new_id
from sidecar.processes import shellsession as server
from sidecar.processes.shellscript import Ready


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path_factory.mktemp("shell")) as stack:
        (stack.workspace / "src").mkdir()
        yield stack


@pytest.fixture(scope="module")
async def run(stack: Stack) -> Run:
    return await stack.attach()


@pytest.fixture
async def shell(run: Run) -> AsyncIterator[ShellSession]:
    async with run.shell() as shell:
        yield shell


# The example ----------------------------------------------------------------------------------


async def test_directory_and_environment_live_from_command_to_command(
    run: Run, stack: Stack
) -> None:
    async with run.shell(cwd="src", env={"GIVEN": "1"}, unset=["LANG"]) as shell:
        first = await shell.run("pwd; echo $GIVEN${LANG-unset}; export MADE=2; cd ..")
        assert first.output == f"{stack.workspace}/src\n1unset\n".encode()
        assert (first.status, first.cwd, first.ok) == (0, str(stack.workspace), True)
        second = await shell.run("echo $MADE; (exit 4)")
        assert (second.output, second.status, second.ended) == (b"2\n", 4, False)
        assert 0 < second.duration < 10


async def test_nobody_else_speaks_to_a_shell_that_is_being_started(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who named the call knows the id: two who listen at once would take each other's words."""
    greet = server.ShellSession.greet
    begun, may_go_on = anyio.Event(), anyio.Event()

    async def greet_later(self: server.ShellSession, opening: bytes = b"") -> Ready:
        if opening:
            begun.set()
            await may_go_on.wait()
        return await greet(self, opening)

    monkeypatch.setattr(server.ShellSession, "greet", greet_later)
    id = new_id(SystemClock())

    async def start() -> None:
        await run.call("shell.start", {}, id=id)

    async with anyio.create_task_group() as group:
        group.start_soon(start)
        await begun.wait()
        with pytest.raises(CallError) as caught:
            await run.call("shell.run", {"exec": id, "command": "echo"})
        assert (caught.value.code, caught.value.started) == (Code.CONFLICT, Started.NO)
        may_go_on.set()
    assert (await run.call("shell.run", {"exec": id, "command": "exit 3"}))["status"] == 3


async def test_a_terminal_of_some_size_and_limits(run: Run) -> None:
    terminal = Terminal(rows=33, cols=111, term="vt100")
    async with run.shell(terminal=terminal, limits=Limits(files=99)) as shell:
        assert (
            await shell.run("stty size; echo $TERM; ulimit -n")
        ).output == b"33 111\nvt100\n99\n"
        await shell.process.resize(44, 222)
        assert (await shell.run("stty size")).output == b"44 222\n"


async def test_what_a_result_cannot_hold_comes_as_a_stream(shell: ShellSession) -> None:
    for size in (50_000, 60_000, 70_000, 3_000_000):
        done = await shell.run(f"head -c {size} /dev/zero; cd /usr; (exit 2)")
        assert (len(done.output), done.dropped) == (size, 0)
        assert (done.status, done.cwd) == (2, "/usr")


async def test_output_is_seen_while_the_command_runs(shell: ShellSession) -> None:
    seen: list[bytes] = []

    async def answer() -> None:
        await until(lambda: b"".join(seen) == b"name? ")
        await shell.process.input(b"Ada\n")

    async with anyio.create_task_group() as group:
        group.start_soon(answer)
        done = await shell.run(
            "printf 'name? '; read name; echo hello $name", on_output=seen.append
        )
    assert b"".join(seen) == done.output == b"name? hello Ada\n"
    assert (await shell.run("true", on_output=seen.append)).output == b""


async def test_output_may_be_read_again_by_its_offset(shell: ShellSession) -> None:
    await shell.run("echo first")
    done = await shell.run("echo second")
    excerpt = await shell.process.read(offset=done.offset, length=7)
    assert excerpt.data == b"second\n"


async def test_output_that_nobody_can_be_sent_is_there_by_offset(
    run: Run, shell: ShellSession
) -> None:
    arguments = {"exec": shell.process.id, "command": "head -c 80000 /dev/zero"}
    async with run.open("shell.run", arguments, credit=0) as call:
        value = await call.wait()
    assert (value["status"], value["stdout"]["size"]) == (0, 80_000)
    assert {"data", "streamed"}.isdisjoint(value["stdout"])
    excerpt = await shell.process.read(offset=value["stdout"]["offset"] + 79_990, length=10)
    assert excerpt.data == bytes(10)


# It is a program as any other -----------------------------------------------------------------


async def test_a_shell_is_listed_and_another_controller_may_use_it(
    stack: Stack, run: Run, shell: ShellSession
) -> None:
    other = await stack.attach("other")
    found = await other.find(shell.process.id)
    await shell.run("seen=by-both")
    theirs = ShellSession(other, found)
    assert (await theirs.run("echo $seen")).output == b"by-both\n"
    [info] = [one for one in await other.processes() if one.id == shell.process.id]
    assert (info.state, info.terminal, info.has_input) == ("running", Terminal(), True)


async def test_leaving_the_block_ends_the_shell_and_what_it_left_running(run: Run) -> None:
    with sleep_of_its_own() as word:
        async with run.shell() as shell:
            await shell.run(f"setsid sleep {word} & sleep {word} &")
            await until(lambda: len(alive_with(word)) == 2)
        assert alive_with(word) == []  # and nobody waited for the shell, which ignores TERM
        assert not Path(f"/proc/{shell.process.pid}").exists()
        await shell.close()


async def test_a_killed_shell_ends_the_command_that_runs(shell: ShellSession) -> None:
    async def kill() -> None:
        await anyio.sleep(0.1)
        await shell.process.kill(grace=0)

    async with anyio.create_task_group() as group:
        group.start_soon(kill)
        done = await shell.run("echo begun; sleep 100")
    assert (done.output, done.status, done.signal, done.ended) == (b"begun\n", None, 9, True)


async def test_a_shell_at_its_prompt_does_not_wait_for_the_grace(shell: ShellSession) -> None:
    with anyio.fail_after(5):
        ended = await shell.process.kill(grace=30)
    assert ended.signal == signal.SIGHUP


async def test_a_shell_that_ends_itself_is_told(shell: ShellSession) -> None:
    done = await shell.run("exit 3")
    assert (done.status, done.cwd, done.ended) == (3, None, True)


# Ends -----------------------------------------------------------------------------------------


async def test_a_timeout_brings_the_partial_output_and_leaves_the_shell(
    shell: ShellSession,
) -> None:
    with sleep_of_its_own() as word, pytest.raises(CallError) as caught:
        await shell.run(
            f"kept=1; echo part; sleep {word} & setsid -w sleep {word}", timeout=0.3, grace=1
        )
    assert alive_with(word) == []
    error = caught.value
    assert (error.code, error.started) == (Code.TIMEOUT, Started.YES)
    assert (error.details["which"], error.details["shell"]) == ("total", "alive")
    assert b"part\n" in error.details["result"].output
    assert (await shell.run("echo $kept")).output == b"1\n"


@pytest.mark.slow
async def test_a_timeout_with_much_output_brings_it(shell: ShellSession) -> None:
    with pytest.raises(CallError) as caught:
        await shell.run("head -c 200000 /dev/zero; sleep 100", timeout=1.0, grace=1)
    assert caught.value.details["result"].output[:200_000] == bytes(200_000)


async def test_a_shell_that_hangs_itself_is_killed(shell: ShellSession) -> None:
    with pytest.raises(CallError) as caught:
        await shell.run("exec sleep 100", timeout=0.2, grace=0.1)
    error = caught.value
    assert (error.code, error.details["shell"]) == (Code.TIMEOUT, "ended")


async def test_cancelling_ends_the_command_and_leaves_the_shell(shell: ShellSession) -> None:
    with sleep_of_its_own() as word:
        with anyio.move_on_after(0.3):
            await shell.run(f"kept=1; sleep {word}", grace=1)
        await until(lambda: not alive_with(word))
    with anyio.fail_after(10):
        while True:
            try:
                done = await shell.run("echo $kept")
            except CallError as error:
                assert error.code is Code.CONFLICT  # it is being ended
                await anyio.sleep(0.01)
            else:
                break
    assert done.output == b"1\n"


# Bad input ------------------------------------------------------------------------------------


async def test_two_commands_at_once_are_a_conflict(shell: ShellSession) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(shell.run, "sleep 0.3")
        await anyio.sleep(0.1)
        with pytest.raises(CallError) as caught:
            await shell.run("true")
        assert (caught.value.code, caught.value.started) == (Code.CONFLICT, Started.NO)


async def test_a_shell_that_has_ended_is_a_conflict(shell: ShellSession) -> None:
    await shell.run("exit")
    with pytest.raises(CallError) as caught:
        await shell.run("true")
    assert (caught.value.code, caught.value.started) == (Code.CONFLICT, Started.NO)


async def test_what_is_no_shell_is_invalid(run: Run, shell: ShellSession) -> None:
    program = await run.start(["sleep", "100"], terminal=Terminal())
    with pytest.raises(CallError) as caught:
        await run.call("shell.run", {"exec": program.id, "command": "true"})
    assert (caught.value.code, caught.value.started) == (Code.INVALID, Started.NO)
    await program.kill(grace=0)
    with pytest.raises(CallError) as caught:
        await run.call("shell.run", {"exec": bytes(16), "command": "true"})
    assert (caught.value.code, caught.value.started) == (Code.NOT_FOUND, Started.NO)
    with pytest.raises(CallError) as caught:
        await shell.run("echo \0")
    assert (caught.value.code, caught.value.started) == (Code.INVALID, Started.NO)


async def test_a_shell_that_cannot_start_says_so(run: Run) -> None:
    for options in ({"cwd": "missing"}, {"cwd": "/etc"}):
        with pytest.raises(CallError) as caught:
            await run.call("shell.start", options)
        assert caught.value.code in (Code.NOT_FOUND, Code.OUTSIDE)
        assert caught.value.started is Started.NO


@pytest.mark.parametrize(
    "limits",
    [Limits(files=3), pytest.param(Limits(files=5), marks=pytest.mark.slow)],
)
async def test_a_shell_that_does_not_come_to_its_prompt_says_why(run: Run, limits: Limits) -> None:
    with pytest.raises(CallError) as caught:
        async with run.shell(limits=limits):
            raise AssertionError("it did start")
    error = caught.value
    assert (error.code, error.started) == (Code.UNSUPPORTED, Started.YES)
    assert error.details["status"] or error.details["signal"]
    assert error.message.startswith("the shell did not come to its prompt: ")
    assert all(not one.is_alive for one in await run.processes())


# In the long run ------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_thousand_commands_leave_memory_and_descriptors_as_they_were(
    shell: ShellSession,
) -> None:
    def state() -> tuple[int, int]:
        proc = Path(f"/proc/{shell.process.pid}")
        pages = int((proc / "statm").read_text().split()[1])
        return len(list(Path("/proc/self/fd").iterdir())), pages

    await shell.run("head -c 100000 /dev/zero")  # the spool has its file from here on
    for _ in range(100):
        await shell.run("echo $((n = n + 1))")
    descriptors, pages = state()
    for _ in range(1000):
        last = await shell.run("echo $((n = n + 1))")
    assert last.output == b"1100\n"
    after = state()
    assert after[0] == descriptors
    assert after[1] - pages < 256  # 1 MiB
