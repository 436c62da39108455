"""Swaps what lies in a tree, as fast as it can: a program.

    python swapper.py ROOT OUTSIDE SEED [PLACE...]

At these places of ROOT (`PLACES`) lie, by turns, a directory, a file, a FIFO, and links: to the
place of the same name in OUTSIDE, absolute or with any number of `..`; to others in ROOT; to
themselves. They lie in ROOT/pool and are exchanged (renameat2(2)) for what is there: in no moment
is there nothing. Itself it follows no link. It prints a line when it has begun, and ends with its
input.

With one place alone it never rests, and that is what it was or a link to the one outside: so it
becomes the other one between any two calls of whoever looks at it.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sidecar.hands.local.syscalls import renameat2

EXCHANGE = 2  # RENAME_EXCHANGE, linux/fs.h
PLACES = ("a", "a/b", "a/b/c", "a/b/c/file", "a/b/file", "a/file", "a/.gitignore", "a/b/new")
KINDS = 24  # in the pool: every other one is a tree
PLACES_AT_ONCE = 20  # and then a rest, or nothing would ever be found
BURST = 200  # swaps of one place at most
REST = 0.002
_ENTER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW


def plant(top: Path, content: bytes) -> None:
    """A tree that has something at all places."""
    (top / "a/b/c").mkdir(parents=True)
    for place in PLACES[3:]:
        (top / place).write_bytes(content)


@contextmanager
def swapping(root: Path, outside: Path, seed: int, *places: str) -> Iterator[None]:
    """In the block the tree is never the same."""
    argv = [sys.executable, __file__, str(root), str(outside), str(seed), *places]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdin is not None and program.stdout is not None
        assert program.stdout.readline() == b"begun\n"
        try:
            yield
            assert program.poll() is None
        finally:
            program.stdin.close()
            assert program.wait(20) == 0


class Swapper:
    def __init__(self, root: Path, outside: Path, seed: int, places: Sequence[str]) -> None:
        self._places = places
        self._is_hot = len(places) == 1
        self._random = random.Random(seed)
        self._root = root
        self._outside = outside
        (root / "pool").mkdir(exist_ok=True)
        self._top = os.open(root, _ENTER)
        self._pool = os.open(root / "pool", os.O_RDONLY | os.O_DIRECTORY)
        for number in range(KINDS):
            self._make(number)

    def run(self) -> None:
        print("begun", flush=True)
        while not select.select([0], [], [], 0)[0]:
            for _ in range(self._random.randrange(PLACES_AT_ONCE)):
                with suppress(OSError):
                    self._swap()
            if not self._is_hot:
                time.sleep(self._random.random() * REST)

    def _swap(self) -> None:
        place, number = self._random.choice(self._places), self._random.randrange(KINDS)
        *above, name = place.split("/")
        directory = os.dup(self._top)
        try:
            for step in above:
                below = os.open(step, _ENTER, dir_fd=directory)
                os.close(directory)
                directory = below
            try:
                for _ in range(self._random.choice([1, 2, BURST])):
                    renameat2(self._pool, b"%d" % number, directory, name.encode(), EXCHANGE)
            except FileNotFoundError:
                renameat2(self._pool, b"%d" % number, directory, name.encode(), 1)
        finally:
            os.close(directory)
            if self._random.random() < 0.05:
                self._make(self._random.randrange(KINDS))

    def _make(self, number: int) -> None:
        """The pool has another one of this number."""
        name, pool, kind = str(number), self._pool, number % 12
        self._remove(name)
        place = self._random.choice(self._places)
        with suppress(FileExistsError):
            if number % 2 and self._is_hot and place.endswith("file"):
                self._make_file(name, pool)
            elif number % 2:
                self._make_tree(name)
            elif self._is_hot:
                os.symlink(self._outside / place, name, dir_fd=pool)
            elif kind == 0:
                os.symlink(self._outside / place, name, dir_fd=pool)
            elif kind == 2:
                ups = "../" * self._random.randint(1, 6)
                os.symlink(f"{ups}{self._outside.name}/{place}", name, dir_fd=pool)
            elif kind == 4:
                os.mkfifo(name, dir_fd=pool)
            elif kind == 6:
                self._make_file(name, pool)
            elif kind == 8:
                target = self._random.choice([name, "..", "../pool", "b", "../a/b"])
                os.symlink(target, name, dir_fd=pool)
            else:
                os.symlink(self._outside, name, dir_fd=pool)

    def _make_tree(self, name: str) -> None:
        here = os.dup(self._pool)
        for step in (name, "b", "c"):
            os.mkdir(step, dir_fd=here)
            below = os.open(step, _ENTER, dir_fd=here)
            os.close(here)
            here = below
            self._make_file("file", here)
        os.close(here)

    def _make_file(self, name: str, directory: int) -> None:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=directory)
        os.write(fd, b"needle of the inside\n" * 50)
        os.close(fd)

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            try:
                os.unlink(name, dir_fd=self._pool)
            except IsADirectoryError:
                shutil.rmtree(name, ignore_errors=True, dir_fd=self._pool)


if __name__ == "__main__":
    root, outside, seed, *places = sys.argv[1:]
    Swapper(Path(root), Path(outside), int(seed), places or PLACES).run()
