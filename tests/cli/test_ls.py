"""`sidecar ls -R`: trees of the workspace."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tree(dev) -> Iterator[Path]:
    tree = dev.folder / "tree"
    for name in ("src/a.o", "src/b.c", "src/deep/c.c", "notes.txt", ".git/config"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    (tree / ".gitignore").write_text("*.o\n")
    yield tree
    shutil.rmtree(tree)


def test_a_tree_is_shown_as_paths(sidecar, tree: Path) -> None:
    shown = sidecar("ls", "-R", "tree/src").stdout
    assert shown == b"a.o\nb.c\ndeep\ndeep/c.c\n"
    assert sidecar("ls", "-R", "--depth", "1", "tree/src").stdout == b"a.o\nb.c\ndeep\n"


def test_what_git_ignores_and_what_is_excluded_is_left_out(sidecar, tree: Path) -> None:
    shown = sidecar("ls", "-R", "--git-ignore", "--exclude", "*.txt", "--json", "tree").stdout
    names = [json.loads(line)["name"] for line in shown.splitlines()]
    assert names == [".gitignore", "src", "src/b.c", "src/deep", "src/deep/c.c"]
    assert sidecar("ls", "--exclude", "s*", "tree").stdout == b".git\n.gitignore\nnotes.txt\n"


@pytest.mark.usefixtures("deep")
def test_a_directory_that_cannot_be_entered_is_named_and_counts(sidecar, tree: Path) -> None:
    here = os.open(tree / "src" / "deep", os.O_RDONLY)
    for _ in range(45):  # times 200: a longer path than can be told
        os.mkdir("n" * 200, dir_fd=here)
        below = os.open("n" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    done = sidecar("ls", "-R", "--json", "tree/src")
    assert done.returncode == 1
    assert done.stderr.endswith(b"n: invalid\n")
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["type"], last["error"]["code"]) == ("directory", "invalid")


def test_depth_needs_a_tree(sidecar, dev) -> None:
    done = sidecar("ls", "--depth", "2")
    assert done.returncode == 2
    assert b"--depth goes with -R" in done.stderr
