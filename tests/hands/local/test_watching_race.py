"""Whoever applies what a watch tells to what was there at first knows what is there at the end,
whatever was done to the tree meanwhile, and however fast."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from watchers import Watcher, watching

STEPS = 3000
NAMES = "abcd"


class Vandal:
    """Makes, moves, swaps and removes what it finds, in a tree of a few names and three levels."""

    def __init__(self, root: Path, seed: int) -> None:
        self._root = root
        self._outside = root.parent / "outside"
        self._random = random.Random(seed)
        self._acts: list[Callable[[], object]] = [
            lambda: self._somewhere().mkdir(),
            lambda: self._somewhere().mkdir(parents=True),
            lambda: self._somewhere().touch(),
            lambda: self._somewhere().write_bytes(b"x"),
            lambda: self._somewhere().unlink(),
            lambda: shutil.rmtree(self._somewhere()),
            lambda: self._somewhere().rename(self._somewhere()),
            lambda: self._somewhere().rename(self._outside / self._random.choice(NAMES)),
            lambda: (self._outside / self._random.choice(NAMES)).rename(self._somewhere()),
            lambda: self._somewhere().symlink_to(".."),
        ]

    def run(self) -> None:
        for _ in range(STEPS):
            with suppress(OSError):
                self._random.choice(self._acts)()

    def _somewhere(self) -> Path:
        depth = self._random.randint(1, 3)
        return self._root.joinpath(*self._random.choices(NAMES, k=depth))


class Follower:
    """Knows the tree by what is told."""

    def __init__(self, root: Path) -> None:
        self.known = listed(root)
        self._root = root

    def follow(self, watcher: Watcher) -> None:
        for batch in watcher.batches():
            if "lost" in batch:
                self.known = listed(self._root)
            for kind, path, _ in batch.get("changes", []):
                if kind == "removed":
                    self.known.discard(path)
                else:
                    self.known.add(path)


def listed(root: Path) -> set[bytes]:
    top = os.fsencode(root)
    return {
        os.path.relpath(os.path.join(folder, name), top)
        for folder, folders, files in os.walk(top)
        for name in (*folders, *files)
    }


@pytest.mark.parametrize("seed", range(6))
def test_what_is_told_adds_up_to_what_is_there(root: Path, seed: int) -> None:
    (root / "a/b").mkdir(parents=True)
    follower = Follower(root)
    with watching(root) as watcher:
        vandal = threading.Thread(target=Vandal(root, seed).run)
        vandal.start()
        while vandal.is_alive():
            follower.follow(watcher)
        vandal.join()
        follower.follow(watcher)
        assert follower.known == listed(root)
        for folder in sorted(path for path in root.rglob("*") if _is_directory(path)):
            (folder / "probe").touch()  # each directory that is left is watched where it lies
        follower.follow(watcher)
        assert follower.known == listed(root)
        assert watcher.watching.directories == _directories(root)


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _directories(root: Path) -> int:
    return 1 + sum(1 for path in root.rglob("*") if _is_directory(path))
