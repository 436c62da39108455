"""Roots to work in, both ways to resolve in them, and a look for what was left behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sidecar.errors import CallError
from sidecar.hands.beneath import Beneath
from sidecar.hands.local import LocalHands


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """No test of hands leaks a descriptor or leaves a child, running or unreaped."""
    before = open_descriptors()
    yield
    assert open_descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def open_descriptors() -> dict[str, str]:
    """Number and target of each; the folder itself is open while it is read, so it is left out."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The workspace; beside it lies `secret`, which nobody may reach."""
    root = tmp_path / "root"
    root.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    return root


@pytest.fixture(
    params=[
        pytest.param(True, id="openat2", marks=pytest.mark.optional),
        pytest.param(False, id="walk"),
    ]
)
def use_openat2(request: pytest.FixtureRequest, tmp_path: Path) -> bool:
    """Both forms of resolving: whatever asks for this runs twice."""
    wanted: bool = request.param
    if wanted:
        try:
            Beneath(str(tmp_path), use_openat2=True).close()
        except CallError as error:
            pytest.skip(str(error))
    return wanted


@pytest.fixture
def beneath(root: Path, use_openat2: bool) -> Iterator[Beneath]:
    beneath = Beneath(str(root), use_openat2=use_openat2)
    yield beneath
    beneath.close()


@pytest.fixture
async def hands(root: Path, use_openat2: bool) -> AsyncIterator[LocalHands]:
    async with LocalHands.open_root(str(root), openat2=use_openat2) as hands:
        yield hands


@pytest.fixture
async def any_hands(root: Path) -> AsyncIterator[LocalHands]:
    """For what has nothing to do with resolving."""
    async with LocalHands.open_root(str(root)) as hands:
        yield hands


@pytest.fixture
def small_disk(root: Path) -> Iterator[Path]:
    """A file system of 64 KiB and a few files in the workspace, where we may mount one."""
    disk = root / "disk"
    disk.mkdir()
    options = "size=64k,nr_inodes=8,mode=0777"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(disk)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
