"""What the sidecar tells of a hands that comes and goes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
from servedhands import serve
from stack import RUN, Stack, open_stack, until

from sidecar import runtime, serving
from sidecar.cli.health import _describe
from sidecar.client import Controller
from sidecar.clock import SystemClock
from sidecar.hands.local.hands import LocalHands
from sidecar.parts import Parts, health_of


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path, sidecars=0) as stack:
        yield stack


async def events_of(controller: Controller, count: int) -> list[tuple[str, Any]]:
    """The first events about hands."""
    run = await controller.attach(RUN, timeout=10)
    found: list[tuple[str, Any]] = []
    with anyio.fail_after(10):
        async for event in run.events():
            if event.name.startswith("hands."):
                found.append((event.name, event.data))
            if len(found) == count:
                return found
    raise AssertionError("they ended")


async def test_hello_info_health_and_events_tell_the_truth(stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "hands"
    settings = stack.settings(hands=str(path))
    settings.state_folder.mkdir(mode=0o700)
    parts = runtime.assemble(settings, settings.state_folder, SystemClock())
    assert told_by_hello(parts) == ("socket", "unknown")
    controller = await stack.controller()
    async with AsyncExitStack() as exits, anyio.create_task_group() as group:
        group.start_soon(serving.serve, parts, exits)
        group.start_soon(runtime.connect, parts)
        await until(lambda: hasattr(parts, "dispatcher"))
        await until(lambda: parts.journal.last == 2)  # it started, and hands is away
        assert_away(health_of(parts), "No such file or directory")
        info = await (await controller.attach(RUN, timeout=10)).info()
        assert (info["form"], info["trust"], "capabilities" in info) == ("socket", "unknown", False)

        async with LocalHands.open_root(settings.workspace) as local:
            async with serve(local, path):
                await until(lambda: parts.journal.last == 3)
                assert told_by_hello(parts) == ("socket", "shared")
                health = health_of(parts)
                assert (health["form"], health["trust"]) == ("socket", "shared")
                assert health["hands"]["state"] == "connected"
                assert "hands" not in _describe(health)
            await until(lambda: parts.journal.last == 4)
        assert_away(health_of(parts), "the other side closed it")
        assert health_of(parts)["trust"] == "shared", "of the hands that was here last"

        away, connected, gone = await events_of(controller, 3)
        assert away == ("hands.away", {"why": "No such file or directory"})
        assert gone == ("hands.away", {"why": "the other side closed it"})
        name, data = connected
        assert (name, data["uid"], data["pid"]) == ("hands.connected", os.getuid(), os.getpid())
        assert (data["trust"], len(data["incarnation"])) == ("shared", 16)
        assert data["capabilities"]["root"] == settings.workspace
        group.cancel_scope.cancel()


def told_by_hello(parts: Parts) -> tuple[str, str]:
    hello = parts.exchange.identity.hello()
    return hello.form, hello.trust


def assert_away(health: dict[str, Any], why: str) -> None:
    assert health["hands"]["state"] == "away"
    assert health["hands"]["why"] == why
    assert f", hands away for 0 s ({why})" in _describe(health)
