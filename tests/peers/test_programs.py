"""One table of what programs that run programs for others get wrong, held against ours.

Each check stands for defects that were reported of, or measured with, software of this kind:
characters split across reads, a timeout that leaves children behind, a call that hangs on a pipe
which somebody else holds, no sign of life while a command runs, output that gets lost. All run
against the real stack: hub, sidecar and client over real sockets, with real programs; once in
one process, and once with core and hands in a process each.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from procs import alive_with, sleep_of_its_own
from stack import PATIENCE, RUN, Stack, open_stack, until

from sidecar.client import CallError, Code, Controller, Run
from sidecar.clock import SystemClock
from sidecar.identity import new_id

MB = 1_000_000
Check = Callable[[Stack, Run], Awaitable[None]]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    """A row of the table."""
    CHECKS[function.__name__] = function
    return function


@pytest.fixture(scope="module", params=["in-process", "socket"])
async def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("peers")
    if request.param == "in-process":
        async with open_stack(folder) as stack:
            yield stack
        return
    with tempfile.TemporaryDirectory(prefix="hands-") as place:  # a socket needs a short path
        socket = Path(place) / "socket"
        async with open_stack(folder, sidecars=0) as stack:
            await stack.start_hands_process(socket)
            stack.start_sidecar_process(hands=str(socket))
            yield stack


@pytest.fixture(scope="module")
async def run(stack: Stack) -> Run:
    return await stack.attach()


@asynccontextmanager
async def connected(stack: Stack, name: str) -> AsyncIterator[Run]:
    """A controller that is gone after the block, with its connection."""
    async with Controller.connect(stack.url(name), controller=name) as controller:
        yield await controller.attach(RUN, timeout=PATIENCE)


# Bytes and characters ----------------------------------------------------------------------


@check
async def bytes_that_are_no_text_arrive_intact(stack: Stack, run: Run) -> None:
    printed = await run.exec(r"printf '\377\376'; printf '\376\377' >&2")
    assert (printed.stdout, printed.stderr) == (b"\xff\xfe", b"\xfe\xff")


@check
async def a_binary_file_is_read_and_written_as_it_is(stack: Stack, run: Run) -> None:
    content = bytes(range(256)) * 1000
    await run.files.write("binary", content)
    assert (stack.workspace / "binary").read_bytes() == content
    assert await run.files.read("binary") == content


@check
async def no_character_is_split(stack: Stack, run: Run) -> None:
    text = "\u20ac" * 300_000
    (stack.workspace / "text").write_text(text)
    arrived = []
    async with run.process(["cat", "text"]) as program:
        async for _, chunk in program.output():
            arrived.append(chunk)
    assert b"".join(arrived).decode() == text


@check
async def ten_megabytes_arrive_complete(stack: Stack, run: Run) -> None:
    produced = os.urandom(10 * MB)
    (stack.workspace / "ten").write_bytes(produced)
    printed = await run.exec(["cat", "ten"])
    assert printed.stdout == produced
    assert printed.dropped == {}


@check
async def a_line_of_ten_megabytes_needs_no_newline(stack: Stack, run: Run) -> None:
    (stack.workspace / "line").write_bytes(b"x" * 10 * MB)
    printed = await run.exec(["cat", "line"], timeout=30)
    assert printed.stdout == b"x" * 10 * MB


# While it runs -----------------------------------------------------------------------------


@check
async def a_ping_is_answered_while_a_command_runs(stack: Stack, run: Run) -> None:
    async with run.process(["cat"], stdin=True) as program:
        slowest = max([await run.ping() for _ in range(20)])
        assert slowest < 0.5  # a hundred times what it takes, for a busy machine
        program.close_stdin()
        assert (await program.wait()).status == 0  # so it ran all the while


@check
async def output_is_seen_before_the_end(stack: Stack, run: Run) -> None:
    async with run.process("echo early; read line; echo $line", stdin=True) as program:
        assert await program.stdout.receive() == b"early\n"
        await program.write(b"late\n")
        assert await program.stdout.receive() == b"late\n"


# Ends --------------------------------------------------------------------------------------


@check
async def a_timeout_leaves_no_process(stack: Stack, run: Run) -> None:
    with sleep_of_its_own() as while_:
        with pytest.raises(CallError) as caught:
            await run.exec(f"echo before; sleep {while_} & sleep {while_}", timeout=0.3)
        assert caught.value.code is Code.TIMEOUT
        assert caught.value.details["output"] == {1: b"before\n", 2: b""}
        assert alive_with(while_) == []


@check
async def a_kill_reaches_a_child_in_a_session_of_its_own(stack: Stack, run: Run) -> None:
    with sleep_of_its_own() as while_:
        async with run.process(f"setsid sleep {while_} & echo started; wait") as program:
            assert await program.stdout.receive() == b"started\n"
            await until(lambda: len(alive_with(while_)) == 1)
            program.cancel()
            with pytest.raises(CallError):
                await program.wait()
        assert alive_with(while_) == []


@check
async def a_child_that_holds_the_pipe_delays_nothing_and_lives(stack: Stack, run: Run) -> None:
    with sleep_of_its_own() as while_:
        printed = await run.exec(f"sleep {while_} & echo hi")
        assert (printed.status, printed.stdout) == (0, b"hi\n")
        assert printed.duration < 1.0
        assert len(alive_with(while_)) == 1


@check
async def a_child_that_holds_the_pipe_is_ended_on_request(stack: Stack, run: Run) -> None:
    with sleep_of_its_own() as while_:
        arguments = {"shell": f"sleep {while_} & echo hi", "daemons": "end", "live": False}
        answer = await run.call("exec.run", arguments)
        assert (answer["status"], answer["stdout"]["data"]) == (0, b"hi\n")
        assert answer["duration"] < 1.0
        assert alive_with(while_) == []


# Connections -------------------------------------------------------------------------------


@check
async def the_same_id_sent_twice_runs_once(stack: Stack, run: Run) -> None:
    id = new_id(SystemClock())
    arguments = {"shell": "echo ran >> count; wc -l < count", "live": False}
    first = await run.call("exec.run", arguments, id=id)
    second = await run.call("exec.run", arguments, id=id)
    assert first == second
    assert (stack.workspace / "count").read_text() == "ran\n"


@check
async def nothing_is_lost_of_what_is_printed_while_nobody_is_connected(
    stack: Stack, run: Run
) -> None:
    produced = os.urandom(5 * MB)
    (stack.workspace / "five").write_bytes(produced)
    async with connected(stack, "first") as first:
        shell = "echo ready; until [ -e go ]; do sleep 0.01; done; cat five; touch done"
        started = await first.call("exec.start", {"shell": shell})
        async with first.open("exec.attach", {"exec": started["exec"]}) as attached:
            assert await attached.receiver(1).receive() == b"ready\n"
    (stack.workspace / "go").touch()
    await until((stack.workspace / "done").exists)

    async with connected(stack, "second") as second:
        arguments = {"exec": started["exec"], "stdout": len("ready\n")}
        async with second.open("exec.attach", arguments) as attached:
            arrived = [chunk async for chunk in attached.receiver(1, start=len("ready\n"))]
            assert (await attached.wait())["status"] == 0
    assert b"".join(arrived) == produced


@check
async def a_hundred_megabytes_are_written(stack: Stack, run: Run) -> None:
    content = os.urandom(MB) * 100
    await run.files.write("hundred", content)
    assert (stack.workspace / "hundred").read_bytes() == content
    assert await run.ping() < 1.0


SLOW = {"a_hundred_megabytes_are_written"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CHECKS],
)
async def test_programs_are_run_as_they_should_be(name: str, stack: Stack, run: Run) -> None:
    await CHECKS[name](stack, run)
