"""Files that were being read when the sidecar was killed with -9 and started again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import anyio.to_thread
import pytest
from stack import Stack, open_stack

from sidecar.client import CallError, Code
from sidecar.protocol.streams import CONTENT

pytestmark = pytest.mark.slow  # real processes, killed and started again

NAMES = [f"file-{number}" for number in range(8)]
SIZE = 2_000_000


def start(stack: Stack) -> subprocess.Popen[bytes]:
    stack.sidecars.clear()  # so that the next one has the same state folder
    return stack.start_sidecar_process()


async def read_across_a_kill(stack: Stack, *, is_changed: bool = False) -> bytes:
    """The bytes of all files, while the sidecar is killed and started again after the first."""
    child = start(stack)
    run = await stack.attach()
    got = bytearray()
    is_killed = False
    async with run.open("files.read", {"paths": NAMES}) as call:
        answer = await call.wait()
        assert answer["length"] == len(NAMES) * SIZE
        async for chunk in call.receiver(CONTENT):
            got += chunk
            if not is_killed:
                is_killed = True
                child.kill()
                await anyio.to_thread.run_sync(child.wait)
                if is_changed:
                    (stack.workspace / NAMES[-1]).write_bytes(b"other")
                start(stack)
    return bytes(got)


def plant(workspace: Path) -> bytes:
    contents = [os.urandom(SIZE) for _ in NAMES]
    for name, content in zip(NAMES, contents, strict=True):
        (workspace / name).write_bytes(content)
    return b"".join(contents)


async def test_many_files_are_sent_on_by_the_next_sidecar(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        stack.workspace.mkdir()
        content = plant(stack.workspace)
        assert await read_across_a_kill(stack) == content


async def test_one_that_is_another_by_then_ends_the_stream(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        stack.workspace.mkdir()
        plant(stack.workspace)
        with pytest.raises(CallError, match=NAMES[-1]) as caught:
            await read_across_a_kill(stack, is_changed=True)
        assert caught.value.code is Code.SOURCE_CHANGED
