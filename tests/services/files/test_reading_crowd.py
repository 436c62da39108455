"""Two hundred readers of large files at once: memory and descriptors of the sidecar are bounded."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import anyio
import pytest
from procs import forget_peak, held, peak
from stack import open_stack

from sidecar.client import Run

pytestmark = pytest.mark.slow

READERS = 200
SIZE = 4_000_000
MIB = 1024 * 1024


async def test_two_hundred_readers_take_bounded_memory_and_a_descriptor_each(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        stack.workspace.mkdir()
        content = os.urandom(SIZE)
        (stack.workspace / "file").write_bytes(content)
        child = stack.start_sidecar_process()
        run = await stack.attach()
        await run.files.read("file")
        before = held(child.pid)
        forget_peak(child.pid)
        most = 0
        expected = hashlib.sha256(content).digest()

        async def read(run: Run) -> None:
            nonlocal most
            digest = hashlib.sha256()
            async with run.files.open("file") as download:
                async for chunk in download:
                    digest.update(chunk)
                most = max(most, held(child.pid).descriptors)
            assert digest.digest() == expected

        with anyio.fail_after(100):
            async with anyio.create_task_group() as group:
                for _ in range(READERS):
                    group.start_soon(read, run)
        added = peak(child.pid) - before.resident
        assert added <= 128 * MIB, f"{added / MIB:.0f} MiB"
        assert most - before.descriptors <= READERS + 16
