"""What a program reads: writers who share it, its end, and why nothing more can be written."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import anyio
import pytest

from sidecar.errors import CallError, Code, Invalid
from sidecar.processes.input import Input


class Ends:
    """An input, and the program's end of it."""

    def __init__(self, *, is_terminal: bool = False) -> None:
        self.reader, fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.copies_ended = 0
        self.is_away = False
        self.input = Input(
            fd, is_terminal=is_terminal, end_copy=self._end_copy, on_data=lambda: None
        )

    async def _end_copy(self) -> None:
        if self.is_away:
            raise CallError(Code.HANDS_AWAY, "hands is not connected")
        self.copies_ended += 1

    def read(self) -> bytes:
        try:
            return os.read(self.reader, 1 << 20)
        except BlockingIOError:
            return b"nothing yet"

    def hang_up(self) -> None:
        os.close(self.reader)
        self.reader = -1


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    ends = Ends()
    yield ends
    ends.input.drop()
    if ends.reader >= 0:
        ends.hang_up()


@pytest.fixture
async def terminal() -> AsyncIterator[Ends]:
    ends = Ends(is_terminal=True)
    yield ends
    ends.input.drop()
    ends.hang_up()


async def why(ends: Ends) -> str:
    """What a writer is told."""
    with pytest.raises(Invalid) as caught:
        await ends.input.write(b"x")
    which: str = caught.value.details["which"]
    return which


async def test_what_is_written_is_read_and_counted(ends: Ends) -> None:
    assert await ends.input.write(b"abc") == 3
    assert ends.input.write_at_once(b"de") == b""
    assert ends.read() == b"abcde"
    assert ends.input.taken == 5


async def test_no_chunk_is_cut_by_another(ends: Ends) -> None:
    got = b""

    async def read() -> None:
        nonlocal got
        while len(got) < 400_000:
            await anyio.wait_readable(ends.reader)
            got += ends.read()

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        for letter in (b"a", b"b", b"c", b"d"):
            group.start_soon(ends.input.write, letter * 100_000)
    assert got == b"".join(letter * 100_000 for letter in (b"a", b"b", b"c", b"d"))


async def test_the_end_comes_behind_what_is_being_written(ends: Ends) -> None:
    got = b""
    async with anyio.create_task_group() as group:
        group.start_soon(ends.input.write, b"x" * 200_000)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(ends.input.end)
        while len(got) < 200_000:
            await anyio.wait_readable(ends.reader)
            got += ends.read()
    assert ends.read() == b""
    assert (ends.copies_ended, ends.input.is_open) == (1, False)
    assert await why(ends) == "ended"
    with pytest.raises(Invalid, match="has ended"):
        await ends.input.end()


async def test_an_end_while_hands_is_away_can_be_tried_again(ends: Ends) -> None:
    ends.is_away = True
    with pytest.raises(CallError, match="hands_away"):
        await ends.input.end()
    assert ends.input.is_open
    ends.is_away = False
    await ends.input.end()
    assert ends.read() == b""


async def test_a_program_that_reads_no_more_is_told_apart_from_an_end(ends: Ends) -> None:
    ends.hang_up()
    assert ends.input.is_open  # nobody knows before somebody writes
    assert await why(ends) == "closed"
    assert not ends.input.is_open
    await ends.input.end()  # there is still a copy to close
    assert await why(ends) == "ended"


async def test_who_waits_to_write_is_told_when_the_program_ends(ends: Ends) -> None:
    taken: list[int] = []

    async def write() -> None:
        taken.append(await ends.input.write(bytes(100_000)))

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        await anyio.wait_all_tasks_blocked()
        ends.is_away = True
        await ends.input.close()
        await ends.input.close()
    assert taken == [65_536]


async def test_a_cancelled_writer_leaves_the_turn_to_the_next(ends: Ends) -> None:
    with anyio.move_on_after(0.01):
        await ends.input.write(bytes(100_000))
    while ends.read() != b"nothing yet":
        pass
    assert await ends.input.write(b"next") == 4
    assert ends.read() == b"next"


async def test_a_terminal_has_no_end_of_input(terminal: Ends) -> None:
    with pytest.raises(Invalid, match="Ctrl-D"):
        await terminal.input.end()
    assert await terminal.input.write(b"\x04") == 1
    await terminal.input.close()
    assert terminal.copies_ended == 0
