"""The tool `watch` in both forms of hands: what it tells, and what it leaves behind."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from stack import until

from sidecar.errors import CallError, Code
from sidecar.hands.fileinterface import Tool, ToolName
from sidecar.hands.interface import Hands
from sidecar.hands.records import Records

OPTIONS: dict[str, Any] = {"recursive": True, "gather": 0.0, "exclude": [], "ignore": "none"}
PATIENCE = 10.0


class Reading:
    """Core's end of a watch."""

    def __init__(self, tool: Tool, hands: Hands) -> None:
        self.tool = tool
        self._hands = hands
        self._records = Records()
        self._waiting: list[dict[str, Any]] = []

    async def record(self) -> dict[str, Any]:
        with anyio.fail_after(PATIENCE):
            while not self._waiting:
                try:
                    data = self._hands.pipe_io.read(self.tool.fd, 65536)
                except BlockingIOError:
                    await anyio.wait_readable(self.tool.fd)
                    continue
                assert data, "the tool ended"
                self._waiting = list(self._records.receive(data))
        return self._waiting.pop(0)

    async def until(self, path: bytes) -> dict[bytes, str]:
        """What is told up to the row of `path`: of each path the last kind."""
        found: dict[bytes, str] = {}
        while path not in found:
            record = await self.record()
            assert "lost" not in record
            found |= {row[1]: row[0] for row in record["changes"]}
        return found


@asynccontextmanager
async def reading(hands: Hands, path: str = "", **options: Any) -> AsyncIterator[Reading]:
    tool = await hands.tool(ToolName.WATCH, path, OPTIONS | options)
    try:
        found = Reading(tool, hands)
        assert await found.record() == {"changes": []}
        yield found
    finally:
        await tool.aclose()


async def test_changes_are_told_as_they_happen(any_hands: Hands, root: Path) -> None:
    async with reading(any_hands) as watch:
        (root / "a").touch()
        assert b"a" in await watch.until(b"a")
        (root / "d/e").mkdir(parents=True)
        (root / "d/e/x").touch()
        assert await watch.until(b"d/e/x")


@pytest.mark.slow
async def test_ten_thousand_files_in_new_directories_are_all_told(
    any_hands: Hands, root: Path
) -> None:
    async with reading(any_hands, gather=0.05) as watch:

        def make() -> None:
            for number in range(100):
                folder = root / f"d{number % 10}" / f"e{number}"
                folder.mkdir(parents=True)
                for file in range(100):
                    os.close(os.open(folder / f"f{file}", os.O_CREAT | os.O_WRONLY))
            (root / "last").touch()

        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, make)
            found = await watch.until(b"last")
    files = [path for path, kind in found.items() if b"/f" in path]
    assert len(files) == 10_000


async def test_what_is_not_there_is_an_error(any_hands: Hands) -> None:
    tool = await any_hands.tool(ToolName.WATCH, "nothing", OPTIONS)
    with pytest.raises(CallError) as caught:
        await tool.result()
    await tool.aclose()
    assert caught.value.code is Code.NOT_FOUND


async def test_nothing_runs_before_and_after(any_hands: Hands, root: Path) -> None:
    assert (len(_watchers()), _inotifies()) == (0, 0)
    async with reading(any_hands):
        assert (len(_watchers()), _inotifies()) == (1, 1)
    await until(lambda: (len(_watchers()), _inotifies()) == (0, 0))


async def test_a_watch_that_nobody_reads_any_more_ends(any_hands: Hands, root: Path) -> None:
    tool = await any_hands.tool(ToolName.WATCH, "", OPTIONS)
    tool.close_fd()
    with pytest.raises(CallError):
        with anyio.fail_after(PATIENCE):
            await tool.result()
    await tool.aclose()
    await until(lambda: (len(_watchers()), _inotifies()) == (0, 0))


async def test_a_watch_that_waits_does_not_wake_up(any_hands: Hands, root: Path) -> None:
    async with reading(any_hands):
        await anyio.sleep(0.1)
        (thread,) = _watchers()
        before = _wakeups(thread)
        await anyio.sleep(0.5)
        assert _wakeups(thread) == before


async def test_much_is_told_before_the_time_to_gather_is_over(local: Hands, root: Path) -> None:
    async with reading(local, gather=60.0) as watch:
        folder = root / ("d" * 250)
        folder.mkdir()
        for number in range(3000):
            (folder / f"{number:0250}").symlink_to("x")
        assert (await watch.record())["changes"]


@pytest.mark.slow
async def test_a_reader_that_stands_still_is_told_that_it_lost_something(
    any_hands: Hands, root: Path
) -> None:
    async with reading(any_hands) as watch:

        def make() -> None:
            for number in range(30):
                (root / f"{number}{'x' * 200}").mkdir()
                for file in range(1000):
                    name = root / f"{number}{'x' * 200}" / f"{file}{'y' * 200}"
                    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))

        await anyio.to_thread.run_sync(make)
        (root / "last").touch()
        lost = []
        with anyio.fail_after(PATIENCE * 3):
            while not lost:
                record = await watch.record()
                lost += [record["lost"]] if "lost" in record else []
        assert lost[0] in ("slow reader", "overflow")
        (root / "after").touch()
        while True:
            record = await watch.record()
            if any(row[1] == b"after" for row in record.get("changes", [])):
                return


def _watchers() -> list[int]:
    return [
        thread.native_id
        for thread in threading.enumerate()
        if thread.name == "tool watch" and thread.native_id is not None
    ]


def _inotifies() -> int:
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}") == "anon_inode:inotify"
        except FileNotFoundError:
            continue
    return found


def _wakeups(thread: int) -> int:
    """How often it went to sleep, and so woke up (proc(5), /proc/pid/task/tid/status)."""
    lines = Path(f"/proc/self/task/{thread}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
