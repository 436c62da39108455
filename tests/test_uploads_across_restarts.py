"""Writes and uploads whose sidecar is killed: what is visible meanwhile, and what goes on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from core import Core
from stack import RUN, open_stack, until

from sidecar.client import CallError, Code, Retry, Started
from sidecar.protocol.streams import CONTENT
from sidecar.streaming import BytesSource
from sidecar.streaming.pushing import PushSource

SIDECAR, ME = f"sandbox:{RUN}", "control:me"
MB = 1_000_000


@pytest.mark.slow
async def test_a_write_that_is_killed_half_way_was_never_visible(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        child = stack.start_sidecar_process(state=str(tmp_path / "state"))
        run = await stack.attach()
        old, new = os.urandom(2 * MB), os.urandom(3 * MB)
        await run.files.write("data", old)
        source = PushSource()
        async with run.open("files.write", {"path": "data"}) as call:
            run.send(call, CONTENT, source)
            for at in range(0, 2 * MB, MB):
                await source.push(new[at : at + MB])
            await until(lambda: source._base > MB)
            child.kill()
            child.wait()
            assert os.listdir(stack.workspace) == ["data"]
            stack.start_sidecar_process(state=str(tmp_path / "state"))
            with pytest.raises(CallError) as caught:
                await call.wait()
        assert caught.value.code in (Code.OUTCOME_UNKNOWN, Code.SOURCE_CHANGED)
        assert (stack.workspace / "data").read_bytes() == old
        written = await run.files.write("data", new)
        assert (written.size, await run.files.read("data")) == (len(new), new)


@pytest.mark.slow
async def test_an_upload_goes_on_through_cuts_and_restarts(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        core = Core(stack, None, state=str(tmp_path / "state"))
        run = await stack.attach()
        old, new = os.urandom(2 * MB), os.urandom(40 * MB)
        await run.files.write("data", old)
        arguments = {"path": "data", "upload": b"u" * 16, "size": len(new)}
        sent: list[int] = []

        async def send_rest(*, until_there: int | None = None) -> dict[str, Any]:
            """What is missing, through cuts; `until_there`: then core is killed."""
            offset = (await run.call("files.upload", {"path": "data", "upload": b"u" * 16}))["size"]
            sent.append(offset)
            async with run.open("files.write", {**arguments, "offset": offset}) as call:
                run.send(call, CONTENT, BytesSource(new[offset:]))
                if until_there is not None:
                    await until(lambda: part_of(stack.workspace) > until_there // 2)
                    await stack.lose(SIDECAR, ME)
                    await until(lambda: part_of(stack.workspace) > until_there)
                    assert (stack.workspace / "data").read_bytes() == old
                    await core.kill_and_start()
                return await call.wait()

        for far in (10 * MB, 25 * MB):
            with pytest.raises(CallError) as caught:
                await send_rest(until_there=far)
            error = caught.value
            assert (error.code, error.started) == (Code.INTERRUPTED, Started.YES)
            assert error.retry is Retry.NEW_ID
            assert far < error.details["size"] == part_of(stack.workspace) < len(new)
            assert (stack.workspace / "data").read_bytes() == old
        answer = await send_rest()
        assert sent[0] == 0 < 10 * MB < sent[1] < 25 * MB < sent[2]
        assert answer["sha256"] == hashlib.sha256(new).digest()
        assert (stack.workspace / "data").read_bytes() == new
        assert os.listdir(stack.workspace) == ["data"]
        assert os.listdir(tmp_path / "state" / "uploads") == []
        assert await core.stop() == 0


def part_of(folder: Path) -> int:
    """The size of what lies beside the files until it is whole."""
    return max((one.stat().st_size for one in folder.glob(".*.sidecar-part")), default=0)
