"""A bell wakes everybody who waits now, and nobody who comes later."""

from __future__ import annotations

import anyio

from sidecar.bell import Bell


async def test_a_ring_wakes_all_who_wait_and_not_the_next() -> None:
    bell = Bell()
    woken = []

    async def wait(name: str) -> None:
        await bell.wait()
        woken.append(name)

    async with anyio.create_task_group() as tasks:
        bell.ring()
        tasks.start_soon(wait, "first")
        tasks.start_soon(wait, "second")
        await anyio.wait_all_tasks_blocked()
        assert woken == []
        bell.ring()
        tasks.start_soon(wait, "third")
        await anyio.wait_all_tasks_blocked()
        assert woken == ["first", "second"]
        bell.ring()
    assert woken == ["first", "second", "third"]
