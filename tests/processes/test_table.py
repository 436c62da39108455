"""All programs: found, forgotten, evicted, taken up, and nothing left of them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import anyio
import pytest
from procs import alive_with, held, sleep_of_its_own
from programtable import Bench, open_bench, open_other, read_all
from stack import until

from sidecar.errors import CallError, Code
from sidecar.hands.interface import Known, Running
from sidecar.processes import table as module
from sidecar.processes.record import State
from sidecar.protocol.limits import PROGRAMS_KEPT

MIB = 1 << 20


async def test_a_program_is_found_by_its_id_and_a_stranger_is_not(bench: Bench) -> None:
    process = await bench.run("true")
    assert bench.table.find(process.id) is process
    with pytest.raises(CallError) as caught:
        bench.table.find(bytes(16))
    assert (caught.value.code, caught.value.message[-12:]) == (Code.NOT_FOUND, "is not known")


async def test_ended_programs_are_kept_up_to_a_bound_and_then_named_as_forgotten(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROGRAMS_KEPT", 4)
    monkeypatch.setattr(module, "TRIM_EVERY", 4)
    programs = [await bench.run("echo x", is_brief=number % 2 == 0) for number in range(8)]
    await until(lambda: len(bench.table.all()) == 4)
    # The four of exec.run were the first to go; hands forgot them, too.
    assert bench.table.all() == programs[1::2]
    await until(lambda: set(bench.hands.forgotten) == {one.id for one in programs[0::2]})
    with pytest.raises(CallError, match="ended and was forgotten"):
        bench.table.find(programs[0].id)


async def test_programs_that_end_together_are_forgotten_once_each(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PROGRAMS_KEPT", 0)
    monkeypatch.setattr(module, "TRIM_EVERY", 1)
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(bench.run, "true")
    await until(lambda: len(bench.hands.forgotten) == 20)
    assert len(set(bench.hands.forgotten)) == 20
    assert caplog.messages == []


async def test_one_with_survivors_or_readers_stays_while_others_can_go(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROGRAMS_KEPT", 2)
    monkeypatch.setattr(module, "TRIM_EVERY", 4)
    with sleep_of_its_own() as word:
        parent = await bench.run(f"setsid sleep {word} > /dev/null 2>&1 & sleep 0.05")
        read = await bench.run("echo read")
        source = read.outputs[1].source(0, paces=False)
        others = [await bench.run("true") for _ in range(2)]
        await until(lambda: len(bench.table.all()) == 2)
        assert bench.table.all() == [parent, read]
        assert not parent.is_held  # only /proc knew
        more = [await bench.run("true") for _ in range(4)]
        await until(lambda: len(bench.table.all()) == 2)
        assert [one for one in (*others, *more) if one in bench.table.all()] == []
    await source.aclose()


async def test_who_prints_into_a_forgotten_pipe_does_not_die_of_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROGRAMS_KEPT", 0)
    monkeypatch.setattr(module, "TRIM_EVERY", 1)
    with sleep_of_its_own() as word:
        parent = await bench.run(f"(sleep 0.3; yes | head -c 3000000; exec sleep {word}) & true")
        await bench.run("true")
        await until(lambda: parent not in bench.table.all())
        assert not alive_with(word)
        await until(lambda: bool(alive_with(word)))  # it got rid of all three megabytes


async def test_the_budget_evicts_the_oldest_that_hold_something(bench: Bench) -> None:
    bench.table.spools.limit = 5 * MIB  # one that runs reserves 1 MiB ahead, for each output
    empty = await bench.run("true")
    first = await bench.run("head -c 1500000 /dev/zero")
    second = await bench.run("head -c 1500000 /dev/zero")
    third = await bench.run("head -c 1500000 /dev/zero")
    assert bench.table.all() == [empty, second, third]
    assert third.outputs[1].spool.dropped == 0
    await until(lambda: bench.hands.forgotten == [first.id])


async def test_a_budget_full_of_running_programs_shrinks_the_newcomer(bench: Bench) -> None:
    bench.table.spools.limit = 3 * MIB
    running = await bench.start("head -c 2000000 /dev/zero; read line", stdin=True)
    await until(lambda: running.outputs[1].size == 2_000_000)
    late = await bench.run("head -c 2000000 /dev/zero")
    assert running in bench.table.all()
    assert late.outputs[1].spool.dropped > 0
    await running.kill(0)


async def test_a_program_that_only_hands_knows_is_taken_up(bench: Bench) -> None:
    """As after a restart of core: hands has the program and copies of its descriptors."""
    process = await bench.start("echo lost; read line; echo $line; exit 7", stdin=True)
    await until(lambda: process.outputs[1].size == 5)
    copies = _copies(process.pid)
    # Another core, with another table over the same hands.
    async with open_other(bench) as other:
        bench.hands.takeable[process.id] = Running(
            process.pid, process.start_time, copies[0], copies[1], copies[2]
        )
        await other.table.adopt_known()
        taken = other.table.find(process.id)
        assert (taken.state, taken.is_adopted, taken.owner) == (State.RUNNING, True, None)
        assert other.named("exec.adopted") == [{"pid": process.pid, "before": "unknown"}]
        assert taken.input is not None
        process.outputs[1].reader.stop()  # the core before is gone
        await taken.input.write(b"found\n")
        ended = await taken.settled()
        assert ended.exit is not None
        assert ended.exit.status == 7
        assert await read_all(taken) == b"found\n"


async def test_what_a_hands_makes_up_is_not_taken_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_TAKEN_UP", 2)
    asked: list[bytes] = []

    async def take(key: bytes) -> Running:
        asked.append(key)
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.close(writing)
        return Running(1, 1, None, reading, None)

    async def known() -> list[Known]:
        return [Known(key, 1, 1, True, False, b"") for key in (b"no id", b"", *ids)]

    ids = [bytes([number]) * 16 for number in range(5)]
    monkeypatch.setattr(bench.hands, "take", take)
    monkeypatch.setattr(bench.hands, "known", known)
    await bench.table.adopt_known()
    assert asked == ids[:2]


def _copies(pid: int) -> list[int]:
    """Our ends of a program's pipes, once more: as hands keeps them."""
    found = []
    for number in (0, 1, 2):
        inode = os.stat(f"/proc/{pid}/fd/{number}").st_ino
        wanted = os.O_WRONLY if number == 0 else os.O_RDONLY
        for name in os.listdir("/proc/self/fd"):
            try:
                same = os.stat(f"/proc/self/fd/{name}").st_ino == inode
            except FileNotFoundError:
                continue
            flags = int(Path(f"/proc/self/fdinfo/{name}").read_text().split()[3], 8)
            if same and flags & os.O_ACCMODE == wanted:
                found.append(os.dup(int(name)))
                break
    return found


async def test_a_program_is_taken_up_once_however_often_hands_comes_back(bench: Bench) -> None:
    process = await bench.start("exec sleep 60")
    async with open_other(bench) as other:
        out, err = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        running = Running(process.pid, process.start_time, None, out[0], err[0])
        bench.hands.takeable[process.id] = running
        async with anyio.create_task_group() as group:
            group.start_soon(other.table.adopt_known)
            group.start_soon(other.table.adopt_known)
        await other.table.adopt_known()
        assert [one.id for one in other.table.all()] == [process.id]
        assert len(other.named("exec.adopted")) == 1
    for fd in (out[1], err[1]):
        os.close(fd)
    await process.kill(0)


async def test_a_program_that_cannot_be_taken_up_is_left_to_hands(bench: Bench) -> None:
    process = await bench.start("exec sleep 60")
    async with open_other(bench) as other:
        await other.table.adopt_known()
        assert other.table.all() == []
    await process.kill(0)


async def test_a_task_of_a_program_that_fails_ends_nothing_else(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    bench.table._spawn(fail)
    await until(lambda: "ZeroDivisionError" in caplog.text)
    assert (await bench.run("true")).state is State.ENDED


@pytest.mark.slow
async def test_a_thousand_programs_one_after_the_other_leave_nothing(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        for _ in range(PROGRAMS_KEPT + 40):
            await bench.run("true")
        before, tasks = held(os.getpid()), len(anyio.get_running_tasks())
        for _ in range(300):
            await bench.run("true")
        await until(lambda: len(anyio.get_running_tasks()) <= tasks)
        after = held(os.getpid())
        assert (after.descriptors, after.children) == (before.descriptors, 0)
        assert after.threads <= before.threads
        assert after.resident - before.resident < 2 * MIB
        assert len(bench.table.all()) <= PROGRAMS_KEPT + module.TRIM_EVERY
        assert bench.table.spools.used == 0
    assert threading.active_count() < 50


async def test_the_end_of_the_table_releases_every_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with open_bench(tmp_path) as bench:
        await bench.start("exec sleep 60", stdin=True)
        await bench.start("head -c 1000000 /dev/zero; exec sleep 60")
        await bench.run("sleep 60 &")
        assert len(os.listdir("/proc/self/fd")) > before + 6
    assert len(os.listdir("/proc/self/fd")) == before
