"""Roots to work in, each form of hands on them, and a look for what was left behind."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from servedhands import reach

from sidecar.errors import CallError
from sidecar.hands.apart.descriptors import _CLOSER
from sidecar.hands.interface import Hands
from sidecar.hands.local.beneath import Beneath
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.local.roots import Roots


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """No test of hands leaks a descriptor or leaves a child, running or unreaped."""
    before = open_descriptors()
    yield
    while _CLOSER._works:  # a thread closes what was discarded
        time.sleep(0.001)
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
        skip_without_openat2(tmp_path)
    return wanted


def skip_without_openat2(folder: Path) -> None:
    try:
        Beneath(str(folder), use_openat2=True).close()
    except CallError as error:
        pytest.skip(str(error))


@pytest.fixture
def beneath(root: Path, use_openat2: bool) -> Iterator[Beneath]:
    beneath = Beneath(str(root), use_openat2=use_openat2)
    yield beneath
    beneath.close()


@pytest.fixture
def roots(beneath: Beneath) -> Roots:
    """The workspace alone."""
    return Roots(beneath)


@pytest.fixture(
    params=[pytest.param("openat2", marks=pytest.mark.optional), "walk", "socket"],
)
def form(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Both ways to resolve, and the other form of hands."""
    form: str = request.param
    if form == "openat2":
        skip_without_openat2(tmp_path)
    return form


@pytest.fixture
def socket_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For a hands to listen at, outside of what a test looks into."""
    return tmp_path_factory.mktemp("hands") / "socket"


@pytest.fixture
async def hands(form: str, root: Path, socket_path: Path) -> AsyncIterator[Hands]:
    """Whatever asks for this runs thrice."""
    openat2 = None if form == "socket" else form == "openat2"
    async with LocalHands.open_root(str(root), openat2=openat2) as local:
        if form != "socket":
            yield local
            return
        async with reach(local, socket_path) as hands:
            yield hands


@pytest.fixture
async def local(root: Path) -> AsyncIterator[LocalHands]:
    """What acts, in either form: to look into."""
    async with LocalHands.open_root(str(root)) as local:
        yield local


@pytest.fixture(params=["in-process", "socket"])
async def any_hands(
    request: pytest.FixtureRequest, local: LocalHands, socket_path: Path
) -> AsyncIterator[Hands]:
    """For what has nothing to do with resolving, in both forms."""
    if request.param == "in-process":
        yield local
        return
    async with reach(local, socket_path) as hands:
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
