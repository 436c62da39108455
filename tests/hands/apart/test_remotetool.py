"""Tools of a hands in another process, which may go away or lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from servedhands import FakeHands, reach, serve
from stack import until

from sidecar.errors import CallError, Code
from sidecar.hands.apart import wire
from sidecar.hands.apart.remote import SocketHands
from sidecar.hands.interface import ToolName
from sidecar.hands.local import tools
from sidecar.hands.local.hands import LocalHands


@pytest.fixture
def pour(monkeypatch: pytest.MonkeyPatch) -> ToolName:
    monkeypatch.setitem(tools.TOOLS, ToolName.SEARCH, "toolbodies:pour")
    return ToolName.SEARCH


async def test_a_lost_connection_ends_its_tools(
    local: LocalHands, socket_path: Path, pour: ToolName
) -> None:
    async with reach(local, socket_path) as hands:
        tool = await hands.tool(pour, "", {})
        connection = hands._dialer.current
        assert connection is not None
        connection.end("cut")
        with pytest.raises(CallError) as caught:
            await tool.result()
        assert caught.value.code is Code.HANDS_AWAY
        await until(
            lambda: not local._tools._running
        )  # although core still holds its end of the pipe
        await tool.aclose()


async def test_a_request_that_was_cancelled_leaves_no_tool(
    local: LocalHands, socket_path: Path, pour: ToolName
) -> None:
    async with serve(local, socket_path), SocketHands.open_socket(str(socket_path)) as hands:
        await hands.stat(".")
        async with anyio.create_task_group() as group:
            group.start_soon(hands.tool, pour, "", {})
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        await hands.stat(".")
        await until(lambda: not local._tools._running)


def gives_file(fake: FakeHands, request: wire.Request) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    fake.reply(request, 1, [fd])
    os.close(fd)


def gives_wrong_end(fake: FakeHands, request: wire.Request) -> None:
    reader, writer = os.pipe()
    fake.reply(request, 1, [writer])
    os.close(reader)
    os.close(writer)


def gives_nothing(fake: FakeHands, request: wire.Request) -> None:
    fake.reply(request, 1)


@pytest.mark.parametrize("answer", [gives_file, gives_wrong_end, gives_nothing])
async def test_what_is_no_pipe_is_refused(
    socket_path: Path, answer: Callable[[FakeHands, wire.Request], None]
) -> None:
    fake = FakeHands(answer)
    async with fake.at(socket_path), SocketHands.open_socket(str(socket_path)) as hands:
        with pytest.raises(CallError, match="broke the protocol"):
            await hands.tool(ToolName.SEARCH, "", {})


@pytest.mark.parametrize(
    "outcome",
    [None, [], {"a": {"b": {"c": {"d": {}}}}}, {"a": float("nan")}, {1: 2}, {"a" * 65: 1}],
    ids=repr,
)
async def test_a_result_that_is_none_is_refused(socket_path: Path, outcome: Any) -> None:
    def answer(fake: FakeHands, request: wire.Request) -> None:
        if request.method == "tool":
            reader, writer = os.pipe()
            fake.reply(request, 1, [reader])
            os.close(reader)
            os.close(writer)
        else:
            fake.reply(request, outcome)

    fake = FakeHands(answer)
    async with fake.at(socket_path), SocketHands.open_socket(str(socket_path)) as hands:
        tool = await hands.tool(ToolName.SEARCH, "", {})
        with pytest.raises(CallError, match="broke the protocol"):
            await tool.result()
        await tool.aclose()
