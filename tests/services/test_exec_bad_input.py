"""What callers get wrong about programs: one coded error each, and nobody else is disturbed."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from stack import Stack, open_stack, until

from sidecar.client import CallError, Code, Run, Started
from sidecar.client.processes import RemoteProcess


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path_factory.mktemp("bad")) as stack:
        folder = stack.workspace / "folder"
        folder.mkdir()
        (stack.workspace / "plain").write_text("echo plain")
        _executable(stack.workspace / "script", "#!/no/such/interpreter\n")
        _executable(stack.workspace / "garbage", "\x7fELF and no more")
        (stack.workspace / "leads-out").symlink_to("/")
        yield stack


@pytest.fixture(scope="module")
async def run(stack: Stack) -> Run:
    return await stack.attach()


@pytest.fixture(scope="module")
async def bystander(run: Run) -> AsyncIterator[RemoteProcess]:
    """A program of somebody else, which answers from the first row to the last."""
    remote = await run.start(["cat"], stdin=True)
    yield remote
    await remote.input(b"", end=True)
    assert (await remote.wait()).status == 0


def _executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@dataclass(frozen=True)
class Row:
    what: str
    command: str
    arguments: dict[str, Any]
    code: Code
    started: Started = Started.NO
    details: dict[str, Any] = field(default_factory=dict)


UNKNOWN = bytes(16)
START = [
    ("no such program", {"argv": ["no-such-program"]}, Code.NOT_FOUND),
    ("no such file", {"argv": ["./no/such/file"]}, Code.NOT_FOUND),
    ("not executable", {"argv": ["./plain"]}, Code.PERMISSION_DENIED),
    ("a directory", {"argv": ["./folder"]}, Code.IS_DIRECTORY),
    ("a bad interpreter line", {"argv": ["./script"]}, Code.NOT_FOUND),
    ("no program of this machine", {"argv": ["./garbage"]}, Code.PERMISSION_DENIED),
    ("an empty name", {"argv": [""]}, Code.INVALID),
    ("a zero byte in an argument", {"argv": ["echo", "a\0b"]}, Code.INVALID),
    ("half a character in an argument", {"argv": ["echo", "\udcff"]}, Code.INVALID),
    ("an argument list too long", {"argv": ["true", "x" * 200_000]}, Code.LIMIT),
    ("a variable without a name", {"argv": ["true"], "env": {"": "x"}}, Code.INVALID),
    ("cwd missing", {"argv": ["true"], "cwd": "missing"}, Code.NOT_FOUND),
    ("cwd no directory", {"argv": ["true"], "cwd": "plain"}, Code.NOT_DIRECTORY),
    ("cwd outside", {"argv": ["true"], "cwd": "../.."}, Code.OUTSIDE),
    ("cwd outside, absolute", {"argv": ["true"], "cwd": "/etc"}, Code.OUTSIDE),
    ("cwd outside by a link", {"argv": ["true"], "cwd": "leads-out/etc"}, Code.OUTSIDE),
    ("neither argv nor shell", {}, Code.INVALID),
    ("both argv and shell", {"argv": ["true"], "shell": "true"}, Code.INVALID),
    ("a negative timeout", {"argv": ["true"], "timeout": -1.0}, Code.INVALID),
    ("a timeout of nothing", {"argv": ["true"], "timeout": 0.0}, Code.INVALID),
    ("a negative idle timeout", {"argv": ["true"], "idle_timeout": -1.0}, Code.INVALID),
    ("a timeout that is no number", {"argv": ["true"], "timeout": float("nan")}, Code.INVALID),
    ("a negative grace", {"argv": ["true"], "grace": -1.0}, Code.INVALID),
    ("a terminal without rows", {"argv": ["true"], "terminal": {"rows": 0}}, Code.INVALID),
    ("a misspelt argument", {"argv": ["true"], "timout": 1.0}, Code.INVALID),
]
OF_NOBODY: list[tuple[str, dict[str, Any]]] = [
    ("exec.attach", {}),
    ("exec.read", {}),
    ("exec.wait", {}),
    ("exec.input", {"data": b"x"}),
    ("exec.resize", {"rows": 24, "cols": 80}),
    ("exec.signal", {"signal": "TERM"}),
    ("exec.kill", {}),
]
OF_CAT: list[tuple[str, str, dict[str, Any]]] = [
    ("an unknown signal", "exec.signal", {"signal": "NOSUCH"}),
    ("an unknown number of a signal", "exec.signal", {"signal": 1234}),
    ("signal 0", "exec.signal", {"signal": 0}),
    ("a negative signal", "exec.signal", {"signal": -9}),
    ("a signal to nobody", "exec.signal", {"signal": "TERM", "to": "everybody"}),
    ("a resize of a pipe", "exec.resize", {"rows": 24, "cols": 80}),
    ("a resize to nothing", "exec.resize", {"rows": 0, "cols": 80}),
    ("an offset behind the output", "exec.read", {"offset": 1 << 40}),
    ("a negative offset", "exec.read", {"offset": -1}),
    ("an output that there is not", "exec.read", {"n": 3}),
    ("a reader behind the output", "exec.attach", {"stdout": 1 << 40}),
    ("a negative grace of a kill", "exec.kill", {"grace": -1.0}),
    ("an exec id of the wrong size", "exec.wait", {"exec": b"short"}),
]
ROWS = [
    *(
        Row(f"{what}: {command}", command, arguments, code)
        for command in ("exec.run", "exec.start")
        for what, arguments, code in START
    ),
    *(
        Row(f"an unknown id: {command}", command, {"exec": UNKNOWN, **arguments}, Code.NOT_FOUND)
        for command, arguments in OF_NOBODY
    ),
]


async def refused(run: Run, row: Row) -> CallError:
    with pytest.raises(CallError) as caught:
        await run.call(row.command, row.arguments)
    error = caught.value
    assert (error.code, error.started) == (row.code, row.started), error
    assert error.message
    return error


async def echoes(bystander: RemoteProcess) -> None:
    before = (await bystander.read()).size
    assert await bystander.input(b"well\n") == 5
    async with bystander.attach(stdout=before) as program:
        assert await anext(program.output()) == (1, b"well\n")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
async def test_what_is_wrong_is_one_coded_error_and_harms_nobody(
    row: Row, run: Run, bystander: RemoteProcess, stack: Stack
) -> None:
    before = len(stack.sidecar.means.processes.all())
    await refused(run, row)
    await echoes(bystander)
    assert len(stack.sidecar.means.processes.all()) == before


@pytest.mark.parametrize("what, command, arguments", OF_CAT, ids=[what for what, _, _ in OF_CAT])
async def test_what_is_wrong_about_a_program_that_runs_leaves_it_running(
    what: str, command: str, arguments: dict[str, Any], run: Run, bystander: RemoteProcess
) -> None:
    await refused(run, Row(what, command, {"exec": bystander.id, **arguments}, Code.INVALID))
    await echoes(bystander)


async def test_input_where_there_is_none_any_more_says_why(run: Run) -> None:
    deaf = await run.start(["sleep", "60"])
    half = await run.start(["sleep", "60"], stdin=True)
    closed = await run.start("exec <&-; echo closed; exec sleep 60", stdin=True)
    given = await run.start(["sleep", "60"], stdin=b"all of it")
    await half.input(b"", end=True)
    async with closed.attach(follow=True) as program:
        assert await anext(program.output()) == (1, b"closed\n")
    expected = [(deaf, "none"), (half, "ended"), (closed, "closed"), (given, "ended")]
    for remote, which in expected:
        for command, more in (
            ("exec.input", {"data": b"x"}),
            ("exec.attach", {"input": True}),
        ):
            row = Row(which, command, {"exec": remote.id, **more}, Code.INVALID)
            if (command, which) == ("exec.attach", "closed"):
                continue  # nobody knows before somebody writes; then its stream is reset
            assert (await refused(run, row)).details["which"] == which
    row = Row("a second end", "exec.input", {"exec": half.id, "end": True}, Code.INVALID)
    assert (await refused(run, row)).details["which"] == "ended"
    for remote, _ in expected:
        await remote.kill(grace=0)


async def test_a_program_that_ended_takes_signals_and_a_kill_in_silence(run: Run) -> None:
    remote = await run.start(["true"])
    await remote.wait()
    answer = await run.call("exec.signal", {"exec": remote.id, "signal": "TERM"})
    assert answer == {"signal": 15, "state": "ended"}
    assert (await remote.kill()).status == 0


async def test_nothing_is_left_of_what_could_not_start(run: Run, stack: Stack) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for row in ROWS:
        await refused(run, row)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_hands_that_are_away_start_nothing_and_what_they_started_is_unknown(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        remote = await run.start("echo before; exec sleep 60")
        while (await remote.read()).size < 7:
            pass
        await stack.sidecar.means.hands.aclose()
        for command in ("exec.run", "exec.start"):
            await refused(run, Row("away", command, {"argv": ["true"]}, Code.HANDS_AWAY))
        assert (await remote.read()).data == b"before\n"
