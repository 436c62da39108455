"""Removing, through both forms of hands and with both ways of resolving."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from sidecar.errors import CallError, Code, Started
from sidecar.hands.interface import Hands
from sidecar.hands.local import removal
from sidecar.hands.local.beneath import Beneath
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.local.roots import Roots


async def test_a_file_goes(hands: Hands, root: Path) -> None:
    (root / "file").touch()
    assert await hands.remove("file") == 1
    assert os.listdir(root) == []


async def test_a_link_goes_and_its_target_stays(hands: Hands, root: Path) -> None:
    (root / "folder").mkdir()
    (root / "link").symlink_to("folder")
    (root / "out").symlink_to("../outside")
    assert await hands.remove("link", recursive=True) == 1
    assert await hands.remove("out", recursive=True) == 1
    assert (root / "folder").is_dir()
    assert (root.parent / "outside/secret").exists()


async def test_a_directory_with_entries_needs_recursive(hands: Hands, root: Path) -> None:
    (root / "a/b").mkdir(parents=True)
    with pytest.raises(CallError) as caught:
        await hands.remove("a")
    assert caught.value.code == Code.NOT_EMPTY
    assert await hands.remove("a/b/") == 1
    assert await hands.remove("a") == 1


async def test_a_tree_goes_and_its_entries_are_counted(hands: Hands, root: Path) -> None:
    for name in ("t/a/x", "t/a/y", "t/b/c/d", "t/b/z"):
        (root / name).mkdir(parents=True)
    (root / "t/a/x/file").touch()
    (root / "t/file").touch()
    (root / "t/out").symlink_to("../../outside")
    os.mkfifo(root / "t/b/fifo")
    assert await hands.remove("t", recursive=True) == 12
    assert os.listdir(root) == []
    assert (root.parent / "outside/secret").exists()


@pytest.mark.parametrize(
    "path, code",
    [
        ("", Code.INVALID),
        (".", Code.INVALID),
        ("folder/..", Code.INVALID),
        ("..", Code.INVALID),
        ("../outside", Code.OUTSIDE),
        ("out/secret", Code.OUTSIDE),
        ("nothing", Code.NOT_FOUND),
        ("file/", Code.NOT_DIRECTORY),
        ("out/", Code.NOT_DIRECTORY),
    ],
)
async def test_what_is_not_removed_has_a_code(
    hands: Hands, root: Path, path: str, code: Code
) -> None:
    (root / "folder").mkdir()
    (root / "file").touch()
    (root / "out").symlink_to("../outside")
    with pytest.raises(CallError) as caught:
        await hands.remove(path, recursive=True)
    assert caught.value.code == code
    assert (root.parent / "outside/secret").exists()
    assert len(os.listdir(root)) == 3


async def test_the_root_is_not_removed_by_its_absolute_path(hands: Hands, root: Path) -> None:
    with pytest.raises(CallError) as caught:
        await hands.remove(str(root), recursive=True)
    assert caught.value.code == Code.INVALID


def test_a_tree_deeper_than_any_path_goes_with_one_descriptor(root: Path) -> None:
    here = os.open(root, os.O_RDONLY)
    for _ in range(5000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)

    descriptors: set[int] = set()

    def check() -> None:
        descriptors.add(len(os.listdir("/proc/self/fd")))

    roots = Roots(Beneath(str(root)))
    (root / "d/file").touch()
    assert removal.remove(roots, "d", recursive=True, check=check) == 5001
    roots.close()
    assert max(descriptors) - min(descriptors) <= 2


@pytest.mark.optional
@pytest.mark.parametrize("path", ["disk", "."])
def test_a_mounted_file_system_is_not_emptied(root: Path, small_disk: Path, path: str) -> None:
    (small_disk / "kept").touch()
    (root / "t").mkdir()
    parent = Roots(Beneath(str(root.parent)))
    try:
        with pytest.raises(CallError) as caught:
            removal.remove(parent, f"root/{path}/", recursive=True, check=lambda: None)
    finally:
        parent.close()
    assert (caught.value.code, caught.value.details["errno"]) == (Code.BUSY, "EBUSY")
    assert (small_disk / "kept").exists()


@pytest.fixture
def bound(root: Path) -> Iterator[Path]:
    """A bind mount at t/a/bound, of the same file system and so of the same device."""
    (root / "kept").mkdir()
    (root / "kept/file").touch()
    (root / "t/a/bound").mkdir(parents=True)
    command = ["mount", "--bind", str(root / "kept"), str(root / "t/a/bound")]
    mounted = subprocess.run(command, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"cannot bind mount: {mounted.stderr.decode().strip()}")
    yield root / "t/a/bound"
    subprocess.run(["umount", root / "t/a/bound"], check=True)


@pytest.mark.optional
async def test_a_bind_mount_is_not_emptied(any_hands: Hands, root: Path, bound: Path) -> None:
    (root / "t/a/gone").touch()
    with pytest.raises(CallError) as caught:
        await any_hands.remove("t", recursive=True)
    assert caught.value.details == {"errno": "EBUSY", "path": "t", "removed": 1}
    assert caught.value.started == Started.YES
    assert (bound / "file").exists()


def test_a_directory_that_is_moved_meanwhile_ends_the_removal(root: Path, roots: Roots) -> None:
    (root / "t/a/b").mkdir(parents=True)
    (root / "t/a/b/file").touch()
    (root / "elsewhere").mkdir()
    (root / "elsewhere/kept").touch()

    def move() -> None:
        if _is_open(root / "t/a/b"):
            (root / "t/a/b").rename(root / "elsewhere/b")

    with pytest.raises(CallError) as caught:
        removal.remove(roots, "t", recursive=True, check=move)
    assert caught.value.details["errno"] == "ESTALE"
    assert (root / "elsewhere/kept").exists()


def _is_open(path: Path) -> bool:
    links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return any(os.path.lexists(link) and os.readlink(link) == str(path) for link in links)


def _once(action: Callable[[], None]) -> Callable[[], None]:
    todo = [action]

    def call() -> None:
        while todo:
            todo.pop()()

    return call


def test_nothing_outside_goes_when_directories_are_swapped_for_links(
    root: Path, roots: Roots
) -> None:
    for number in range(5):
        (root / f"t/{number}/x").mkdir(parents=True)

    def swap() -> None:  # called when the names and types of the five have just been read
        for number in range(5):
            (root / f"t/{number}").rename(root / f"aside{number}")
            (root / f"t/{number}").symlink_to("../../outside")

    removal.remove(roots, "t", recursive=True, check=_once(swap))
    assert os.listdir(root.parent / "outside") == ["secret"]
    assert sorted(os.listdir(root)) == ["aside0", "aside1", "aside2", "aside3", "aside4"]


def test_a_directory_that_never_gets_empty_ends_the_removal(root: Path, roots: Roots) -> None:
    (root / "t/a").mkdir(parents=True)
    (root / "t/a/0").touch()
    numbers = iter(range(1, 100))

    def refill() -> None:
        (root / f"t/a/{next(numbers)}").touch()

    with pytest.raises(CallError) as caught:
        removal.remove(roots, "t", recursive=True, check=refill)
    assert caught.value.code == Code.NOT_EMPTY
    assert caught.value.started == Started.YES


async def test_cancelling_stops_a_removal(local: LocalHands, root: Path) -> None:
    (root / "t").mkdir()
    here = os.open(root / "t", os.O_RDONLY)
    for number in range(3_000):
        os.mkdir(str(number), dir_fd=here)
    os.close(here)
    with anyio.move_on_after(0.02) as scope:
        await local.remove("t", recursive=True)
    assert scope.cancelled_caught
    left = len(os.listdir(root / "t"))
    await anyio.sleep(0.05)
    assert 0 < len(os.listdir(root / "t")) == left
    await local.remove("t", recursive=True)
