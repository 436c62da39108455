"""With a cgroup for each program nothing gets away."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from sidecar.errors import CallError, Code
from sidecar.hands.interface import Program
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.local.proc import read_process

KEY = os.urandom(16)

# Forks twice out of its session and wipes its environment: no trace is left but the cgroup.
GONE = """
import os, sys, time
time.sleep(0.1)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while os.getppid() == os.getsid(0):
            time.sleep(0.001)
        os.write(1, b"%d" % os.getpid())
        os.execve("/bin/sleep", ["sleep", "60"], {})
    os._exit(0)
os.wait()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A cgroup of version 2 that is ours."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    roots = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"]
    if not roots or not os.access(roots[0] / "cgroup.procs", os.W_OK):
        pytest.skip("there is no cgroup of version 2 that we may write to")
    folder = roots[0] / f"sidecar-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    assert [path for path in folder.iterdir() if path.is_dir()] == []
    folder.rmdir()


@pytest.fixture
async def hands(folder: Path, root: Path) -> AsyncIterator[LocalHands]:
    async with LocalHands.open_root(str(root), adopt=True, cgroup=str(folder)) as hands:
        yield hands


@pytest.mark.optional
async def test_kill_ends_what_left_no_trace(hands: LocalHands, folder: Path) -> None:
    running = await hands.spawn(Program(argv=[sys.executable, "-c", GONE]), key=KEY)
    assert (await hands.wait(KEY)).status == 0
    await anyio.wait_readable(running.stdout)
    gone = int(os.read(running.stdout, 100))
    [inside] = [path for path in folder.iterdir() if path.is_dir()]
    assert (inside / "cgroup.procs").read_text() == f"{gone}\n"
    assert [survivor.pid for survivor in (await hands.survivors())[KEY]] == [gone]
    for pipe in (running.stdout, running.stderr):
        os.close(pipe or -1)
    await hands.kill(KEY, grace=0)
    process = read_process(gone)
    assert process is None or not process.is_alive


@pytest.mark.optional
async def test_a_cgroup_goes_with_the_next_program(hands: LocalHands, folder: Path) -> None:
    assert (await hands.capabilities())["cgroup"] == str(folder)
    for key in (b"1", b"2", b"3"):
        running = await hands.spawn(Program(argv=["true"]), key=key)
        await hands.wait(key)
        for pipe in (running.stdout, running.stderr):
            os.close(pipe or -1)
    with pytest.raises(CallError):
        await hands.spawn(Program(argv=["no-such-program"]), key=b"4")
    left = [path.name for path in folder.iterdir() if path.is_dir()]
    assert left == [f"exec-{os.getpid()}-{b'4'.hex()}"]  # removed when the next one comes


@pytest.mark.optional
async def test_a_closed_hands_ends_what_was_left(root: Path, folder: Path) -> None:
    async with LocalHands.open_root(str(root), adopt=True, cgroup=str(folder)) as hands:
        running = await hands.spawn(Program(argv=[sys.executable, "-c", GONE]), key=KEY)
        await hands.wait(KEY)
        await anyio.wait_readable(running.stdout)
        gone = int(os.read(running.stdout, 100))
        for pipe in (running.stdout, running.stderr):
            os.close(pipe or -1)
    process = read_process(gone)
    assert process is None or not process.is_alive
    # `folder` looks for what is left of cgroups.


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_folder_that_is_no_cgroup_is_refused(root: Path, is_there: bool) -> None:
    folder = root if is_there else root / "nothing"
    with pytest.raises(CallError) as caught:
        async with LocalHands.open_root(str(root), cgroup=str(folder)):
            pass
    assert caught.value.code == Code.UNSUPPORTED


async def test_hands_without_a_cgroup_says_so(root: Path) -> None:
    async with LocalHands.open_root(str(root)) as hands:
        capabilities = await hands.capabilities()
    assert capabilities["cgroup"] is False
    assert capabilities["pty"] is True
    assert capabilities["landlock"] is False or str(capabilities["landlock"]).isdecimal()
