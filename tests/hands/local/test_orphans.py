"""Orphans are adopted and reaped, and nobody's exit status is taken, as whoever we run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from sidecar.errors import CallError, Code
from sidecar.hands.interface import Program
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.local.proc import read_children, read_process
from sidecar.hands.local.record import Record
from sidecar.hands.local.syscalls import is_subreaper

KEY = os.urandom(16)

# A process of its own that is hands. It says how far it came, which a test compares.
CHECK = """
import os, sys
import anyio
from sidecar.hands.interface import Program
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.local.proc import read_children, read_process
async def main():
    {prepare}
    print(os.getpid() == 1, os.getuid())
    os.spawnlp(os.P_NOWAIT, "true", "true")  # a child that nobody waits for
    async with LocalHands.open_root("/tmp", adopt=True) as hands:
        print((await hands.capabilities())["subreaper"])
        many = "for i in $(seq 300); do (setsid true & true &); done; exit 7"
        await hands.spawn(Program(shell=many), key=b"many")
        print((await hands.wait(b"many")).status)
        left = "setsid sh -c 'sleep 60 & echo $!'; exit 3"
        running = await hands.spawn(Program(shell=left), key=b"left")
        print((await hands.wait(b"left")).status)
        await anyio.wait_readable(running.stdout)
        daemon = int(os.read(running.stdout, 100))
        survivors = await hands.survivors()
        print(daemon in [survivor.pid for survivor in survivors[b"left"]])
        await hands.kill(b"left", grace=5)
        print(read_process(daemon))
        with anyio.fail_after(10):
            while read_children():
                await anyio.sleep(0.01)
    print("done")
anyio.run(main)
"""


def said(is_first: bool, uid: int) -> str:
    return f"{is_first} {uid}\nTrue\n7\n3\nTrue\nNone\ndone\n"


def test_as_a_process_of_its_own() -> None:
    done = run([sys.executable, "-c", CHECK.format(prepare="pass")])
    assert done.stdout == said(False, os.getuid()), done.stderr


@pytest.mark.optional
def test_as_pid_1() -> None:
    done = run(["unshare", "--pid", "--fork", "--mount-proc", "true"])
    if done.returncode != 0:
        pytest.skip(f"cannot make a PID namespace: {done.stderr.strip()}")
    code = CHECK.format(prepare="pass")
    done = run(["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code])
    assert done.stdout == said(True, os.getuid()), done.stderr


@pytest.mark.optional
def test_without_any_capability() -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    # Only once all is imported, because the interpreter may lie where only root can go.
    prepare = (
        "async with LocalHands.open_root('/tmp', adopt=True) as hands:\n"
        "        await hands.spawn(Program(shell='true & true'), key=b'first')\n"
        "        await hands.kill(b'first', grace=1)\n"
        "    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(*[65534] * 3)"
    )
    done = run([sys.executable, "-c", CHECK.format(prepare=prepare)])
    assert done.stdout == said(False, 65534), done.stderr


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


async def test_who_does_not_adopt_takes_nobodys_status(root: Path) -> None:
    children = [
        subprocess.Popen(["sh", "-c", "exit 7"], start_new_session=is_new) for is_new in (0, 1)
    ]
    async with LocalHands.open_root(str(root)) as hands:
        assert not is_subreaper()
        for child in children:
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222
        running = await hands.spawn(Program(argv=["true"]), key=KEY)
        await hands.wait(KEY)
        assert [child.wait() for child in children] == [7, 7]
        os.close(running.stdout)
        os.close(running.stderr or -1)


async def test_what_is_left_to_init_is_found_there(root: Path) -> None:
    async with LocalHands.open_root(str(root)) as hands:
        program = Program(shell="setsid sh -c 'sleep 60 & echo $!'")
        running = await hands.spawn(program, key=KEY)
        await hands.wait(KEY)
        await anyio.wait_readable(running.stdout)
        daemon = int(os.read(running.stdout, 100))
        assert daemon not in (read_children() or ())
        survivors = (await hands.survivors())[KEY]
        assert daemon in [survivor.pid for survivor in survivors]  # its parent may still be there
        await hands.kill(KEY, grace=5)
        process = read_process(daemon)
        assert process is None or not process.is_alive
        os.close(running.stdout)
        os.close(running.stderr or -1)


async def test_two_hands_of_one_process_reap_no_program_of_each_other(root: Path) -> None:
    async with (
        LocalHands.open_root(str(root), adopt=True) as one,
        LocalHands.open_root(str(root)) as two,
    ):
        for number in range(20):
            for hands in (one, two):
                key = b"%d" % number
                running = await hands.spawn(Program(shell="true & exit 9"), key=key)
                assert (await hands.wait(key)).status == 9
                os.close(running.stdout)
                os.close(running.stderr or -1)
        with anyio.fail_after(5):
            while read_children():  # noqa: ASYNC110 - nobody says when a stranger was reaped
                await anyio.sleep(0.005)
        assert is_subreaper()
    assert not is_subreaper()


async def test_a_program_of_an_earlier_hands_is_signalled_and_ended(root: Path) -> None:
    script = "setsid sh -c 'sleep 60 & echo $!; exec sleep 60' & echo $!"
    environment = {**os.environ, "SIDECAR_EXEC_ID": KEY.hex()}
    pipe = subprocess.PIPE
    with subprocess.Popen(["sh", "-c", script], env=environment, stdout=pipe) as before:
        assert before.stdout is not None
        words = [before.stdout.readline(), before.stdout.readline()]
        before.wait()
    program, left = sorted(int(word) for word in words)
    process = read_process(program)
    assert process is not None
    async with LocalHands.open_root(str(root)) as hands:
        assert not hands.adopt(KEY, program, process.start_time - 1)
        assert hands.adopt(KEY, program, process.start_time)
        assert hands.adopt(KEY, program, process.start_time)  # once more changes nothing
        assert [known.pid for known in await hands.known()] == [program]
        await hands.kill(KEY, grace=5)
        for pid in (program, left):
            found = read_process(pid)
            assert found is None or not found.is_alive
        with pytest.raises(CallError) as caught:
            await hands.wait(KEY)
    assert caught.value.code == Code.OUTCOME_UNKNOWN


async def test_a_program_is_not_adopted_under_a_second_key(root: Path) -> None:
    async with LocalHands.open_root(str(root)) as hands:
        running = await hands.spawn(Program(shell="read x; exit 5", stdin=True), key=KEY)
        assert not hands.adopt(b"another", running.pid, running.start_time)
        assert running.stdin is not None
        os.close(running.stdin)
        with anyio.fail_after(5):
            assert (await hands.wait(KEY)).status == 5
        for descriptor in (running.stdout, running.stderr):
            assert descriptor is not None
            os.close(descriptor)


async def test_who_gets_the_number_of_a_program_that_ended_gets_its_session_too(
    root: Path,
) -> None:
    async with LocalHands.open_root(str(root)) as hands:
        running = await hands.spawn(Program(shell="sleep 60 <&- >&- 2>&- & exit 0"), key=KEY)
        await hands.wait(KEY)
        programs = hands._programs
        before = programs._ended[KEY]
        assert before.owns_session, "something of it is left"
        # A shell cannot be made to have a number, so its record is.
        number = running.pid
        programs._remember(Record(b"next", number, running.start_time + 1))
        assert not before.owns_session
        programs._pids.remove(number)
        del programs._running[b"next"]
        for descriptor in (running.stdout, running.stderr):
            assert descriptor is not None
            os.close(descriptor)
