"""Work as agents have it done, through `sidecar run` as a process of its own, counted in /proc.

All of it in both forms: hands inside of it, and `sidecar hands` as one more process.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from procs import Held, alive_with, held, sleep_of_its_own
from stack import RUN, Stack, open_stack, until

from sidecar.client import CallError, Code, Run

MB, MIB, GIB = 1_000_000, 1 << 20, 1 << 30
CLIENT = Path(__file__).parent / "support" / "killed_client.py"


@pytest.fixture(scope="module", params=["in-process", "socket"])
async def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path_factory.mktemp(request.param), sidecars=0) as stack:
        yield stack


@pytest.fixture(scope="module")
async def parts(stack: Stack, request: pytest.FixtureRequest) -> AsyncIterator[list[int]]:
    """Its processes; the last one is the parent of programs."""
    if stack.workspace.parent.name.startswith("in-process"):
        yield [stack.start_sidecar_process().pid]
        return
    with tempfile.TemporaryDirectory(prefix="hands-") as folder:  # a socket needs a short path
        socket = Path(folder) / "socket"
        hands = await stack.start_hands_process(socket)
        yield [stack.start_sidecar_process(hands=str(socket)).pid, hands.pid]


@pytest.fixture(scope="module")
async def run(stack: Stack, parts: list[int]) -> Run:
    return await stack.attach()


# Tools -------------------------------------------------------------------------------------

GIT = "git -c user.name=me -c user.email=me@example.org -c init.defaultBranch=main"


async def test_git_makes_a_repository_clones_it_and_reads_its_log(run: Run) -> None:
    made = await run.exec(
        f"{GIT} init -q origin && cd origin && echo text > file && {GIT} add file"
        f" && {GIT} commit -q -m first && {GIT} clone -q . ../clone"
    )
    made.check()
    read = await run.exec(["git", "log", "--format=%an %s", "--stat"], cwd="clone")
    assert read.stdout.decode().splitlines()[0] == "me first"
    assert "1 file changed" in read.stdout.decode()


MAKEFILE = """\
PARTS := $(foreach n,$(shell seq 64),part-$(n))
whole: $(PARTS)
\tcat $(PARTS) > $@
part-%:
\t@echo making $@; sleep 0.01; echo $* > $@
"""


async def test_make_runs_eight_jobs_at_once(run: Run, stack: Stack) -> None:
    project = stack.workspace / "project"
    project.mkdir()
    (project / "Makefile").write_text(MAKEFILE)
    made = (await run.exec(["make", "-j8"], cwd="project")).check()
    told = made.stdout.decode().splitlines()
    assert sorted(told[:-1]) == sorted(f"making part-{n}" for n in range(1, 65))
    assert (project / "whole").read_text().split() == [str(n) for n in range(1, 65)]


@pytest.mark.slow
async def test_pytest_runs_the_own_tests_of_a_real_package(run: Run) -> None:
    """websocket-client brings its tests along; those that want the Internet skip themselves."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ended = await run.exec([*command, "--pyargs", "websocket.tests"], timeout=50)
    last = ended.stdout.decode().splitlines()[-1]
    assert ended.status == 0, last
    assert int(last.split()[0]) > 100  # "195 passed, 26 skipped in 2.77s"


# Nothing is left ---------------------------------------------------------------------------


KEPT = 2 * 32  # descriptors: `sidecar hands` has two of what ended and is not forgotten yet


async def _at_rest(parts: list[int]) -> list[Held]:
    """What they hold once they have done what they had to."""
    found = [held(pid) for pid in parts]
    with anyio.fail_after(10):
        while True:
            await anyio.sleep(0.3)
            before, found = found, [held(pid) for pid in parts]
            if _countable(before) == _countable(found):
                return found


def _no_more(after: list[Held], before: list[Held]) -> bool:
    return all(
        now.descriptors <= was.descriptors + number * KEPT
        and now.children <= was.children
        and now.threads <= was.threads
        for number, (now, was) in enumerate(zip(after, before, strict=True))
    )


def _countable(found: Iterable[Held]) -> list[tuple[int, int]]:
    return [(one.descriptors, one.children) for one in found]


async def _many(run: Run, count: int) -> None:
    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(_numbered, run, number)


async def _numbered(run: Run, number: int) -> None:
    ended = await run.exec(f"echo {number}; exit {number % 200}")
    assert (int(ended.stdout), ended.status) == (number, number % 200)


@pytest.mark.slow
async def test_a_thousand_programs_leave_nothing(run: Run, parts: list[int]) -> None:
    for _ in range(3):
        await _many(run, 200)  # what is kept of programs that ended is as much as it will be
    before = await _at_rest(parts)
    for number in range(1000):
        await _numbered(run, number)
    await _many(run, 200)
    after = await _at_rest(parts)
    assert _no_more(after, before), (after, before)
    for was, now in zip(before, after, strict=True):
        # Receipts and events of each are kept for hours, below bounds of their own. (It is
        # at most 5,600 each here, and 500 over 7,200 programs: the heap has grown by then.)
        assert now.resident - was.resident < 1200 * 8192


@pytest.mark.slow
async def test_a_gigabyte_of_output_takes_constant_memory(run: Run, parts: list[int]) -> None:
    async def follow(size: int) -> int:
        got = 0
        command = ["head", "-c", str(size), "/dev/zero"]
        async with run.process(command, on_full="hold") as program:
            async for _, chunk in program.output():
                got += len(chunk)
            (await program.wait()).check()
        return got

    assert await follow(MIB) == MIB
    await _many(run, 200)  # so that nothing of programs of other tests is kept any more
    before = await _at_rest(parts)
    for pid in parts:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew: proc(5)
    assert await follow(GIB) == GIB
    for pid, was in zip(parts, before, strict=True):
        assert _peak(pid) - was.resident <= 32 * MIB
    await _many(run, 200)
    after = await _at_rest(parts)
    assert _no_more(after, before), (after, before)


def _peak(pid: int) -> int:
    [line] = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmHWM" in line
    ]
    return int(line.split()[1]) * 1024


# Ends --------------------------------------------------------------------------------------


async def test_a_program_that_ignores_term_is_killed_after_the_grace(run: Run) -> None:
    shell = "trap '' TERM; echo $$; while :; do sleep 0.01; done"
    async with run.open("exec.run", {"shell": shell, "timeout": 0.2, "grace": 0.2}) as call:
        pid = int(await call.receiver(1).receive())
        with pytest.raises(CallError) as caught:
            await call.wait()
    assert caught.value.code is Code.TIMEOUT
    assert caught.value.details["signal"] == signal.SIGKILL
    assert not Path(f"/proc/{pid}").exists()


DETACHED = {
    "setsid": "setsid sleep {} &",
    "double fork": "(setsid sh -c 'sleep {} & exit' &)",
    "a closed terminal and no output": "setsid -f sleep {} >/dev/null 2>&1 </dev/null",
    "another name and folder": "ln -sf $(command -v sleep) nap; (cd /; setsid $OLDPWD/nap {} &)",
}


@pytest.mark.parametrize("shell", DETACHED.values(), ids=DETACHED)
async def test_what_leaves_its_session_is_listed_as_a_survivor_and_killed(
    shell: str, run: Run, parts: list[int]
) -> None:
    with sleep_of_its_own() as while_:
        started = await run.call("exec.start", {"shell": shell.format(while_)})
        program = {"exec": started["exec"]}
        assert (await run.call("exec.wait", program))["status"] == 0
        await until(lambda: len(alive_with(while_)) == 1)
        [pid] = alive_with(while_)
        listed = await run.call("exec.list")
        [entry] = [entry for entry in listed["processes"] if entry["exec"] == started["exec"]]
        assert [survivor["pid"] for survivor in entry["survivors"]] == [pid]
        await run.call("exec.kill", program)
        assert alive_with(while_) == []
    await until(lambda: held(parts[-1]).children == 0)


async def test_a_program_outlives_the_client_that_was_killed_and_its_output_is_all_there(
    stack: Stack, run: Run
) -> None:
    shell = "echo ready; until [ -e on ]; do sleep 0.01; done; seq 300000; touch finished"
    client = stack.start_child(str(CLIENT), stack.url("killed"), RUN, shell)
    id = bytes.fromhex((await _line(client)).decode())
    assert await _line(client) == b"reading"
    client.kill()
    (stack.workspace / "on").touch()
    await until((stack.workspace / "finished").exists)
    async with run.open("exec.attach", {"exec": id}) as call:
        arrived = [chunk async for chunk in call.receiver(1)]
        assert (await call.wait())["status"] == 0
    expected = "ready\n" + "".join(f"{n}\n" for n in range(1, 300_001))
    assert b"".join(arrived).decode() == expected


async def _line(child: subprocess.Popen[bytes]) -> bytes:
    assert child.stdout is not None
    line = await anyio.to_thread.run_sync(child.stdout.readline)
    return bytes(line).strip()


# Beside programs that behave badly ---------------------------------------------------------

LASTS = "[ -d /proc/$PPID ]"  # as long as the one who started it
CROWD = "read -r _ _ _ tasks _ </proc/loadavg && [ ${tasks#*/} -lt 3000 ]"  # zombies count
BADLY = {
    "writes without end": "cat /dev/zero",
    "prints lines without end": f"while {LASTS}; do echo line; done",
    "forks without end": f"while {LASTS} && {CROWD}; do (true &); done",
    "eats memory": f"ulimit -v {GIB // 1024}; while {LASTS}; do tail /dev/zero; done",
}


@pytest.mark.slow
@pytest.mark.parametrize("shell", BADLY.values(), ids=BADLY)
async def test_a_ping_is_answered_beside_a_program_that(
    shell: str, run: Run, parts: list[int]
) -> None:
    program = await run.start(shell)
    await anyio.sleep(0.3)
    taken = sorted([await run.ping() for _ in range(100)])
    [state] = [one.state for one in await run.processes() if one.id == program.id]
    assert state == "running"
    assert taken[len(taken) // 2] < 0.1  # 30 times what it takes, for a busy machine
    assert taken[-1] < 1.0
    await program.kill(grace=0)
    await until(lambda: held(parts[-1]).children == 0)


# PID 1 -------------------------------------------------------------------------------------

NAMESPACE = ("unshare", "--pid", "--mount-proc", "--kill-child", "--map-root-user")


@pytest.mark.optional
async def test_as_pid_1_it_reaps_strangers_and_gets_the_exits_of_its_own(tmp_path: Path) -> None:
    if (await anyio.run_process([*NAMESPACE, "true"], check=False)).returncode != 0:
        pytest.skip("this kernel or container allows no namespaces")
    async with open_stack(tmp_path, sidecars=0) as stack:
        stack.start_sidecar_process(prefix=NAMESPACE)
        run = await stack.attach()
        first = await run.exec("tr '\\0' ' ' < /proc/1/cmdline; (setsid sh -c 'sleep 0.1 &' &)")
        assert b"sidecar run" in first.stdout
        await _many(run, 100)  # while orphans end, each is told its own status

        look = "cat /proc/[0-9]*/stat 2>/dev/null | sed 's/.*) //' | grep -c ^Z"
        left = await run.exec(f"(sleep 0.05 &); until [ $({look}) = 0 ]; do :; done", timeout=10)
        assert left.status == 0

        with pytest.raises(CallError) as caught:
            await run.exec("setsid sleep 600 & sleep 600", timeout=0.2)
        assert caught.value.code is Code.TIMEOUT
        left = await run.exec("cat /proc/[0-9]*/comm | grep -c sleep")
        assert left.stdout.strip() == b"0"
