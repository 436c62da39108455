"""Tools: a thread each, a pipe, a result; in both forms of hands."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from stack import until

from sidecar.errors import CallError, Code, Started
from sidecar.hands.interface import Hands, Tool, ToolName
from sidecar.hands.local import tools
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.local.proc import read_process


@pytest.fixture
def body(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Says which function a name stands for."""

    def choose(function: str, name: ToolName = ToolName.SEARCH) -> ToolName:
        monkeypatch.setitem(tools.TOOLS, name, f"toolbodies:{function}")
        return name

    yield choose


async def read_all(hands: Hands, tool: Tool) -> bytes:
    """What it writes until its end."""
    parts = []
    while True:
        await anyio.wait_readable(tool.fd)
        try:
            data = hands.pipe_io.read(tool.fd, 65536)
        except BlockingIOError:
            continue
        if not data:
            tool.close_fd()
            return b"".join(parts)
        parts.append(data)


async def result_of(hands: Hands, name: ToolName, path: str = "", **options: Any) -> dict[str, Any]:
    tool = await hands.tool(name, path, options)
    try:
        return await tool.result()
    finally:
        await tool.aclose()


async def test_what_it_writes_and_what_it_says_at_the_end(any_hands: Hands, body: Any) -> None:
    tool = await any_hands.tool(body("count"), b"\xff", {"to": 100_000})
    assert await read_all(any_hands, tool) == b"".join(b"%d\n" % n for n in range(100_000))
    assert await tool.result() == {"counted": 100_000, "of": b"\xff"}
    await tool.aclose()
    await tool.aclose()


async def test_what_core_writes(any_hands: Hands, body: Any) -> None:
    tool = await any_hands.tool(body("measure", ToolName.EXTRACT), "", {})
    left = bytes(3_000_000)
    while left:
        try:
            left = left[any_hands.pipe_io.write(tool.fd, left) :]
        except BlockingIOError:
            await anyio.wait_writable(tool.fd)
    tool.close_fd()
    assert await tool.result() == {"size": 3_000_000}
    await tool.aclose()


async def test_an_error_of_the_system_is_about_the_path(any_hands: Hands, body: Any) -> None:
    with pytest.raises(CallError) as caught:
        await result_of(any_hands, body("miss"), "somewhere")
    assert caught.value.code is Code.NOT_FOUND
    assert caught.value.started is Started.YES
    assert caught.value.details["path"] == "somewhere"


async def test_a_defect_is_told_in_the_log(
    any_hands: Hands, body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CallError) as caught:
        await result_of(any_hands, body("break_down"))
    assert caught.value.code is Code.INTERNAL
    assert "ZeroDivisionError" in caplog.text


async def test_a_name_without_a_body(any_hands: Hands) -> None:
    with pytest.raises(CallError, match="no tool") as caught:
        await any_hands.tool("dance", "", {})  # type: ignore[arg-type]
    assert caught.value.code is Code.UNSUPPORTED


@pytest.mark.parametrize("function", ["pour", "wait"])
async def test_closing_stops_it(
    any_hands: Hands, local: LocalHands, body: Any, function: str
) -> None:
    tool = await any_hands.tool(body(function), "", {})
    with anyio.fail_after(2):
        await tool.aclose()
    assert not local._tools._running


async def test_closing_when_cancelled_stops_it(
    any_hands: Hands, local: LocalHands, body: Any
) -> None:
    tool = await any_hands.tool(body("pour"), "", {})
    with anyio.CancelScope() as scope:
        scope.cancel()
        await tool.aclose()
    await until(lambda: not local._tools._running)


async def test_who_reads_no_more_stops_it(any_hands: Hands, body: Any) -> None:
    tool = await any_hands.tool(body("pour"), "", {})
    tool.close_fd()
    with pytest.raises(CallError) as caught:
        await tool.result()
    assert caught.value.code is Code.CANCELLED
    await tool.aclose()


async def test_so_many_at_once(any_hands: Hands, body: Any) -> None:
    running = [await any_hands.tool(body("wait"), "", {}) for _ in range(tools.MAX_TOOLS)]
    with pytest.raises(CallError) as caught:
        await any_hands.tool(ToolName.SEARCH, "", {})
    assert caught.value.code is Code.LIMIT
    for tool in running:
        await tool.aclose()
    await (await any_hands.tool(ToolName.SEARCH, "", {})).aclose()


async def test_one_that_does_not_end_is_told_and_left(
    local: LocalHands, body: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "STOP_TIME", 0.05)
    caplog.set_level(logging.WARNING)
    tool = await local.tool(body("hang"), "", {"seconds": 0.3})
    await tool.aclose()
    assert "the tool search did not end" in caplog.text
    assert local._tools._running
    await tool.ended.wait()
    assert not local._tools._running


async def test_hands_that_closes_ends_its_tools(root: Path, body: Any) -> None:
    async with LocalHands.open_root(str(root)) as hands:
        tool = await hands.tool(body("pour"), "", {})
    assert tool.ended.is_set()
    tool.close_fd()


# Children --------------------------------------------------------------------------------


@pytest.mark.parametrize("adopt", [False, True])
async def test_a_child_and_its_status(root: Path, body: Any, adopt: bool) -> None:
    (root / "folder").mkdir()
    script = "pwd; cat; echo bad >&2; exit 7"
    async with LocalHands.open_root(str(root), adopt=adopt) as hands:
        for _ in range(20):
            tool = await hands.tool(body("run"), "folder", {"argv": ["sh", "-c", script]})
            output = await read_all(hands, tool)
            assert output.split(b"\n")[1] == os.fsencode(root / "folder")
            assert await tool.result() == {"status": 7, "error": b"bad\n"}
            await tool.aclose()


async def test_a_program_that_is_not_there(any_hands: Hands, body: Any) -> None:
    with pytest.raises(CallError) as caught:
        await result_of(any_hands, body("run"), argv=["/no/such/program"])
    assert caught.value.code is Code.NOT_FOUND


async def test_a_child_is_killed_with_its_tool(any_hands: Hands, body: Any) -> None:
    tool = await any_hands.tool(body("run"), "", {"argv": ["sh", "-c", "sleep 600 & wait"]})
    await anyio.wait_readable(tool.fd)
    pid = int(any_hands.pipe_io.read(tool.fd, 100))
    assert read_process(pid) is not None
    with anyio.fail_after(2):
        await tool.aclose()
    assert read_process(pid) is None
