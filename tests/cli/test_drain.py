"""`sidecar drain` as an operator calls it, who has no channel."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from stack import PATIENCE, RUN, Stack, is_listening, open_stack, until

from sidecar.cli.drain import _describe
from sidecar.cli.here import is_held, looking_at, wait_for_lookers

ENDED: dict[str, Any] = {"run": "demo", "state": "ended", "exit_status": 0, "left_over": None}


@pytest.mark.parametrize(
    "changes, line",
    [
        ({}, "run demo ended: nothing left over"),
        (
            {"exit_status": 75, "left_over": {"events": 3, "messages": 1}},
            "run demo ended: left over: 3 events, 1 messages",
        ),
        (
            {"exit_status": 69, "left_over": {}},
            "run demo ended: there was no channel, what was to be said is left over",
        ),
        (
            {"exit_status": 75, "left_over": {}},
            "run demo ended: what was to be said is left over",
        ),
        (
            {"exit_status": 69, "left_over": {"events": 3}},
            "run demo ended: there was no channel, left over: 3 events",
        ),
        (
            {"why": "2 open calls and 0 programs were ended"},
            "run demo ended: nothing left over; 2 open calls and 0 programs were ended",
        ),
        (
            {"exit_status": None, "state": "draining"},
            "run demo: the sidecar went while it was draining",
        ),
    ],
)
def test_one_line_says_how_it_ended(changes: dict[str, Any], line: str) -> None:
    assert _describe(ENDED | changes) == line


def test_what_went_with_its_folder_is_unknown() -> None:
    assert _describe({}).endswith("what was left over is unknown")


def test_a_folder_is_not_removed_while_somebody_looks(tmp_path: Path) -> None:
    waited = threading.Thread(target=wait_for_lookers, args=(tmp_path,))
    with looking_at(tmp_path):
        waited.start()
        waited.join(0.3)
        assert waited.is_alive()
    waited.join(PATIENCE)
    assert not waited.is_alive()


def test_who_looks_for_ever_is_not_waited_for(tmp_path: Path) -> None:
    with looking_at(tmp_path):
        wait_for_lookers(tmp_path, at_most=0.1)


def test_where_there_is_no_folder_nobody_waits(tmp_path: Path) -> None:
    with looking_at(tmp_path / "none"):
        wait_for_lookers(tmp_path / "none")


async def drain(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    command = [sys.executable, "-m", "sidecar", "drain", *arguments]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 2)

    return await anyio.to_thread.run_sync(run)


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path, sidecars=0) as stack:
        yield stack


async def start(stack: Stack, folder: Path, **options: Any) -> subprocess.Popen[bytes]:
    child = stack.start_sidecar_process(state=str(folder), **options)
    await until(lambda: is_listening(folder / "admin.sock"))
    return child


async def test_it_waits_until_all_is_delivered_and_says_so_again(
    stack: Stack, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    child = await start(stack, state)
    await stack.attach()
    done = await drain("--state", str(state))
    assert (done.returncode, done.stdout) == (0, f"run {RUN} ended: nothing left over\n")
    assert await anyio.to_thread.run_sync(child.wait) == 0
    again = await drain("--state", str(state), "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["told_by"] == "drain"


@pytest.mark.slow
async def test_it_tells_what_it_waits_for_and_what_was_left_over(
    stack: Stack, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    await start(stack, state)
    run = await stack.attach()
    async with run.events(reader="platform") as events:
        await anext(events)
        done = await drain("--state", str(state), "--timeout", "1")
    assert done.returncode == 75
    assert "sidecar: waiting for " in done.stderr
    assert " events" in done.stderr
    assert f"run {RUN} ended: left over: " in done.stdout


@pytest.mark.slow
async def test_a_sidecar_that_is_killed_meanwhile_is_told_from_one_that_ended(
    stack: Stack, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    child = await start(stack, state)
    run = await stack.attach()
    async with run.open("exec.run", {"shell": "sleep 600"}) as call, anyio.create_task_group() as g:
        await until(lambda: call.accepted)

        async def kill() -> None:
            await until(lambda: '"draining"' in (state / "state.json").read_text())
            child.kill()

        g.start_soon(kill)
        done = await drain("--state", str(state), "--timeout", "60")
    assert done.returncode == 75
    assert done.stdout == f"run {RUN}: the sidecar went while it was draining\n"


async def test_without_a_sidecar_it_says_where_it_looked_and_what_was_there(
    stack: Stack, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    done = await drain("--state", str(state))
    assert done.returncode == 2
    assert f"no sidecar answers in {state}: No such file or directory" in done.stderr
    child = await start(stack, state)
    child.terminate()
    await anyio.to_thread.run_sync(child.wait)
    assert not await anyio.to_thread.run_sync(is_held, state)
    done = await drain("--state", str(state))
    assert done.returncode == 2
    assert f"run {RUN} was stopped since 2" in done.stderr
    assert "told by signal" in done.stderr
