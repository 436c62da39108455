"""Real programs, through both forms of hands."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from sidecar.errors import CallError, Code, Started
from sidecar.hands.interface import Exit, Hands, Program, Running
from sidecar.hands.local import programs as module
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.local.proc import read_process

KEY = b"call"


@pytest.fixture
async def hands(any_hands: Hands) -> AsyncIterator[Hands]:
    """Pipes that a test did not close are closed for it, so that the leak check sees ours only."""
    spawn = any_hands.spawn
    started: list[Running] = []

    async def remembering(program: Program, *, key: bytes) -> Running:
        running = await spawn(program, key=key)
        started.append(running)
        return running

    any_hands.spawn = remembering  # type: ignore[method-assign]
    yield any_hands
    await any_hands.aclose()
    for running in started:
        for descriptor in (running.stdin, running.stdout, running.stderr):
            if descriptor is not None:
                os.close(descriptor)


async def read_all(descriptor: int) -> bytes:
    """Until the end, the way core reads: without blocking, woken by the loop."""
    content = b""
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except BlockingIOError:
            await anyio.wait_readable(descriptor)
            continue
        if not piece:
            return content
        content += piece


async def read_line(descriptor: int) -> bytes:
    """A program's word that it has come so far."""
    line = b""
    while not line.endswith(b"\n"):
        await anyio.wait_readable(descriptor)
        line += os.read(descriptor, 1)
    return line.strip()


async def output_of(hands: Hands, program: Program, key: bytes = KEY) -> bytes:
    running = await hands.spawn(program, key=key)
    content = await read_all(running.stdout)
    await hands.wait(key)
    return content


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - another process sets no event
            await anyio.sleep(0.005)


def is_alive(pid: int) -> bool:
    member = read_process(pid)
    return member is not None and member.state != b"Z"


def python(code: str) -> Program:
    return Program(argv=[sys.executable, "-c", code])


async def test_output_and_status_of_a_program(hands: Hands) -> None:
    running = await hands.spawn(
        Program(argv=["/bin/sh", "-c", "echo out; echo err >&2; exit 3"]), key=KEY
    )
    assert await read_all(running.stdout) == b"out\n"
    assert await read_all(running.stderr) == b"err\n"
    exit = await hands.wait(KEY)
    assert (exit.status, exit.signal) == (3, None)
    assert exit.max_rss > 100_000


@pytest.mark.parametrize("status", [0, 1, 2, 126, 127, 128, 137, 255])
async def test_every_status_is_told_from_a_signal(hands: Hands, status: int) -> None:
    await hands.spawn(Program(shell=f"exit {status}"), key=KEY)
    exit = await hands.wait(KEY)
    assert (exit.status, exit.signal) == (status, None)


@pytest.mark.parametrize("number", [1, 2, 9, 11, 15, 31])
async def test_a_signal_is_told_from_a_status(hands: Hands, number: int) -> None:
    await hands.spawn(Program(shell=f"ulimit -c 0; kill -{number} $$"), key=KEY)
    exit = await hands.wait(KEY)
    assert (exit.status, exit.signal) == (None, number)


async def test_the_time_a_program_took_is_told(hands: Hands) -> None:
    await hands.spawn(python("import time\nwhile time.process_time() < 0.1: pass"), key=KEY)
    exit = await hands.wait(KEY)
    assert 0.09 <= exit.user_cpu + exit.system_cpu < 5


async def test_a_program_is_named_by_pid_and_start(hands: Hands) -> None:
    for number in range(30):  # some of them cross a tick of the clock
        running = await hands.spawn(Program(argv=["cat"], stdin=True), key=b"%d" % number)
        member = read_process(running.pid)
        assert member is not None
        assert (member.session, member.group) == (running.pid, running.pid)
        assert member.start_time == running.start_time


async def test_what_is_written_to_stdin_arrives(hands: Hands) -> None:
    running = await hands.spawn(Program(argv=["cat"], stdin=True), key=KEY)
    assert running.stdin is not None
    os.write(running.stdin, b"\xff\xfe\n")
    os.set_blocking(running.stdin, False)
    assert await read_line(running.stdout) == b"\xff\xfe"
    await hands.kill(KEY, grace=1)


async def test_without_stdin_a_program_reads_nothing(hands: Hands) -> None:
    running = await hands.spawn(Program(argv=["cat"]), key=KEY)
    assert running.stdin is None
    assert await read_all(running.stdout) == b""


async def test_our_ends_do_not_block_and_are_not_inherited(hands: Hands) -> None:
    running = await hands.spawn(Program(argv=["cat"], stdin=True), key=KEY)
    for descriptor in (running.stdin, running.stdout, running.stderr):
        assert descriptor is not None
        assert not os.get_blocking(descriptor)
        assert not os.get_inheritable(descriptor)
        assert stat.S_ISFIFO(os.fstat(descriptor).st_mode)


async def test_a_program_has_three_descriptors_that_block(hands: Hands) -> None:
    code = (
        "import os; print(sorted(os.listdir('/proc/self/fd'))[:-1],"
        " [os.get_blocking(n) for n in range(3)])"
    )
    assert await output_of(hands, python(code)) == b"['0', '1', '2'] [True, True, True]\n"


async def test_a_program_runs_in_the_root_or_below(hands: Hands, root: Path) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "link").symlink_to("a/b")
    for number, (cwd, expected) in enumerate(
        [(None, root), ("a/b", root / "a/b"), ("link", root / "a/b"), (str(root / "a"), root / "a")]
    ):
        content = await output_of(hands, Program(argv=["pwd"], cwd=cwd), key=b"%d" % number)
        assert content.decode().strip() == str(expected)


async def test_the_environment_is_the_base_with_changes(root: Path) -> None:
    async with LocalHands.open_root(str(root), environment="clean") as hands:
        running = await hands.spawn(
            Program(
                argv=["env"], env={"X": "\u00e9", "TERM": "xterm", "EMPTY": ""}, unset=["LANG"]
            ),
            key=KEY,
        )
        lines = (await read_all(running.stdout)).splitlines()
        os.close(running.stdout)
        os.close(running.stderr)
    assert {"X=\u00e9".encode(), b"TERM=xterm", b"EMPTY="} <= set(lines)
    assert not any(line.startswith((b"LANG=", b"PYTEST")) for line in lines)


@pytest.mark.parametrize("environment", ["clean", "inherited"])
async def test_our_settings_are_not_passed_on(
    root: Path, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    monkeypatch.setenv("SIDECAR_TOKEN", "secret")
    monkeypatch.setenv("VISIBLE", "yes")
    async with LocalHands.open_root(str(root), environment=environment) as hands:  # type: ignore[arg-type]
        running = await hands.spawn(Program(argv=["env"]), key=KEY)
        content = await read_all(running.stdout)
        os.close(running.stdout)
        os.close(running.stderr)
    assert re.findall(rb"^SIDECAR_.*", content, re.MULTILINE) == [b"SIDECAR_EXEC_ID=63616c6c"]
    assert (b"VISIBLE=yes" in content) == (environment == "inherited")


async def test_a_shell_takes_a_line(hands: Hands) -> None:
    program = Program(shell="echo $0; echo a | tr a b", env={"SHELL": "/bin/sh"})
    assert await output_of(hands, program) == b"/bin/sh\nb\n"


async def test_a_shell_that_refuses_logins_is_not_used(hands: Hands) -> None:
    program = Program(shell="echo $0", env={"SHELL": "/usr/sbin/nologin"})
    assert await output_of(hands, program) == b"/bin/sh\n"


async def test_arguments_are_bytes(hands: Hands) -> None:
    program = Program(argv=["printf", "%s|", b"\xff", "\udcfe", "\u00e9", ""])
    assert await output_of(hands, program) == b"\xff|\xfe|\xc3\xa9||"


@pytest.mark.parametrize(
    "program",
    [
        Program(),
        Program(argv=[]),
        Program(argv=[""]),
        Program(argv=["true"], shell="true"),
        Program(argv=["tr\0ue"]),
        Program(argv=["true", b"\0"]),
        Program(shell="true\0"),
        Program(argv=["true"], env={"A=B": "x"}),
        Program(argv=["true"], env={"": "x"}),
        Program(argv=["true"], env={"A": "\0"}),
        Program(argv=["true"], env={"A": "\ud800"}),
    ],
)
async def test_a_program_the_kernel_cannot_take_is_invalid(hands: Hands, program: Program) -> None:
    with pytest.raises(CallError) as caught:
        await hands.spawn(program, key=KEY)
    assert caught.value.code == Code.INVALID


async def test_a_relative_program_is_found_from_its_working_directory(
    hands: Hands, root: Path
) -> None:
    (root / "folder").mkdir()
    (root / "folder/good").write_text("#!/bin/sh\necho good\n")
    (root / "folder/good").chmod(0o755)
    assert await output_of(hands, Program(argv=["./good"], cwd="folder")) == b"good\n"


async def test_a_program_is_sought_on_where_it_cannot_be_run(hands: Hands, root: Path) -> None:
    """As execvp(3) does: in the program's own PATH, from its own directory."""
    for folder, mode, content in [
        ("barred", 0o644, "#!/bin/sh\n"),
        ("orphaned", 0o755, "#!/no/such/interpreter\n"),
        ("good", 0o755, "#!/bin/sh\necho $0\n"),
    ]:
        (root / folder).mkdir()
        (root / folder / "tool").write_text(content)
        (root / folder / "tool").chmod(mode)
    (root / "more/tool").mkdir(parents=True)
    path = f"/nowhere:/etc/passwd:{root}/more:{root}/barred:{root}/orphaned:good:/bin"
    program = Program(argv=["tool"], env={"PATH": path})
    assert await output_of(hands, program) == b"good/tool\n"


@pytest.mark.parametrize("allowed", [0, 1, 2])
async def test_without_descriptors_nothing_starts_and_none_is_lost(
    hands: Hands, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    made: list[tuple[int, int]] = []

    def scarce(flags: int) -> tuple[int, int]:
        if len(made) == allowed:
            raise OSError(24, "Too many open files")
        made.append(pipe2(flags))
        return made[-1]

    pipe2 = os.pipe2
    monkeypatch.setattr(os, "pipe2", scarce)
    with pytest.raises(CallError) as caught:
        await hands.spawn(Program(argv=["cat"], stdin=True), key=KEY)
    assert caught.value.code == Code.LIMIT
    assert await hands.known() == []


async def test_a_key_is_used_once(hands: Hands) -> None:
    await hands.spawn(Program(argv=["true"]), key=KEY)
    for _ in range(2):
        with pytest.raises(CallError) as caught:
            await hands.spawn(Program(argv=["true"]), key=KEY)
        assert caught.value.code == Code.CONFLICT
        await hands.wait(KEY)
    await hands.forget(KEY)
    await hands.spawn(Program(argv=["true"]), key=KEY)
    await hands.wait(KEY)


async def test_a_running_program_is_not_forgotten(hands: Hands) -> None:
    await hands.spawn(Program(argv=["cat"], stdin=True), key=KEY)
    with pytest.raises(CallError) as caught:
        await hands.forget(KEY)
    assert caught.value.code == Code.INVALID
    await hands.forget(b"unknown")


async def test_any_number_may_wait_also_after_the_end(hands: Hands) -> None:
    running = await hands.spawn(Program(argv=["cat"], stdin=True), key=KEY)
    exits: list[Exit] = []

    async def wait() -> None:
        exits.append(await hands.wait(KEY))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(wait)
        await anyio.lowlevel.checkpoint()
        await hands.signal(KEY, signal.SIGINT)
    await wait()
    assert exits == [exits[0]] * 4
    assert exits[0].signal == 2
    assert [(p.key, p.pid) for p in await hands.known()] == [(KEY, running.pid)]
    await hands.forget(KEY)
    assert await hands.known() == []


async def test_an_unknown_key_is_not_found(hands: Hands) -> None:
    for call in (hands.wait(KEY), hands.signal(KEY, 1), hands.kill(KEY, grace=0)):
        with pytest.raises(CallError) as caught:
            await call
        assert caught.value.code == Code.NOT_FOUND


@pytest.mark.parametrize("number", [-1, 0, 65, 1000])
async def test_a_number_that_is_no_signal_is_invalid(hands: Hands, number: int) -> None:
    await hands.spawn(Program(argv=["cat"], stdin=True), key=KEY)
    with pytest.raises(CallError) as caught:
        await hands.signal(KEY, number)
    assert caught.value.code == Code.INVALID


async def test_a_signal_after_the_end_goes_nowhere(hands: Hands) -> None:
    await hands.spawn(Program(argv=["true"]), key=KEY)
    await hands.wait(KEY)
    await hands.signal(KEY, 9)
    await hands.kill(KEY, grace=5)


async def test_a_signal_reaches_the_whole_group(hands: Hands) -> None:
    running = await hands.spawn(
        Program(argv=["/bin/sh", "-c", "sleep 60 & echo $!; wait"]), key=KEY
    )
    child = int(await read_line(running.stdout))
    await hands.signal(KEY, signal.SIGTERM)
    assert (await hands.wait(KEY)).signal == 15
    await until(lambda: not is_alive(child))


async def test_kill_gives_a_program_time_to_end(hands: Hands) -> None:
    code = (
        "import signal, sys\n"
        "signal.signal(15, lambda *_: sys.exit(42))\n"
        "print('ready', flush=True)\n"
        "signal.pause()"
    )
    running = await hands.spawn(python(code), key=KEY)
    await read_line(running.stdout)
    await hands.kill(KEY, grace=5)
    assert (await hands.wait(KEY)).status == 42


async def test_kill_ends_what_ignores_term(hands: Hands) -> None:
    running = await hands.spawn(
        Program(argv=["/bin/sh", "-c", "trap '' TERM; echo ready; sleep 60; sleep 60"]), key=KEY
    )
    await read_line(running.stdout)
    began = time.monotonic()
    await hands.kill(KEY, grace=0.2)
    assert 0.2 <= time.monotonic() - began < 2
    assert (await hands.wait(KEY)).signal == 9


async def test_kill_ends_what_is_stopped(hands: Hands) -> None:
    running = await hands.spawn(Program(argv=["/bin/sh", "-c", "kill -STOP $$"]), key=KEY)
    await until(lambda: (m := read_process(running.pid)) is not None and m.state == b"T")
    await hands.kill(KEY, grace=5)
    assert (await hands.wait(KEY)).signal == 15


async def test_kill_ends_what_the_program_left_behind(hands: Hands) -> None:
    running = await hands.spawn(
        Program(argv=["/bin/sh", "-c", "(trap '' TERM; echo; sleep 60) & echo $!"]), key=KEY
    )
    assert (await hands.wait(KEY)).status == 0
    words = [await read_line(running.stdout), await read_line(running.stdout)]
    child = int(max(words))
    assert is_alive(child)
    await hands.kill(KEY, grace=0.1)
    assert not is_alive(child)


async def test_kill_reaches_the_jobs_of_a_shell(hands: Hands) -> None:
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setpgid(0, 0)\n"
        "    print(os.getpid(), flush=True)\n"
        "time.sleep(60)"
    )
    running = await hands.spawn(python(code), key=KEY)
    job = int(await read_line(running.stdout))
    await hands.kill(KEY, grace=5)
    assert (await hands.wait(KEY)).signal == 15
    await until(lambda: not is_alive(job))


async def test_kill_reaches_what_left_the_session(hands: Hands) -> None:
    running = await hands.spawn(
        Program(argv=["/bin/sh", "-c", "setsid sleep 60 & echo $!; wait"]), key=KEY
    )
    gone = int(await read_line(running.stdout))
    await until(lambda: (m := read_process(gone)) is not None and m.session == gone)
    await hands.kill(KEY, grace=1)
    assert not is_alive(gone)


async def test_the_end_is_seen_while_a_child_holds_the_pipe(hands: Hands) -> None:
    running = await hands.spawn(Program(argv=["/bin/sh", "-c", "sleep 60 & echo hi"]), key=KEY)
    assert (await hands.wait(KEY)).status == 0
    assert await read_line(running.stdout) == b"hi"
    with pytest.raises(BlockingIOError):
        os.read(running.stdout, 1)  # the child may still write
    await hands.kill(KEY, grace=1)
    assert await read_all(running.stdout) == b""


async def test_a_status_that_others_took_is_not_invented(hands: Hands) -> None:
    running = await hands.spawn(Program(argv=["cat"], stdin=True), key=KEY)
    os.kill(running.pid, signal.SIGKILL)
    os.wait4(running.pid, 0)  # noqa: ASYNC222 - it was killed; we take it before the loop does
    with pytest.raises(CallError) as caught:
        await hands.wait(KEY)
    assert (caught.value.code, caught.value.started) == (Code.OUTCOME_UNKNOWN, Started.YES)


async def test_the_oldest_ended_programs_are_forgotten(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ENDED", 2)
    for key in (b"1", b"2", b"3"):
        await hands.spawn(Program(argv=["true"]), key=key)
        await hands.wait(key)
    assert [program.key for program in await hands.known()] == [b"2", b"3"]


async def test_one_program_too_many_is_a_limit(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RUNNING", 1)
    await hands.spawn(Program(argv=["cat"], stdin=True), key=b"1")
    with pytest.raises(CallError) as caught:
        await hands.spawn(Program(argv=["true"]), key=b"2")
    assert caught.value.code == Code.LIMIT
    assert caught.value.details == {"size": 2, "limit": 1}


async def test_two_hundred_programs_leave_nothing(hands: Hands) -> None:
    async def one(number: int) -> None:
        key = b"%d" % number
        assert await output_of(hands, Program(argv=["echo", "x"]), key) == b"x\n"
        await hands.forget(key)

    threads = threading.active_count()
    for batch in range(0, 200, 20):
        async with anyio.create_task_group() as tasks:
            for number in range(batch, batch + 20):
                tasks.start_soon(one, number)
    assert await hands.known() == []
    assert threading.active_count() <= threads
    # `nothing_is_left_behind` looks for descriptors and zombies.


async def test_without_pidfds_a_thread_waits(
    local: LocalHands, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", missing)
    assert (await local.capabilities())["pidfd"] is False
    running = await hands.spawn(
        Program(argv=["/bin/sh", "-c", "(trap '' TERM; echo; sleep 60) & echo $!; exit 7"]), key=KEY
    )
    assert (await hands.wait(KEY)).status == 7
    child = int(max([await read_line(running.stdout), await read_line(running.stdout)]))
    await hands.kill(KEY, grace=0.1)
    assert not is_alive(child)


async def test_a_cancelled_spawn_starts_nothing(
    local: LocalHands, hands: Hands, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "folder").mkdir()
    may_go_on = threading.Event()
    open_directory = local._paths.open_directory

    def slowly(path: str) -> int:
        may_go_on.wait(5)
        return open_directory(path)

    monkeypatch.setattr(local._paths, "open_directory", slowly)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await hands.spawn(Program(argv=["touch", "here"], cwd="folder"), key=KEY)
    may_go_on.set()
    assert await hands.known() == []
    monkeypatch.undo()
    await hands.spawn(Program(argv=["true"], cwd="folder"), key=KEY)  # the key is free again
    await hands.wait(KEY)
    assert os.listdir(root / "folder") == []


async def test_closing_ends_what_still_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_GRACE", 0.2)
    async with LocalHands.open_root(str(root)) as hands:
        running = await hands.spawn(
            Program(argv=["/bin/sh", "-c", "trap '' TERM; echo; sleep 60 & wait; wait"]), key=KEY
        )
        await read_line(running.stdout)
        ended = await hands.spawn(Program(argv=["/bin/sh", "-c", "sleep 60 & echo $!"]), key=b"2")
        child = int(await read_line(ended.stdout))
        await hands.wait(b"2")
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert not is_alive(running.pid)
    assert not is_alive(child)
    for pipe in (running.stdout, running.stderr, ended.stdout, ended.stderr):
        os.close(pipe)
    with pytest.raises(CallError) as caught:
        await hands.spawn(Program(argv=["true"]), key=b"3")
    assert caught.value.code == Code.HANDS_AWAY
