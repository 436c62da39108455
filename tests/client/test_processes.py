"""Programs that outlive their caller, through the whole stack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import anyio
import pytest
from stack import Stack, open_stack

from sidecar.client import CallError, Code, Limits, ProcessInfo, RemoteProcess, Run, Terminal
from sidecar.client.processes import match_process
from sidecar.client.program import program_arguments

INFO = ProcessInfo(
    id=bytes(16),
    pid=1,
    state="running",
    owner=None,
    argv=["true"],
    shell=None,
    cut=0,
    age=0.0,
    terminal=None,
    has_input=False,
    status=None,
    signal=None,
    timed_out=None,
    sizes={},
    survivors=[],
    more_survivors=0,
)


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path_factory.mktemp("processes")) as stack:
        yield stack


@pytest.fixture(scope="module")
async def run(stack: Stack) -> Run:
    return await stack.attach()


async def until_printed(remote: RemoteProcess, n: int, size: int) -> None:
    with anyio.fail_after(10):
        while (await remote.read(n)).size < size:  # noqa: ASYNC110 - nothing tells without a stream
            await anyio.sleep(0.01)


async def info_of(run: Run, remote: RemoteProcess) -> ProcessInfo:
    return match_process(await run.processes(), remote.id)


# Arguments and ids -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, arguments",
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param({"timeout": None, "cwd": None}, {}, id="none"),
        pytest.param({"timeout": 2, "grace": 0}, {"timeout": 2.0, "grace": 0.0}, id="seconds"),
        pytest.param({"unset": ("A", "B")}, {"unset": ["A", "B"]}, id="names"),
        pytest.param({"cwd": b"\xff"}, {"cwd": b"\xff"}, id="bytes"),
        pytest.param({"limits": Limits(cpu=1)}, {"limits": {"cpu": 1}}, id="limits"),
        pytest.param(
            {"terminal": Terminal(2, 3, "vt100")},
            {"terminal": {"rows": 2, "cols": 3, "term": "vt100"}},
            id="terminal",
        ),
    ],
)
def test_options_travel_as_the_catalogue_has_them(options: Any, arguments: Any) -> None:
    assert program_arguments(["true"], options) == {"argv": ["true"], **arguments}
    assert program_arguments("true", options) == {"shell": "true", **arguments}


ONE = replace(INFO, id=bytes.fromhex("0190b6c27d3f7100" + "00" * 8))
TWO = replace(INFO, id=bytes.fromhex("0190b6c27d3f7200" + "00" * 8))


def test_a_program_is_known_by_so_much_of_its_id_as_no_other_has() -> None:
    assert match_process([ONE, TWO], ONE.id) is ONE
    assert match_process([ONE, TWO], "0190b6c2-7d3f-71") is ONE
    assert match_process([ONE, TWO], "0190B6C27D3F72") is TWO
    with pytest.raises(CallError, match="could be any of 2: 0190b6c2-7d3f-7100-") as caught:
        match_process([ONE, TWO], "0190")
    assert caught.value.code is Code.INVALID


@pytest.mark.parametrize("unknown", ["", "-", "0190b6c3", "x", bytes(16), b""])
def test_a_program_that_is_not_there_is_not_found(unknown: str | bytes) -> None:
    with pytest.raises(CallError, match="is known here") as caught:
        match_process([ONE, TWO], unknown)
    assert caught.value.code is Code.NOT_FOUND


# A program that lives on -----------------------------------------------------------------


async def test_one_controller_starts_and_another_attaches(stack: Stack, run: Run) -> None:
    remote = await run.start("echo one; read line; echo $line; exit 3", stdin=True)
    other = await (await stack.attach("other")).find(remote.id)
    assert (other.id, other.pid) == (remote.id, remote.pid)
    async with other.attach(input=True) as process:
        output = process.output()
        assert await anext(output) == (1, b"one\n")
        await process.write(b"two\n")
        assert await anext(output) == (1, b"two\n")
        assert (await process.wait()).status == 3
    assert (await remote.wait()).status == 3


async def test_leaving_ends_nothing(run: Run) -> None:
    remote = await run.start("echo one; read line; echo $line", stdin=True)
    async with remote.attach(input=True) as process:
        assert await anext(process.output()) == (1, b"one\n")
    async with remote.attach(stdout=4) as process:
        assert await remote.input(b"two\n", end=True) == 4
        assert [item async for item in process.output()] == [(1, b"two\n")]
        assert process.stdout.position == 8
        assert (await process.wait()).status == 0


async def test_what_was_written_arrives_though_its_writer_leaves_at_once(run: Run) -> None:
    remote = await run.start("read line; exit 4", terminal=Terminal())
    async with remote.attach(input=True) as process:
        await process.write(b"typed\r")
        await process.leave_stdin()
    with anyio.fail_after(10):
        assert (await remote.wait()).status == 4


async def test_what_was_printed_can_be_read_from_anywhere(run: Run) -> None:
    remote = await run.start("printf 0123456789; printf error >&2; exec sleep 60")
    await until_printed(remote, 1, 10)
    await until_printed(remote, 2, 5)
    part = await remote.read(1, 4, 3)
    assert (part.data, part.offset, part.size, part.dropped) == (b"456", 4, 10, 0)
    async with remote.attach(stdout=7, follow=False) as process:
        assert sorted([item async for item in process.output()]) == [(1, b"789"), (2, b"error")]
    async with remote.attach(stdout=None, follow=False) as process:
        assert [item async for item in process.output()] == [(2, b"error")]
        await remote.kill(grace=0)
        assert (await process.wait()).status is None  # whoever does not follow may still wait


async def test_a_terminal_is_resized_and_has_one_output(run: Run) -> None:
    script = "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.02; done"
    remote = await run.start(script, terminal=Terminal(7, 33, "vt100"))
    async with remote.attach(stderr=None) as process:
        output = process.output()
        assert await anext(output) == (1, b"7 33\r\n")
        assert await remote.resize(9, 44) == 6
        assert [item async for item in output] == [(1, b"9 44\r\n")]
        assert (await process.wait()).status == 0


async def test_a_program_that_ends_with_its_call_has_a_handle_too(run: Run) -> None:
    async with run.process(["cat"], terminal=Terminal(), stdin=True) as process:
        await process.write(b"seen\r")
        assert (await anext(process.output()))[1].startswith(b"seen\r\n")
        await process.remote.signal("INT", to="foreground")
        assert (await process.wait()).signal == 2
        assert [n async for n, _ in process.output() if n == 2] == []


async def test_programs_are_listed_as_what_they_are(run: Run) -> None:
    remote = await run.start(["sleep", "60"], terminal=Terminal(5, 6))
    info = await info_of(run, remote)
    assert (info.pid, info.state, info.owner) == (remote.pid, "running", "me")
    assert (info.argv, info.shell, info.cut) == (["sleep", "60"], None, 0)
    assert (info.terminal, info.has_input, info.sizes) == (Terminal(5, 6), True, {1: 0})
    assert info.is_alive
    await remote.signal("KILL")
    assert (await remote.wait()).returncode == 137
    info = await info_of(run, remote)
    assert (info.state, info.status, info.signal, info.is_alive) == ("ended", None, 9, False)


@pytest.mark.parametrize("option, which", [("timeout", "total"), ("idle_timeout", "idle")])
async def test_which_timeout_it_was_is_told_with_what_was_printed(
    run: Run, option: str, which: str
) -> None:
    with pytest.raises(CallError) as caught:
        await run.exec("echo partial; sleep 60", **{option: 0.2})  # type: ignore[arg-type]
    assert caught.value.code is Code.TIMEOUT
    assert caught.value.details["which"] == which
    assert caught.value.details["output"] == {1: b"partial\n", 2: b""}
    remote = await run.start(["sleep", "60"], **{option: 0.1})  # type: ignore[arg-type]
    with pytest.raises(CallError) as caught:
        await remote.wait()
    assert caught.value.details["which"] == which
    assert (await info_of(run, remote)).timed_out == which


async def test_input_of_any_size_arrives_with_its_end(run: Run) -> None:
    remote = await run.start(["wc", "-c"], stdin=True)
    assert await remote.input(bytes(100_000), end=True) == 100_000
    assert (await remote.wait()).status == 0
    assert (await remote.read()).data == b"100000\n"

    remote = await run.start(["cat"], stdin=b"with the call")
    assert (await remote.wait()).status == 0
    assert (await remote.read()).data == b"with the call"


async def test_environment_and_limits_are_as_asked_for(run: Run) -> None:
    done = await run.exec(["/usr/bin/env"], base="empty", env={"A": "1"})
    names = {line.partition(b"=")[0] for line in done.stdout.splitlines()}
    assert names == {b"A", b"SIDECAR_EXEC_ID"}
    done = await run.exec("echo ${HOME-unset}", unset=["HOME"])
    assert done.stdout == b"unset\n"
    # They are set right after the start: a program that waits for input has them.
    shell = "read go; ulimit -n; ulimit -t"
    done = await run.exec(shell, input=b"go\n", limits=Limits(files=64, cpu=7))
    assert done.stdout == b"64\n7\n"
