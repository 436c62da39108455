"""That a program began and ended is told once, whoever of its sidecars was killed when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from programtable import Bench, Reach
from stack import until

from sidecar.hands.interface import Program, Running
from sidecar.hands.local.hands import LocalHands
from sidecar.processes import process as module
from sidecar.processes.process import Process
from sidecar.processes.record import Spec
from sidecar.processes.store import ProgramStore

SERIES, ANOTHER = b"s" * 16, b"t" * 16


@asynccontextmanager
async def core(
    hands: Reach, folder: Path, *, last: int, series: bytes = SERIES
) -> AsyncIterator[Bench]:
    """One that finds the journal to end at `last`, whatever the one before had told."""
    find = partial(ProgramStore.open, folder, series=series, last=last)
    bench = Bench(hands, folder, await anyio.to_thread.run_sync(find))
    bench.events += [("before", None)] * last
    async with bench.table.running():
        yield bench


@pytest.fixture
async def hands(tmp_path: Path) -> AsyncIterator[Reach]:
    (tmp_path / "workspace").mkdir()
    async with LocalHands.open_root(str(tmp_path / "workspace")) as local:
        yield Reach(local)


def told(bench: Bench) -> list[str]:
    return [name for name, _ in bench.events if name != "before"]


async def test_what_was_not_written_when_the_sidecar_was_killed_is_told_by_the_next(
    hands: Reach, tmp_path: Path
) -> None:
    async with core(hands, tmp_path, last=1) as first:
        await first.run("exit 3")
        assert told(first) == ["exec.started", "exec.ended"]
    async with core(hands, tmp_path, last=2) as second:
        assert told(second) == ["exec.ended"]
        assert second.events[-1][1]["status"] == 3
    async with core(hands, tmp_path, last=2) as third:
        assert told(third) == ["exec.ended"]
    async with core(hands, tmp_path, last=3) as fourth:
        assert told(fourth) == []


async def test_a_number_that_another_event_got_meanwhile_does_not_count_as_told(
    hands: Reach, tmp_path: Path
) -> None:
    async with core(hands, tmp_path, last=1) as first:
        await first.run("exit 3")
        assert told(first) == ["exec.started", "exec.ended"]  # 2 and 3
    find = partial(ProgramStore.open, tmp_path, series=SERIES, last=2)
    (await anyio.to_thread.run_sync(find)).close()  # killed when 3 was its own first event
    async with core(hands, tmp_path, last=3) as third:
        assert told(third) == ["exec.ended"]


async def test_a_journal_that_lacks_both_is_told_both(hands: Reach, tmp_path: Path) -> None:
    async with core(hands, tmp_path, last=1) as first:
        await first.run("exit 3")
    async with core(hands, tmp_path, last=1) as second:
        assert told(second) == ["exec.started", "exec.ended"]


async def test_what_was_told_in_another_series_is_not_told_again(
    hands: Reach, tmp_path: Path
) -> None:
    async with core(hands, tmp_path, last=5) as first:
        process = await first.start("read line", stdin=True)
        pipes = [process.outputs[n].reader._fd or -1 for n in (1, 2)]
        assert process.input is not None
        stdin = process.input._writer._fd
        copies = [module.os.dup(fd) for fd in (stdin or -1, *pipes)]
        hands.takeable[process.id] = Running(process.pid, process.start_time, *copies)
    async with core(hands, tmp_path, last=1, series=ANOTHER) as second:
        again = second.table.find(process.id)
        assert again.input is not None
        await again.input.write(b"\n")
        await again.settled()
        assert told(second) == ["exec.resumed", "exec.ended"]
    async with core(hands, tmp_path, last=2, series=ANOTHER) as third:
        assert told(third) == ["exec.ended"]


async def test_a_program_that_nobody_saw_begin_is_not_said_to_have_ended(
    hands: Reach, tmp_path: Path
) -> None:
    id = b""
    async with core(hands, tmp_path, last=1) as first:
        id = first.new_id()
        first.table._store.save(first.table._saved(id, Spec(Program(shell="true")), None))
    async with core(hands, tmp_path, last=1) as second:
        process = second.table.find(id)
        assert (await process.settled()).exit is None
        assert second.named("exec.ended") == []


async def test_an_end_that_hands_away_hides_is_told_once_when_it_is_known(
    hands: Reach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AWAY_TIME", 0.05)
    async with core(hands, tmp_path, last=1) as bench:
        process = await bench.start("read line; exit 6", stdin=True)
        hands.leave()
        await process.settled()
        assert told(bench) == ["exec.started", "exec.unknown"]
        hands.come_back()
        await bench.table.adopt_known()
        assert process.input is not None
        await process.input.write(b"\n")
        await process.settled()
        await bench.table.adopt_known()
        assert told(bench) == ["exec.started", "exec.unknown", "exec.ended"]


async def test_an_unknown_end_is_told_once_however_often_hands_comes_back(
    hands: Reach, tmp_path: Path
) -> None:
    hands.knows_exits = False
    async with core(hands, tmp_path, last=1) as bench:
        process = await bench.run("exit 6")
        for _ in range(2):
            await bench.table.adopt_known()
            await process.settled()
        assert told(bench) == ["exec.started", "exec.ended"]


async def test_what_hands_could_not_kill_is_killed_when_it_is_back(
    hands: Reach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AWAY_TIME", 0.05)
    async with core(hands, tmp_path, last=1) as bench:
        process: Process = await bench.start("sleep 60", grace=0.1)

        async def refuse(key: bytes, **options: object) -> None:
            raise module.CallError(module.Code.HANDS_AWAY, "hands is away")

        monkeypatch.setattr(hands, "kill", refuse, raising=False)
        hands.leave()
        await process.abandon()
        assert process.is_condemned
        monkeypatch.undo()
        hands.come_back()
        await bench.table.adopt_known()
        await until(lambda: "exec.ended" in told(bench))
        assert bench.named("exec.ended")[0]["signal"] == 15
