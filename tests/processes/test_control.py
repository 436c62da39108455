"""The socket beside a terminal: both directions, its ends, and nobody who waits in vain."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator

import anyio
import pytest

from sidecar.processes.control import Control


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Control, socket.socket]]:
    """Ours, and the other end."""
    ours, theirs = socket.socketpair()
    control = Control(ours.detach())
    yield control, theirs
    control.close()
    theirs.close()


Ends = tuple[Control, socket.socket]


async def test_what_is_sent_and_received(ends: Ends) -> None:
    control, theirs = ends
    assert await control.send(b"order\n")
    assert theirs.recv(100) == b"order\n"
    theirs.send(b"report\0")
    assert await control.receive() == b"report\0"


async def test_more_than_the_socket_holds_waits_for_the_reader(ends: Ends) -> None:
    control, theirs = ends
    theirs.setblocking(False)
    received = 0
    async with anyio.create_task_group() as group:
        group.start_soon(control.send, bytes(3_000_000))
        while received < 3_000_000:
            await anyio.wait_readable(theirs)
            received += len(theirs.recv(1 << 20))
    assert received == 3_000_000


async def test_a_receiver_waits_until_something_comes(ends: Ends) -> None:
    control, theirs = ends
    got: list[bytes] = []

    async def receive() -> None:
        got.append(await control.receive())

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        assert got == []
        theirs.send(b"late")
    assert got == [b"late"]


async def test_cancelling_a_receiver_loses_nothing(ends: Ends) -> None:
    control, theirs = ends
    with anyio.move_on_after(0.01):
        await control.receive()
    theirs.send(b"still")
    assert await control.receive() == b"still"


async def test_when_the_other_end_is_gone(ends: Ends) -> None:
    control, theirs = ends
    theirs.close()
    assert await control.receive() == b""
    assert not await control.send(b"x")


async def test_closing_ends_whoever_waits(ends: Ends) -> None:
    control, _ = ends
    got: list[bytes] = []

    async def receive() -> None:
        got.append(await control.receive())

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        control.close()
        control.close()
    assert got == [b""]
    assert not await control.send(b"x")


async def test_a_socket_that_was_made_to_block_blocks_nobody() -> None:
    """The other half shares the open socket, and may be another's."""
    ours, theirs = socket.socketpair()
    shared = ours.dup()
    control = Control(ours.detach())
    os.set_blocking(shared.fileno(), True)
    with anyio.move_on_after(0.01) as scope:
        await control.receive()
    assert scope.cancelled_caught
    for one in (shared, theirs):
        one.close()
    control.close()
