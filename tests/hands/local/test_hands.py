from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from sidecar.errors import CallError, Code
from sidecar.hands.interface import Hands, Program
from sidecar.hands.local.hands import LocalHands


async def test_capabilities_say_what_is_in_force(root: Path, use_openat2: bool) -> None:
    async with LocalHands.open_root(str(root), openat2=use_openat2) as hands:
        seen: Hands = hands  # the interface is met, says the type checker
        found = await seen.capabilities()
    assert found["form"] == "in-process"
    assert found["openat2"] is use_openat2
    assert found["root"] == str(root)
    assert found["uid"] == str(os.getuid())
    assert {"pidfd", "gid", "kernel", "python"} < set(found)


async def test_a_missing_root_has_a_code(tmp_path: Path) -> None:
    with pytest.raises(CallError) as caught:
        async with LocalHands.open_root(str(tmp_path / "nothing")):
            pass
    assert caught.value.code == Code.NOT_FOUND


async def test_closing_twice_is_harmless(root: Path) -> None:
    async with LocalHands.open_root(str(root)) as hands:
        await hands.aclose()


async def test_the_root_may_move(tmp_path: Path, root: Path) -> None:
    (root / "file").write_bytes(b"x")
    async with LocalHands.open_root(str(root)) as hands:
        os.rename(root, tmp_path / "moved")
        assert (await hands.stat("file")).size == 1
        running = await hands.spawn(Program(argv=["true"]), key=b"1")
        assert (await hands.wait(b"1")).status == 0
        os.close(running.stdout)
        os.close(running.stderr)


async def test_a_descriptor_nobody_takes_is_closed(
    local: LocalHands, any_hands: Hands, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "file").touch()
    may_go_on, was_closed = threading.Event(), threading.Event()
    opened: list[int] = []
    open_file = local._paths.open_file

    def slowly(path: str) -> int:
        may_go_on.wait(5)
        opened.append(open_file(path))
        return opened[0]

    def close(descriptor: int) -> None:
        close_for_good(descriptor)
        if descriptor in opened:
            was_closed.set()

    close_for_good = os.close
    monkeypatch.setattr(os, "close", close)
    monkeypatch.setattr(local._paths, "open_file", slowly)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):  # cancels the task, not an anyio scope
            await any_hands.open("file")
    may_go_on.set()
    assert await asyncio.to_thread(was_closed.wait, 5)


async def test_more_calls_than_threads_all_end(any_hands: Hands, root: Path) -> None:
    (root / "file").touch()
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(any_hands.stat("file")) for _ in range(200)]
    assert {call.result().size for call in calls} == {0}
