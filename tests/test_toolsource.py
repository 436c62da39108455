"""A tool's pipe as the source of a stream: bytes by offset, kept until the receiver has them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from sidecar.errors import CallError, Code
from sidecar.hands.interface import ToolName
from sidecar.hands.local import tools
from sidecar.hands.local.hands import LocalHands
from sidecar.streaming.toolsource import KEEP, ToolSource

NUMBERS = b"".join(b"%d\n" % n for n in range(1000))


@pytest.fixture
async def hands(tmp_path: Path) -> AsyncIterator[LocalHands]:
    async with LocalHands.open_root(str(tmp_path)) as hands:
        yield hands


@pytest.fixture
async def source(
    hands: LocalHands, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ToolSource]:
    """Of the tool that the test is parametrized with."""
    monkeypatch.setitem(tools.TOOLS, ToolName.SEARCH, f"toolbodies:{request.param}")
    tool = await hands.tool(ToolName.SEARCH, "somewhere", {"to": 1000})
    source = ToolSource(tool, hands.pipe_io)
    yield source
    await source.aclose()


@pytest.mark.parametrize("source", ["count"], indirect=True)
async def test_all_bytes_and_the_end(source: ToolSource) -> None:
    found = b""
    while not (piece := await source.read(len(found), 100)).ended:
        assert 0 < len(piece.data) <= 100
        found += piece.data
    assert found + piece.data == NUMBERS
    assert (await source.read(len(NUMBERS), 100)).ended


@pytest.mark.parametrize("source", ["count"], indirect=True)
async def test_what_was_not_released_is_read_again(source: ToolSource) -> None:
    await source.begin()
    assert (await source.read(0, 6)).data == b"0\n1\n2\n"
    source.release(4)
    assert (await source.read(4, 2)).data == b"2\n"
    with pytest.raises(CallError) as caught:
        await source.read(3, 2)
    assert caught.value.code is Code.SOURCE_CHANGED


@pytest.mark.parametrize("source", ["pour"], indirect=True)
async def test_a_receiver_that_takes_nothing_stops_the_reading(source: ToolSource) -> None:
    at = 0
    with anyio.move_on_after(0.2) as scope:
        while True:
            at += len((await source.read(at, KEEP)).data)
    assert scope.cancelled_caught
    assert at == KEEP
    source.release(100)
    assert len((await source.read(at, KEEP)).data) == 100


@pytest.mark.parametrize("source", ["fail_late"], indirect=True)
async def test_the_error_of_the_tool_comes_in_place_of_the_end(source: ToolSource) -> None:
    await source.begin()
    assert (await source.read(0, 100)).data == b"something"
    with pytest.raises(CallError) as caught:
        await source.read(9, 100)
    assert caught.value.code is Code.IO_ERROR


@pytest.mark.parametrize("source", ["miss"], indirect=True)
async def test_a_tool_that_cannot_begin(source: ToolSource) -> None:
    with pytest.raises(CallError) as caught:
        await source.begin()
    assert caught.value.code is Code.NOT_FOUND


@pytest.mark.parametrize("source", ["wait"], indirect=True)
async def test_closing_ends_a_read(source: ToolSource) -> None:
    async def close() -> None:
        await anyio.wait_all_tasks_blocked()
        await source.aclose()

    async with anyio.create_task_group() as group:
        group.start_soon(close)
        with anyio.fail_after(2), pytest.raises(CallError) as caught:
            await source.read(0, 100)
    assert caught.value.code is Code.CANCELLED
