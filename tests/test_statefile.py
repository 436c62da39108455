"""What an operator reads without a channel, and what a sidecar obeys that comes back."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from sidecar.clock import ManualClock
from sidecar.ending import Teller
from sidecar.statefile import NEXT, Noted, State, StateFile, read, write
from sidecar.statefolder import StateUnusable

STARTING = Noted(
    run="demo",
    incarnation="0190",
    generation=3,
    pid=42,
    state=State.STARTING,
    since="2027-01-15T08:00:00Z",
)


def state_file(folder: Path, **facts: object) -> StateFile:
    return StateFile(folder, STARTING, clock=ManualClock(), facts=lambda: dict(facts))


async def found_in(folder: Path) -> Noted:
    found = await anyio.to_thread.run_sync(read, folder, "demo")
    assert found is not None
    return found


async def test_each_transition_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    file = state_file(tmp_path, events={"series": "s", "last": 7, "written": 7, "acked": None})
    await file.save()
    assert json.loads((tmp_path / "state.json").read_text()) == {
        "format": 1,
        "run": "demo",
        "incarnation": "0190",
        "generation": 3,
        "pid": 42,
        "state": "starting",
        "since": "2027-01-15T08:00:00Z",
        "why": None,
        "told_by": None,
        "events": {"series": "s", "last": 7, "written": 7, "acked": None},
        "exit_status": None,
        "left_over": None,
    }
    assert await file.move(State.DRAINING, told_by=Teller.RUN_END)
    assert await file.move(State.ENDED, exit_status=75, left_over={"events": 2})
    found = await found_in(tmp_path)
    assert (found.state, found.told_by) == (State.ENDED, Teller.RUN_END)
    assert (found.exit_status, found.left_over) == (75, {"events": 2})
    assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


async def test_what_may_not_follow_changes_nothing(tmp_path: Path) -> None:
    file = state_file(tmp_path)
    assert await file.move(State.DRAINING)
    assert not await file.move(State.RUNNING)
    assert not await file.move(State.REFUSED)
    assert (await found_in(tmp_path)).state is State.DRAINING


def test_who_was_superseded_stays_so_unless_it_is_told_otherwise() -> None:
    assert NEXT[State.SUPERSEDED] == {State.RUNNING, State.DRAINING}
    assert State.SUPERSEDED in NEXT[State.DRAINING]


def test_every_state_says_what_may_follow_and_ends_are_final() -> None:
    assert set(NEXT) == set(State)
    assert NEXT[State.ENDED] == NEXT[State.STOPPED] == set()


async def test_a_disk_that_takes_nothing_stops_nobody_and_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    file = state_file(folder)
    assert await file.move(State.RUNNING)
    assert file.state is State.RUNNING
    folder.mkdir()
    assert await file.move(State.DRAINING)
    assert json.loads((folder / "state.json").read_text())["state"] == "draining"


async def test_a_transition_that_is_cancelled_is_written_whole(tmp_path: Path) -> None:
    file = state_file(tmp_path)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await file.move(State.RUNNING)
    assert (await found_in(tmp_path)).state is State.RUNNING


def test_nothing_is_read_where_there_was_no_sidecar(tmp_path: Path) -> None:
    assert read(tmp_path, "demo") is None


def test_a_folder_of_another_run_is_refused_with_the_way_out(tmp_path: Path) -> None:
    write(tmp_path, STARTING)
    with pytest.raises(StateUnusable, match="belongs to run 'demo', and this is run 'other'"):
        read(tmp_path, "other")


def test_a_newer_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"format": 2}')
    with pytest.raises(StateUnusable, match="newer sidecar .* set SIDECAR_STATE"):
        read(tmp_path, "demo")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"format": 1}', '{"format": "x"}', "[" * 99999]
)
def test_a_damaged_file_is_refused_with_the_way_out(content: str, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(StateUnusable, match="is damaged: remove it"):
        read(tmp_path, "demo")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()
    with pytest.raises(StateUnusable, match="Is a directory"):
        read(tmp_path, "demo")
