"""The list of roots: how it is written, and what is told of one that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.hands.rootlist import MAX_LIST, ListedRoot, parse_roots, problems_of_roots


@pytest.mark.parametrize(
    "text, roots",
    [
        ("", []),
        (" , ", []),
        ("/data", [ListedRoot("/data")]),
        ("/data:ro", [ListedRoot("/data")]),
        ("/data:rw,/ref", [ListedRoot("/data", writable=True), ListedRoot("/ref")]),
        (" /data:rw , /ref:ro ", [ListedRoot("/data", writable=True), ListedRoot("/ref")]),
        ("/with:colon", [ListedRoot("/with:colon")]),
        ("/with:colon:rw", [ListedRoot("/with:colon", writable=True)]),
        (":ro", [ListedRoot(":ro")]),
    ],
)
def test_a_list_is_read(text: str, roots: list[ListedRoot]) -> None:
    assert parse_roots(text) == roots


def test_a_list_is_written_as_it_is_read() -> None:
    roots = [ListedRoot("/data", writable=True), ListedRoot("/ref")]
    assert ",".join(map(str, roots)) == "/data:rw,/ref:ro"
    assert parse_roots("/data:rw,/ref:ro") == roots


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """work/vendor, data/ref, and `alias`, a link to work."""
    (tmp_path / "work/vendor").mkdir(parents=True)
    (tmp_path / "data/ref").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "alias").symlink_to("work")
    return tmp_path


@pytest.mark.parametrize(
    "listed",
    [
        "T/data",
        "T/data:rw",
        "T/data/ref:rw,T/data:ro",
        "T:ro",
        "T:ro,T/data:rw",
        "/:ro",
        # A name that only begins like the workspace's.
        "T/workbench",
    ],
)
def test_these_may_stand_beside_each_other(tree: Path, listed: str) -> None:
    (tree / "workbench").mkdir()
    assert problems_of_roots(listed.replace("T", str(tree)), f"{tree}/work", "--roots") == []


@pytest.mark.parametrize(
    "listed, problem",
    [
        ("data", "'data' is not absolute: say where it is from /"),
        (":ro", "':ro' is not absolute: say where it is from /"),
        ("T/nothing", "'T/nothing' is not a folder; make it or take it off the list"),
        ("T/file:rw", "'T/file' is not a folder; make it or take it off the list"),
        ("T/work", "'T/work' lies in the workspace, where paths reach it already: take it off"),
        ("T/work/vendor:ro", "'T/work/vendor' lies in the workspace, where paths reach it"),
        ("T/work/vendor:rw", "'T/work/vendor' lies in the workspace, where paths reach it"),
        ("T/alias/vendor", "'T/alias/vendor' lies in the workspace, where paths reach it already"),
        ("T:rw", "the workspace lies in 'T': only T:ro can be"),
        ("T/data:rw,T/data/ref:ro", "'T/data/ref' lies in 'T/data', where paths reach it already"),
        ("T/data:ro,T/data/ref:ro", "'T/data/ref' lies in 'T/data', where paths reach it already"),
        ("T/data:ro,T/data:rw", "'T/data' lies in 'T/data', where paths reach it already"),
        ("/" + "x" * MAX_LIST, "has 4097 characters: at most 4096 allowed"),
    ],
)
def test_what_cannot_be_is_told_with_the_remedy(tree: Path, listed: str, problem: str) -> None:
    problems = problems_of_roots(listed.replace("T", str(tree)), f"{tree}/work", "--roots")
    [told] = problems
    assert told.startswith("--roots")
    assert problem.replace("T", str(tree)) in told


def test_every_mistake_is_told_at_once(tree: Path) -> None:
    problems = problems_of_roots(f"here,{tree}/nothing,{tree}/data", f"{tree}/work", "--roots")
    assert len(problems) == 2
