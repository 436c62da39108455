"""Globs, compared with those of the standard library; and that none of them takes long."""

from __future__ import annotations

import glob
import os
import time
from pathlib import Path

import pytest

from sidecar.hands.globs import Globs
from sidecar.hands.wildmatch import translate


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name in ("a/b/c.py", "a/c.py", "c.py", ".h/x.py", "a/.h/y.md", "é/ü.py", "a/b/d/e/f"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "[x]").touch()
    os.mknod(os.fsencode(root) + b"/a/\xff.py")
    return root


@pytest.mark.parametrize(
    "pattern",
    ["*", "**", "*.py", "**/*.py", "a/**", "a/*/c.py", "a/**/c.py", "**/b/**/f", "?", "?/?.py"]
    + ["[a-c].py", "[!a]*", "**/.h/*", "*/", "**/", "a/b/", "[[]x]", "nothing", "*/*/*", "a*/**/e"],
)
def test_a_glob_names_what_the_standard_library_finds(tree: Path, pattern: str) -> None:
    found = glob.glob(pattern, root_dir=tree, recursive=True, include_hidden=True)
    expected = {os.fsencode(name.rstrip("/")) for name in found} - {b""}
    if pattern == "a/**":
        expected -= {b"a"}  # there it names the directory itself, too
    globs = Globs([pattern])
    named, entered = set(), {b""}
    for folder, directories, files in os.walk(os.fsencode(tree)):
        below = folder.removeprefix(os.fsencode(tree)).removeprefix(b"/")
        for name in (*directories, *files):
            path = os.path.join(below, name)
            is_directory = name in directories
            if globs.names(path, is_directory=is_directory):
                named.add(path)
            if is_directory and globs.leads(path):
                entered.add(path)
    assert named == expected
    assert {os.path.dirname(path) for path in named} <= entered, "what leads there is entered"


def test_a_directory_that_leads_nowhere_is_not_entered() -> None:
    globs = Globs(["src/*/test_*.py", "doc/**", b"x[a/b]y/z"])
    assert [globs.leads(path) for path in (b"src", b"src/a", b"doc", b"doc/a/b")] == [True] * 4
    assert [globs.leads(path) for path in (b"lib", b"src/a/b")] == [True, True], (
        "an odd slash in brackets: then everything is looked at"
    )
    globs = Globs(["src/*/test_*.py", "doc/**"])
    assert [globs.leads(path) for path in (b"lib", b"src/a/b", b"src/a/b/c")] == [False] * 3


def test_a_character_is_one_of_utf_8_or_a_byte_that_is_none() -> None:
    globs = Globs(["?"])
    assert globs.names("é".encode(), is_directory=False)
    assert globs.names(b"\xff", is_directory=False)
    assert not globs.names(b"\xff\xff", is_directory=False)
    assert Globs([b"\xff*"]).names(b"\xffx", is_directory=False)


@pytest.mark.parametrize("pattern", ["[", "[a", "a\\", "[[:no:]]", "[[:alpha:]"])
def test_what_is_not_well_formed_matches_nothing(pattern: str) -> None:
    assert translate(pattern) is None
    assert not Globs([pattern]).names(pattern.encode(), is_directory=False)


@pytest.mark.parametrize(
    "pattern, path",
    [
        pytest.param("*a" * 40 + "b", "a" * 255, id="stars"),
        pytest.param("*?" * 40 + "b", "a" * 255, id="questions"),
        pytest.param("**/a/" * 40 + "b", "a/" * 2000 + "c", id="directories"),
        pytest.param("**/*a*a*/" * 10 + "b", "aaaa/" * 800 + "c", id="both"),
    ],
)
def test_no_pattern_takes_long(pattern: str, path: str) -> None:
    """`re` tries all ways there are for most translations of these: for ever."""
    globs = Globs([pattern])
    begin = time.perf_counter()
    assert not globs.names(path.encode(), is_directory=False)
    assert time.perf_counter() - begin < 1
