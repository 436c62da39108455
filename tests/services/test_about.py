"""`sidecar.info` and `sidecar.ping`, and that the catalogue and its handlers are one to one."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from stack import RUN, open_stack

from sidecar import __version__
from sidecar.catalogue import HANDLERS, bound_commands
from sidecar.client import CallError
from sidecar.protocol.commands import CATALOGUE


def test_every_command_has_its_handler_and_every_handler_its_command() -> None:
    assert set(HANDLERS) == set(CATALOGUE) == set(bound_commands())


def test_the_head_of_the_catalogue_lists_every_command() -> None:
    from sidecar.protocol import commands

    assert commands.__doc__ is not None
    listed = {
        line.split()[0] for line in commands.__doc__.splitlines() if re.match(" {4}\\S", line)
    }
    assert listed - {"command"} == set(CATALOGUE)


async def test_info_says_who_is_here_and_how_it_is(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        await run.exec(["true"])
        with pytest.raises(CallError):
            await run.files.read("missing")
        info = await run.info()
    assert info["version"] == __version__
    assert (info["run"], info["incarnation"]) == (RUN, run.incarnation)
    assert (info["form"], info["trust"], info["generation"]) == ("in-process", "shared", 1)
    assert info["channel"]["state"] == "open"
    assert (info["attached"], info["readers"], info["dropped"]) == (1, 0, {})
    assert info["calls"] == {"open": 1, "accepted": 3, "ended": 1, "failed": 1}
    events = info["events"]
    assert (events["first"], events["last"], events["written"]) == (1, 3, 3)
    assert events["synced"] <= 3
    assert (events["acked"], events["durable"], events["degraded"]) == (None, True, None)
    assert (info["receipts"], info["state"]) == ({"durable": True}, "running")
    assert info["capabilities"]["root"] == str(stack.workspace)
    assert 0 < info["uptime"] < 30


async def test_info_shows_a_workspace_whose_name_is_not_utf8(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/w\xff"))
    folder.mkdir()
    async with open_stack(folder) as stack:
        run = await stack.attach()
        assert (await run.info())["capabilities"]["root"].endswith("w\\udcff/workspace")
        assert (await run.exec(["pwd"])).stdout == os.fsencode(stack.workspace) + b"\n"


async def test_ping_brings_back_what_came(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        answer = await run.call("sidecar.ping", {"payload": b"\x00\xff"})
        assert answer["pong"] == b"\x00\xff"
        assert abs(answer["time_ms"] / 1000 - stack.sidecar.clock.wall()) < 5
