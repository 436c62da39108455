from __future__ import annotations

import anyio
import anyio.lowlevel

from sidecar.turns import Turns


async def test_who_comes_first_is_first_and_others_wait() -> None:
    turns, order = Turns(), []

    async def take(number: int) -> None:
        async with turns.hold("key"):
            order.append(number)
            await anyio.lowlevel.checkpoint()
            order.append(number)

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(take, number)
    assert order == [0, 0, 1, 1, 2, 2]
    assert turns._turns == {}


async def test_other_keys_do_not_wait() -> None:
    turns = Turns()
    async with turns.hold("a"), turns.hold("b"):
        assert len(turns._turns) == 2


async def test_who_is_cancelled_while_it_waits_leaves_the_turn_to_others() -> None:
    turns = Turns()

    async def take() -> None:
        async with turns.hold("key"):
            raise AssertionError("it is held")

    async with turns.hold("key"), anyio.create_task_group() as group:
        group.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        assert turns._turns["key"].users == 2
        group.cancel_scope.cancel()
    assert turns._turns == {}
