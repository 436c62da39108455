"""A workspace and a run, with either form of hands."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from servedhands import reach
from stack import Stack, open_stack, until

from sidecar.client import Run
from sidecar.hands.local.hands import LocalHands


@pytest.fixture(scope="module", params=["in-process", "socket"])
async def module_stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("files")
    async with open_stack(folder) as stack:
        if request.param == "socket":
            local = await stack._exits.enter_async_context(
                LocalHands.open_root(str(stack.workspace))
            )
            hands = await stack._exits.enter_async_context(reach(local, folder / "socket"))
            stack.sidecar.means.hands = hands
            stack.sidecar.means.uploads._hands = hands
        yield stack


@pytest.fixture(scope="module")
async def module_run(module_stack: Stack) -> Run:
    return await module_stack.attach()


@pytest.fixture
async def place_stack(module_stack: Stack, module_run: Run) -> AsyncIterator[Stack]:
    """One for all tests of a module; each leaves it as it was."""
    yield module_stack
    await until(lambda: not module_stack.sidecar.dispatcher._open)
    with os.scandir(module_stack.workspace) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
    await module_stack.sidecar.means.uploads.sweep()


@pytest.fixture
def place(place_stack: Stack, module_run: Run) -> tuple[Path, Run]:
    return place_stack.workspace, module_run


@pytest.fixture
def small_disk(place_stack: Stack) -> Iterator[Path]:
    """A file system of 1 MiB in the workspace, where we may mount one."""
    disk = place_stack.workspace / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0777", "none", str(disk)]
    mounted = subprocess.run(mount, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
