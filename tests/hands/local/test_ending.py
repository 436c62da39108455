"""Trees of real processes, and that kill leaves nothing of them.

They are built so that the machine outlives a kill that fails: a tree forks `FORKS` times in all,
and whoever is alive in it reads from a pipe which ends with the test, or with its process.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from anyio import to_thread

from sidecar.errors import CallError, Code
from sidecar.hands.interface import Program, Running, Target
from sidecar.hands.local import programs, tree
from sidecar.hands.local.environment import MARK
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.local.proc import read_all, read_process, read_variable
from sidecar.hands.local.record import Record

KEY = os.urandom(16)  # not the one of tests that run beside us
FORKS = 400  # in one tree

# What each tree below can say and do.
HELPERS = """
import os, signal, sys, time
life = os.open(sys.argv[1], os.O_RDONLY)
budget, rest = os.pipe()
os.write(rest, bytes(int(sys.argv[2])))
os.close(rest)
def fork():
    "The only way to: each takes a byte, whoever it is in the tree, and there are only so many."
    os.read(budget, 1) or os._exit(0)
    return os.fork()
def last():
    "Until a signal comes, or the test is over."
    os.read(life, 1)
    os._exit(0)
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def daemon(work):
    "Forks twice, with a session in between, whose leader ends before `work` begins."
    middle = fork()
    if middle == 0:
        os.setsid()
        if fork() == 0:
            while os.getppid() == os.getsid(0):
                time.sleep(0.001)
            work()
        os._exit(0)
    os.waitpid(middle, 0)
def wiped(*argv):
    os.execve("/bin/" + argv[0], argv, {})
def stay():
    say(os.getpid())
    last()
"""

Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def adopting(root: Path) -> AsyncIterator[LocalHands]:
    """Hands as in a process of its own. Nothing here may start a child by itself."""
    async with LocalHands.open_root(str(root), adopt=True) as hands:
        yield hands


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Path]:
    """A pipe that is open for writing as long as the test lasts."""
    life = tmp_path / "life"
    os.mkfifo(life)
    held = os.open(life, os.O_RDWR | os.O_CLOEXEC)
    yield life
    os.close(held)


@pytest.fixture
async def start(life: Path, adopting: LocalHands) -> AsyncIterator[Start]:
    """Starts Python code with the helpers; what was opened is closed when the test has ended."""
    started: list[Running] = []

    async def start(code: str, *, key: bytes = KEY, forks: int = FORKS) -> Running:
        argv = [sys.executable, "-I", "-S", "-c", HELPERS + code, str(life), str(forks)]
        running = await adopting.spawn(Program(argv=argv), key=key)
        started.append(running)
        return running

    yield start
    await adopting.aclose()
    for running in started:
        os.close(running.stdout)
        assert running.stderr is not None
        os.close(running.stderr)


async def read_pids(running: Running, count: int) -> list[int]:
    content = b""
    with anyio.fail_after(10):
        while content.count(b"\n") < count:
            await anyio.wait_readable(running.stdout)
            piece = os.read(running.stdout, 65536)
            assert piece, "the programs ended before they had said who they are"
            content += piece
    return [int(word) for word in content.split()]


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - another process sets no event
            await anyio.sleep(0.005)


def is_alive(pid: int) -> bool:
    process = read_process(pid)
    return process is not None and process.is_alive


def is_stopped(pid: int) -> bool:
    process = read_process(pid)
    return process is not None and process.state == b"T"


async def test_kill_ends_what_forked_twice(adopting: LocalHands, start: Start) -> None:
    running = await start("daemon(stay); last()")
    [daemon] = await read_pids(running, 1)
    process = read_process(daemon)
    assert process is not None
    assert (process.parent, process.session == running.pid) == (os.getpid(), False)
    began = time.monotonic()
    await adopting.kill(KEY, grace=5)
    assert time.monotonic() - began < 2
    assert not is_alive(daemon)
    assert (await adopting.wait(KEY)).signal == 15


async def test_kill_ends_what_an_ended_program_left(adopting: LocalHands, start: Start) -> None:
    running = await start("daemon(stay); fork() or stay()")
    pids = await read_pids(running, 2)
    assert (await adopting.wait(KEY)).status == 0
    survivors = await adopting.survivors()
    assert sorted(survivor.pid for survivor in survivors[KEY]) == sorted(pids)
    for survivor in survivors[KEY]:
        assert survivor.name.startswith(b"python")
        process = read_process(survivor.pid)
        assert process is not None
        assert survivor.start_time == process.start_time
    await adopting.kill(KEY, grace=5)
    assert not any(map(is_alive, pids))
    assert await adopting.survivors() == {}


async def test_what_ignores_term_gets_the_kill_wherever_it_is(
    adopting: LocalHands, start: Start
) -> None:
    running = await start("signal.signal(15, signal.SIG_IGN); daemon(stay); stay()")
    pids = await read_pids(running, 2)
    began = time.monotonic()
    await adopting.kill(KEY, grace=0.2)
    assert 0.2 <= time.monotonic() - began < 2
    assert not any(map(is_alive, pids))
    assert (await adopting.wait(KEY)).signal == 9


async def test_without_grace_nothing_gets_to_act(adopting: LocalHands, start: Start) -> None:
    running = await start("signal.signal(15, lambda *_: say('acted')); daemon(stay); stay()")
    pids = await read_pids(running, 2)
    await adopting.kill(KEY, grace=0)
    assert not any(map(is_alive, pids))
    assert (await adopting.wait(KEY)).signal == 9
    assert os.read(running.stdout, 100) == b""


async def test_what_cleans_up_when_told_to_end_is_left_the_time(
    adopting: LocalHands, start: Start
) -> None:
    code = (
        "def clean(*_):\n"
        "    child = fork()\n"
        "    if child == 0:\n"
        "        signal.signal(15, signal.SIG_DFL); time.sleep(0.3); os._exit(7)\n"
        "    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "signal.signal(15, clean); stay()"
    )
    await read_pids(await start(code), 1)
    await adopting.kill(KEY, grace=5)
    assert (await adopting.wait(KEY)).status == 7


async def test_kill_ends_what_is_stopped_and_out_of_the_session(
    adopting: LocalHands, start: Start
) -> None:
    running = await start("daemon(stay)")
    [daemon] = await read_pids(running, 1)
    await adopting.wait(KEY)
    os.kill(daemon, signal.SIGSTOP)
    await until(lambda: is_stopped(daemon))
    await adopting.kill(KEY, grace=5)
    assert not is_alive(daemon)


async def test_a_wiped_environment_hides_nobody_whose_parent_lives(
    adopting: LocalHands, start: Start
) -> None:
    code = (
        "child = fork()\nif child == 0:\n    os.setsid(); wiped('sleep', '60')\nsay(child); last()"
    )
    running = await start(code)
    [child] = await read_pids(running, 1)
    await until(lambda: (p := read_process(child)) is not None and p.name == b"sleep")
    await adopting.kill(KEY, grace=0)
    assert not is_alive(child)


async def test_an_orphan_without_any_sign_is_nobodys(adopting: LocalHands, start: Start) -> None:
    code = "daemon(lambda: [say(os.getpid()), wiped('sleep', '60')]); last()"
    running = await start(code)
    [daemon] = await read_pids(running, 1)
    await until(lambda: (p := read_process(daemon)) is not None and p.name == b"sleep")
    await adopting.kill(KEY, grace=0)
    assert is_alive(daemon)  # it might be a stranger's
    os.kill(daemon, signal.SIGKILL)
    await until(lambda: read_process(daemon) is None)  # it was reaped


async def test_what_a_look_has_found_is_found_without_any_sign(
    adopting: LocalHands, start: Start
) -> None:
    code = (
        "if fork() == 0:\n    os.setsid(); say(os.getpid()); time.sleep(0.2); wiped('sleep', '60')"
    )
    running = await start(code)
    [child] = await read_pids(running, 1)
    await adopting.wait(KEY)
    assert [survivor.pid for survivor in (await adopting.survivors())[KEY]] == [child]
    await until(lambda: (p := read_process(child)) is not None and p.name == b"sleep")
    await adopting.kill(KEY, grace=1)
    assert not is_alive(child)


# Each is done again and again.
FORKING = {
    "children that stay": "fork() or last()",
    "children that leave the session": "fork() or [os.setsid(), last()]",
    "children that end": "fork() or os._exit(0)",
    "children without environment": "fork() or [os.setsid(), wiped('sleep', '60')]",
    "orphans": "fork() or [fork() or [os.setsid(), last()], os._exit(0)]",
}
HOPPING = {  # there is only one at a time, so it may go on for longer
    "itself, again and again": "fork() and os._exit(0)",
    "itself, into new sessions": "os._exit(0) if fork() else os.setsid()",
}


@pytest.mark.parametrize(
    "fork, forks",
    [pytest.param(fork, FORKS, id=id) for id, fork in FORKING.items()]
    + [pytest.param(fork, 10 * FORKS, id=id) for id, fork in HOPPING.items()],
)
async def test_kill_outruns_what_forks_all_the_time(
    adopting: LocalHands, start: Start, fork: str, forks: int
) -> None:
    code = (
        "signal.signal(15, signal.SIG_IGN); signal.signal(17, signal.SIG_IGN)\n"
        f"say(os.getpid())\nwhile True:\n    {fork}\n"
    )
    running = await start(code, forks=forks)
    await read_pids(running, 1)
    await anyio.sleep(0.05)  # let it grow
    await adopting.kill(KEY, grace=0)
    assert await to_thread.run_sync(marked) == []


def marked() -> list[int]:
    """Every living process that has the key of our program in its environment."""
    wanted = KEY.hex().encode()
    living = [process.pid for process in read_all().values() if process.is_alive]
    return [pid for pid in living if read_variable(pid, MARK) == wanted]


async def test_two_hundred_survivors_are_listed_and_ended(
    adopting: LocalHands, start: Start
) -> None:
    code = "for _ in range(200):\n    if fork() == 0:\n        os.setsid(); stay()"
    pids = await read_pids(await start(code), 200)
    await adopting.wait(KEY)
    survivors = await adopting.survivors()
    assert sorted(survivor.pid for survivor in survivors[KEY]) == sorted(pids)
    began = time.monotonic()
    await adopting.kill(KEY, grace=5)
    assert time.monotonic() - began < 3
    assert not any(map(is_alive, pids))


async def test_survivors_are_told_apart_by_their_programs(
    adopting: LocalHands, start: Start
) -> None:
    one = await start("daemon(stay)", key=b"1" * 16)
    two = await start("daemon(stay); stay()", key=b"2" * 16)
    none = await start("", key=b"3" * 16)
    [survivor] = await read_pids(one, 1)
    others = await read_pids(two, 2)
    await adopting.wait(b"1" * 16)
    await adopting.wait(b"3" * 16)
    found = await adopting.survivors()
    assert {key: [s.pid for s in left] for key, left in found.items()} == {b"1" * 16: [survivor]}
    await adopting.kill(b"1" * 16, grace=5)
    assert (is_alive(survivor), all(map(is_alive, others))) == (False, True)
    assert none.pid != one.pid


@pytest.mark.parametrize(
    "target, hit", [("program", 1), ("group", 2), ("tree", 3)], ids=["program", "group", "tree"]
)
async def test_a_signal_goes_to_whom_it_is_meant_for(
    adopting: LocalHands, start: Start, target: str, hit: int
) -> None:
    code = "if fork() == 0:\n    stay()\ndaemon(stay); stay()"
    running = await start(code)
    pids = await read_pids(running, 3)
    await adopting.signal(KEY, signal.SIGSTOP, Target(target))
    await until(lambda: sum(map(is_stopped, pids)) == hit)
    assert is_stopped(running.pid)


async def test_a_signal_to_a_tree_reaches_what_an_ended_program_left(
    adopting: LocalHands, start: Start
) -> None:
    [daemon] = await read_pids(await start("daemon(stay)"), 1)
    await adopting.wait(KEY)
    for target in (Target.PROGRAM, Target.GROUP):
        await adopting.signal(KEY, signal.SIGKILL, target)
    assert is_alive(daemon)
    await adopting.signal(KEY, signal.SIGKILL, Target.TREE)
    await until(lambda: not is_alive(daemon))


async def test_a_signal_to_the_foreground_needs_a_terminal(
    adopting: LocalHands, start: Start
) -> None:
    await read_pids(await start("stay()"), 1)
    with pytest.raises(CallError) as caught:
        await adopting.signal(KEY, signal.SIGINT, Target.FOREGROUND)
    assert caught.value.code == Code.INVALID


async def test_two_may_kill_at_once(adopting: LocalHands, start: Start) -> None:
    running = await start("signal.signal(15, signal.SIG_IGN); daemon(stay); stay()")
    pids = await read_pids(running, 2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(adopting.kill, KEY, grace=5))
        tasks.start_soon(partial(adopting.kill, KEY, grace=0.1))
    assert not any(map(is_alive, pids))
    await adopting.kill(KEY, grace=5)


async def test_a_kill_waits_for_a_program_that_is_being_started(
    adopting: LocalHands, root: Path
) -> None:
    (root / "folder").mkdir()
    running: list[Running] = []

    async def spawn() -> None:
        program = Program(argv=["sleep", "60"], cwd="folder")
        running.append(await adopting.spawn(program, key=KEY))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(spawn)
        await anyio.lowlevel.checkpoint()
        assert await adopting.known() == []
        await adopting.kill(KEY, grace=5)
    assert (await adopting.wait(KEY)).signal == 15
    os.close(running[0].stdout)
    os.close(running[0].stderr or -1)


async def test_a_later_owner_of_a_pid_is_in_nobodys_tree(
    adopting: LocalHands, start: Start
) -> None:
    running = await start("stay()")
    await read_pids(running, 1)
    earlier = Record(b"x" * 16, running.pid, running.start_time - 1, owns_session=True)
    earlier.seen = {running.pid: running.start_time - 1}
    earlier.sessions = frozenset({running.pid})
    earlier.ended.set()
    found = await to_thread.run_sync(tree.look, [earlier], [running.pid])
    assert found == {earlier: []}


async def test_a_sidecar_inside_of_a_tree_keeps_nothing_from_it(
    adopting: LocalHands, start: Start, root: Path
) -> None:
    code = (
        f"sys.path[:] = {sys.path!r}\n"
        "import anyio\n"
        "from sidecar.hands.interface import Program\n"
        "from sidecar.hands.local.hands import LocalHands\n"
        "async def main():\n"
        f"    async with LocalHands.open_root({str(root)!r}, adopt=True) as hands:\n"
        "        program = Program(shell='setsid sleep 60 & echo $!; exit')\n"
        "        running = await hands.spawn(program, key=b'inner')\n"
        "        await hands.wait(b'inner')\n"
        "        say(int(os.read(running.stdout, 100)))\n"
        "        await anyio.sleep(60)\n"
        "anyio.run(main)"
    )
    [sleep] = await read_pids(await start(code), 1)
    assert await to_thread.run_sync(read_variable, sleep, MARK) == b"inner".hex().encode()
    await adopting.kill(KEY, grace=0)
    assert not is_alive(sleep)


async def test_closing_ends_all_trees(
    adopting: LocalHands, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "CLOSE_GRACE", 0.2)
    ended = await start("signal.signal(15, signal.SIG_IGN); daemon(stay)", key=b"1" * 16)
    running = await start("daemon(stay); stay()", key=b"2" * 16)
    pids = await read_pids(ended, 1) + await read_pids(running, 2)
    await adopting.wait(b"1" * 16)
    began = time.monotonic()
    await adopting.aclose()
    assert time.monotonic() - began < 5
    assert not any(map(is_alive, pids))
