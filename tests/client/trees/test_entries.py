"""The plan of a copy: what is missing, what is in the way, what leads out."""

from __future__ import annotations

import pytest

from sidecar.client.trees.entries import (
    MOST_ENTRIES,
    PACK_BYTES,
    PACK_FILES,
    SMALL,
    Node,
    check_count,
    check_path,
    leads_out,
    packs_of,
    plan_of,
)
from sidecar.errors import CallError


def file(path: bytes, size: int = 1, *, mode: int = 0o644, mtime_ns: int = 5) -> Node:
    return Node(path, "file", size, mode, mtime_ns)


def directory(path: bytes) -> Node:
    return Node(path, "directory", 0, 0o755, 5)


def link(path: bytes, target: bytes) -> Node:
    return Node(path, "symlink", len(target), 0o777, 5, target)


def by_path(*nodes: Node) -> dict[bytes, Node]:
    return {node.path: node for node in nodes}


def test_into_nothing_everything_is_copied_large_files_by_themselves() -> None:
    source = [directory(b"d"), file(b"d/a"), file(b"d/b", SMALL + 1), link(b"d/l", b"a")]
    plan = plan_of(source, {})
    assert plan.directories == [source[0]]
    assert plan.small == [source[1]]
    assert plan.large == [source[2]]
    assert plan.links == [source[3]]
    assert (plan.files, plan.bytes, plan.same) == (2, SMALL + 2, 0)


def test_what_has_the_same_size_and_time_is_passed_over() -> None:
    source = [file(b"same"), file(b"longer", 2), file(b"later", mtime_ns=6), link(b"l", b"same")]
    target = by_path(file(b"same"), file(b"longer"), file(b"later"), link(b"l", b"same"))
    plan = plan_of(source, target)
    assert plan.small == [source[1], source[2]]
    assert (plan.same, plan.links, plan.modes) == (2, [], [])


def test_a_link_that_says_something_else_is_copied() -> None:
    plan = plan_of([link(b"l", b"a")], by_path(link(b"l", b"b")))
    assert plan.links == [link(b"l", b"a")]


def test_where_only_the_mode_differs_only_the_mode_is_set() -> None:
    source = [file(b"a", mode=0o755)]
    plan = plan_of(source, by_path(file(b"a", mode=0o644)))
    assert (plan.small, plan.modes, plan.same) == ([], source, 1)


def test_with_digests_the_time_does_not_matter() -> None:
    source = [file(b"a", mtime_ns=6), file(b"b")]
    target = by_path(file(b"a"), file(b"b"))
    plan = plan_of(source, target, equal=frozenset([b"a"]))
    assert plan.small == [source[1]]
    assert plan.same == 1


def test_a_directory_in_the_place_of_a_file_is_not_removed() -> None:
    plan = plan_of([file(b"a")], by_path(directory(b"a")))
    assert plan.small == []
    [problem] = plan.problems
    assert problem.path == b"a"
    assert problem.why == "is a file; what is in its place is a directory"


def test_what_is_below_a_directory_that_cannot_be_made_is_told_once() -> None:
    source = [directory(b"d"), file(b"d/a"), directory(b"d/e"), file(b"d/e/b"), file(b"d2")]
    plan = plan_of(source, by_path(link(b"d", b"elsewhere")))
    assert [problem.path for problem in plan.problems] == [b"d"]
    assert (plan.small, plan.directories) == ([source[4]], [])


def test_special_files_are_told_and_passed_over() -> None:
    plan = plan_of([Node(b"p", "fifo", 0, 0o600, 0)], {})
    assert [problem.why for problem in plan.problems] == ["is a fifo, which is not copied"]


@pytest.mark.parametrize(
    "path, target, expected",
    [
        (b"l", b"a", False),
        (b"l", b"../a", True),
        (b"d/l", b"../a", False),
        (b"d/l", b"..", False),
        (b"d/l", b"../..", True),
        (b"d/l", b"x/../../a", False),
        (b"d/l", b"../../d/a", True),
        (b"d/l", b"././/../a", False),
        (b"l", b"/etc/passwd", True),
    ],
)
def test_a_link_that_leads_out_is_told_by_its_text(
    path: bytes, target: bytes, expected: bool
) -> None:
    assert leads_out(link(path, target)) is expected
    plan = plan_of([link(path, target)], {})
    assert len(plan.problems) == expected
    assert plan_of([link(path, target)], {}, all_links=True).problems == []


@pytest.mark.parametrize(
    "path", [b"", b"/etc/passwd", b"a//b", b"../a", b"a/../b", b"a/.", b"a\0b", b"a/"]
)
def test_what_is_no_path_below_the_top_is_seen(path: bytes) -> None:
    assert check_path(path) == "is no path below the top of the tree"


def test_the_name_of_a_part_is_seen() -> None:
    assert check_path(b"a/.b." + b"0" * 32 + b".sidecar-part/c") is not None
    assert check_path(b"a/..b/...") is None


def test_packs_are_bounded_in_bytes_in_files_and_in_paths() -> None:
    large = [file(b"%d" % n, SMALL) for n in range(9)]
    packs = list(packs_of(large))
    assert [node for pack in packs for node in pack] == large
    assert max(sum(node.size for node in pack) for pack in packs) <= PACK_BYTES
    many = [file(b"%d" % n, 0) for n in range(PACK_FILES + 1)]
    assert [len(pack) for pack in packs_of(many)] == [PACK_FILES, 1]
    long = [file(b"%0200d" % n, 0) for n in range(400)]
    assert [len(pack) for pack in packs_of(long)] == [327, 73]
    assert list(packs_of([])) == []


def test_a_tree_beyond_all_bounds_is_refused() -> None:
    check_count(MOST_ENTRIES)
    with pytest.raises(CallError, match="entries of a tree: 2000001"):
        check_count(MOST_ENTRIES + 1)
