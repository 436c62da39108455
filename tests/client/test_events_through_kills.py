"""Events of a sidecar process that is killed again and again, for readers who only read."""

from __future__ import annotations

import random
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from stack import PATIENCE, Stack, is_listening, open_stack, until

from sidecar.client import CallError, Cursor, Event, Gap, Run

pytestmark = pytest.mark.slow  # real processes, killed and started again

KILLS = 3


class Watcher:
    """All that one reader was given, and where it was when it left."""

    def __init__(self) -> None:
        self.items: list[Event | Gap] = []
        self.cursor = Cursor()

    async def read(self, run: Run, *, reader: str | None = None, pause: float = 0.0) -> None:
        async with run.events(self.cursor, reader=reader) as events:
            async for item in events:
                self.items.append(item)
                self.cursor = item.cursor
                await anyio.sleep(pause)

    @property
    def seqs(self) -> list[int]:
        return [item.seq for item in self.items if isinstance(item, Event)]


class Killed:
    """A sidecar process on one state folder, which is started again whenever it was killed."""

    def __init__(self, stack: Stack, state: Path) -> None:
        self._stack = stack
        self._state = state
        self._child: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._child = self._stack.start_sidecar_process(state=str(self._state))
        await until(lambda: is_listening(self._state / "admin.sock"))

    async def kill(self) -> None:
        assert self._child is not None
        self._child.kill()
        await anyio.to_thread.run_sync(self._child.wait)


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path, sidecars=0) as stack:
        yield stack


@asynccontextmanager
async def work(run: Run) -> AsyncIterator[None]:
    """Programs, one after the other, each of which makes two events or more."""

    async def go_on() -> None:
        while True:
            with suppress(CallError):  # killed in the middle: outcome_unknown
                await run.exec(["true"])

    async with anyio.create_task_group() as group:
        group.start_soon(go_on)
        yield
        group.cancel_scope.cancel()


async def all_read(run: Run, *watchers: Watcher) -> int:
    """Wait until they have what there is; the number of the last event."""
    last = int((await run.info())["events"]["last"])
    await until(lambda: all(watcher.cursor.seq >= last for watcher in watchers))
    return last


@pytest.mark.slow
async def test_each_reader_is_given_each_event_once_whoever_is_killed(
    stack: Stack, tmp_path: Path
) -> None:
    chance = random.Random(7)
    sidecar = Killed(stack, tmp_path / "state")
    await sidecar.start()
    run = await stack.attach()
    durable, passing, slow = Watcher(), Watcher(), Watcher()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: durable.read(run, reader="platform"))
        group.start_soon(passing.read, run)
        group.start_soon(lambda: slow.read(run, pause=0.002))
        async with work(run):
            for _ in range(KILLS):
                await anyio.sleep(0.5 + chance.random() / 2)
                await sidecar.kill()
                await sidecar.start()
                await stack.hub.drop("*")
        last = await all_read(run, durable, passing, slow)
        group.cancel_scope.cancel()
    for watcher in (durable, passing, slow):
        assert watcher.seqs == list(range(1, last + 1))
        assert len(watcher.items) == last, "nothing was lost, so no gap is told"
    starts = [item for item in passing.items if getattr(item, "name", "") == "sidecar.started"]
    assert len(starts) == KILLS + 1
    assert len({item.cursor.series for item in passing.items}) == 1


@pytest.mark.slow
async def test_a_controller_and_its_reader_outlive_a_hub_that_forgets_all(
    stack: Stack, tmp_path: Path
) -> None:
    sidecar = Killed(stack, tmp_path / "state")
    await sidecar.start()
    run = await stack.attach()
    watcher = Watcher()
    async with anyio.create_task_group() as group:
        group.start_soon(watcher.read, run)
        for _ in range(3):
            assert (await run.exec(["true"])).status == 0
            await stack.hub.leave(0.3, forget=True)
        assert (await run.exec(["true"])).status == 0
        last = await all_read(run, watcher)
        group.cancel_scope.cancel()
    assert watcher.seqs == list(range(1, last + 1)) and len(watcher.items) == last


async def test_a_cursor_kept_through_a_kill_goes_on_in_the_same_series(
    stack: Stack, tmp_path: Path
) -> None:
    sidecar = Killed(stack, tmp_path / "state")
    await sidecar.start()
    run = await stack.attach()
    watcher = Watcher()
    async with anyio.create_task_group() as group:
        group.start_soon(watcher.read, run)
        await run.exec(["true"])
        await until(lambda: len(watcher.items) == 3)
        group.cancel_scope.cancel()
    await sidecar.kill()
    await sidecar.start()
    again = await stack.attach("another")
    async with again.events(Cursor.parse(str(watcher.cursor))) as events:
        with anyio.fail_after(PATIENCE):
            event = await events.receive()
    assert isinstance(event, Event)
    assert (event.seq, event.name) == (4, "sidecar.started")


async def test_a_durable_readers_place_is_kept_through_a_kill(stack: Stack, tmp_path: Path) -> None:
    sidecar = Killed(stack, tmp_path / "state")
    await sidecar.start()
    run = await stack.attach()
    watcher = Watcher()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: watcher.read(run, reader="platform"))
        await run.exec(["true"])
        await until(lambda: len(watcher.items) == 3)
        with anyio.fail_after(PATIENCE):
            while (await run.info())["events"]["acked"] != 3:  # noqa: ASYNC110 - nobody tells
                await anyio.sleep(0.05)
        group.cancel_scope.cancel()
    await sidecar.kill()
    await sidecar.start()
    assert (await run.info())["events"]["acked"] == 3
