"""Programs of a core that was killed, in the table of the next one."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from programtable import Bench, Reach, read_all
from stack import until

from sidecar.errors import CallError, Code
from sidecar.hands.interface import Program, Running
from sidecar.hands.local.hands import LocalHands
from sidecar.processes.ends import Link
from sidecar.processes.process import Process
from sidecar.processes.record import Spec, State
from sidecar.processes.store import ProgramStore
from sidecar.protocol.spool import OnFull


@asynccontextmanager
async def core(hands: Reach, folder: Path) -> AsyncIterator[Bench]:
    """One that begins with what the one before left on disk."""
    bench = Bench(hands, folder, await anyio.to_thread.run_sync(ProgramStore.open, folder))
    async with bench.table.running():
        yield bench


@pytest.fixture
async def hands(tmp_path: Path) -> AsyncIterator[Reach]:
    (tmp_path / "workspace").mkdir()
    async with LocalHands.open_root(str(tmp_path / "workspace")) as local:
        yield Reach(local)


def keep(hands: Reach, process: Process) -> None:
    """Hands has copies of its descriptors, for the next core."""
    pipes = [os.dup(process.outputs[n].reader._fd or -1) for n in (1, 2)]
    stdin = None
    if process.input is not None:
        stdin = os.dup(process.input._writer._fd or -1)
    hands.takeable[process.id] = Running(process.pid, process.start_time, stdin, *pipes)


async def test_a_program_goes_on_with_all_that_it_printed(hands: Reach, tmp_path: Path) -> None:
    async with core(hands, tmp_path) as first:
        process = await first.start(
            "echo one; read line; echo $line; exit 7",
            stdin=True,
            timeout=60.0,
            grace=0.5,
            on_full=OnFull.HOLD,
        )
        await until(lambda: process.outputs[1].size == 4)
        keep(hands, process)
    async with core(hands, tmp_path) as second:
        again = second.table.find(process.id)
        assert (again.pid, again.owner, again.state) == (process.pid, "me", State.RUNNING)
        assert (again.began, again.began_wall) == (process.began, process.began_wall)
        assert (again.spec, again.told) == (process.spec, process.told)
        assert not again.is_adopted
        assert second.named("exec.resumed") == [{"pid": process.pid}]
        assert again.input is not None
        await again.input.write(b"two\n")
        with anyio.fail_after(10):
            ended = await again.settled()
        assert ended.exit is not None
        assert ended.exit.status == 7
        assert await read_all(again) == b"one\ntwo\n"
        assert second.named("exec.gap") == []
    async with core(hands, tmp_path) as third:
        again = third.table.find(process.id)
        assert (again.ended, again.ended_wall, again.state) == (ended, again.ended_wall, "ended")
        assert await read_all(again) == b"one\ntwo\n"
        assert third.events == []


async def test_bytes_in_the_hands_of_a_killed_core_are_a_gap(hands: Reach, tmp_path: Path) -> None:
    async with core(hands, tmp_path) as first:
        process = await first.start("echo one; read line; echo two", stdin=True)
        await until(lambda: process.outputs[1].size == 4)
        keep(hands, process)
        process.outputs[1].spool.expect(1000)
    gap = {"at": 4, "bytes": None, "why": "killed"}
    async with core(hands, tmp_path) as second:
        again = second.table.find(process.id)
        assert second.named("exec.gap") == [{"pid": process.pid, "n": 1, **gap}]
        assert again.outputs[1].describe() == {"size": 4, "dropped": 0, "gaps": [gap]}
        keep(hands, again)
    async with core(hands, tmp_path) as third:
        again = third.table.find(process.id)
        assert third.named("exec.gap") == []  # it was told, and stays on record
        assert again.outputs[1].describe() == {"size": 4, "dropped": 0, "gaps": [gap]}
        await again.kill(0)


async def test_output_whose_spool_could_not_be_made_is_a_gap_and_nothing_else_is_lost(
    hands: Reach, tmp_path: Path
) -> None:
    async with core(hands, tmp_path) as first:
        process = await first.start("echo one")
        ended = await process.settled()
    os.truncate(tmp_path / "spools" / f"{process.id.hex()}.1", 0)  # as a full disk leaves it
    async with core(hands, tmp_path) as second:
        again = second.table.find(process.id)
        assert (again.ended, again.is_adopted) == (ended, False)
        assert [gap["at"] for gap in second.named("exec.gap")] == [0]
        assert second.named("exec.ended") == []


async def test_output_that_cannot_be_opened_is_not_taken_for_none(
    hands: Reach, tmp_path: Path
) -> None:
    async with core(hands, tmp_path) as first:
        process = await first.start("echo one; read line; echo two", stdin=True)
        await until(lambda: process.outputs[1].size == 4)
        keep(hands, process)
    spool = tmp_path / "spools" / f"{process.id.hex()}.1"
    spool.rename(tmp_path / "elsewhere")
    spool.symlink_to(tmp_path / "elsewhere")  # ELOOP
    async with core(hands, tmp_path) as second:
        await second.table.adopt_known()
        again = second.table.find(process.id)
        assert again.is_adopted  # what it printed before is not here
        keep(hands, again)
    async with core(hands, tmp_path) as third:  # nor does the next one take it for whole
        again = third.table.find(process.id)
        assert again.is_adopted
        assert again.outputs[1].spool.gaps == [0]
        assert again.input is not None
        await again.input.write(b"\n")
        await again.settled()
        assert await read_all(again) == b"two\n"


async def test_one_whose_pipes_are_gone_is_found_and_can_be_ended(
    hands: Reach, tmp_path: Path
) -> None:
    async with core(hands, tmp_path) as first:
        process = await first.start("echo one; read line", stdin=True)
        await until(lambda: process.outputs[1].size == 4)
        stdin = os.dup(process.input._writer._fd or -1) if process.input else -1
    async with core(hands, tmp_path) as second:
        again = second.table.find(process.id)
        assert (again.ends.link, again.state) == (Link.LOST, State.RUNNING)
        assert [gap["n"] for gap in second.named("exec.gap")] == [1, 2]
        assert await read_all(again) == b"one\n"
        assert again.input is None
        await again.kill(0)
        with anyio.fail_after(10):
            await again.settled()
    os.close(stdin)


async def test_one_that_is_gone_altogether_ends_unknown(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    async with LocalHands.open_root(str(workspace)) as local:
        async with core(Reach(local), tmp_path) as first:
            process = await first.start("echo one; exec sleep 60")
            await until(lambda: process.outputs[1].size == 4)
            os.kill(process.pid, signal.SIGKILL)
    async with LocalHands.open_root(str(workspace)) as local:
        async with core(Reach(local), tmp_path) as second:
            again = second.table.find(process.id)
            with anyio.fail_after(10):
                ended = await again.settled()
            assert (ended.exit, again.state) == (None, State.UNKNOWN)
            assert again.unknown().code is Code.OUTCOME_UNKNOWN
            assert await read_all(again) == b"one\n"
        async with core(Reach(local), tmp_path) as third:
            assert third.table.find(process.id).ended == ended
            assert third.events == []


async def test_a_program_waits_for_hands_that_is_away(hands: Reach, tmp_path: Path) -> None:
    async with core(hands, tmp_path) as first:
        process = await first.start("echo one; read line; exit 3", stdin=True)
        await until(lambda: process.outputs[1].size == 4)
        keep(hands, process)
    hands.is_away = True
    async with core(hands, tmp_path) as second:
        again = second.table.find(process.id)
        assert (again.state, again.ends.link) == (State.UNKNOWN, Link.WAITING)
        assert await read_all(again) == b"one\n"
        hands.come_back()
        await second.table.adopt_known()
        assert await again.ends.linked() is Link.CONNECTED
        assert again.input is not None
        await again.input.write(b"\n")
        with anyio.fail_after(10):
            ended = await again.settled()
        assert ended.exit is not None
        assert ended.exit.status == 3


async def test_what_was_forgotten_and_strange_files_are_gone(hands: Reach, tmp_path: Path) -> None:
    async with core(hands, tmp_path) as first:
        process = await first.run("echo one; echo two >&2")
        kept = await first.run("echo kept")
        first.table._drop(process)
        await first.table._forget(process)
        spools = tmp_path / "spools"
        assert sorted(os.listdir(spools)) == [f"{kept.id.hex()}.1"]
        (spools / f"{'ab' * 16}.1").touch()
    async with core(hands, tmp_path) as second:
        assert [one.id for one in second.table.all()] == [kept.id]
        assert sorted(os.listdir(spools)) == [f"{kept.id.hex()}.1"]
        with pytest.raises(CallError):
            second.table.find(process.id)
        assert second.table.spools.used == 5


async def test_a_program_that_could_not_be_started_leaves_nothing(
    hands: Reach, tmp_path: Path
) -> None:
    async with core(hands, tmp_path) as first:
        with pytest.raises(CallError):
            missing = Spec(Program(argv=["/missing"]))
            await first.table.start(missing, id=first.new_id(), owner=None)
    async with core(hands, tmp_path) as second:
        assert second.table.all() == []


def test_only_what_is_named_like_a_spool_is_swept(tmp_path: Path) -> None:
    (tmp_path / "spools").mkdir()
    for name in (f"{'0' * 32}.1", "passwd", f"{'0' * 32}.3", f"{'0' * 31}.1", "a.1"):
        (tmp_path / "spools" / name).touch()
    ProgramStore.open(tmp_path).close()
    left = sorted(os.listdir(tmp_path / "spools"))
    assert left == sorted(["passwd", f"{'0' * 32}.3", f"{'0' * 31}.1", "a.1"])
