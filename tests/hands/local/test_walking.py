"""The walk through a tree: its order, its ends, and what happens to the tree meanwhile."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.errors import CallError, Code
from sidecar.hands.fileinterface import Selection
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.walk import walking
from sidecar.hands.local.walk.descent import HELD
from sidecar.hands.local.walk.walking import Walked, walk

NOBODY = 65534


def paths(roots: Roots, start: str = "", after: bytes | None = None) -> list[bytes]:
    return [walked.path for walked in walk(roots, start, after=after)]


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (root / name).mkdir()
        else:
            (root / name).touch()


def make_deep(root: Path, depth: int, name: str = "d") -> None:
    here = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_the_order_is_that_of_names_and_a_directory_comes_before_what_is_in_it(
    roots: Roots, root: Path
) -> None:
    make(root, "a/b", "a/c/d", "a.b", "a-", "B", "é", "z/")
    (root / "link").symlink_to("a")
    os.mknod(os.fsencode(root) + b"/\xff")
    found = [b"B", b"a", b"a/b", b"a/c", b"a/c/d", b"a-", b"a.b", b"link", b"z"]
    found = sorted(found, key=lambda path: path.split(b"/"))
    assert paths(roots) == [*found, "é".encode(), b"\xff"]
    assert paths(roots, "a") == [b"b", b"c", b"c/d"]
    assert paths(roots, "link") == [b"b", b"c", b"c/d"], "the start may be a link"


def test_parts_of_uploads_are_passed_over(roots: Roots, root: Path) -> None:
    make(root, ".a.0123456789ab.sidecar-part", f".a.{'0' * 32}.sidecar-part", ".a.sidecar-part")
    assert paths(roots) == [b".a.sidecar-part"]


def test_what_is_given_can_be_opened_by_its_descriptors(roots: Roots, root: Path) -> None:
    make(root, "a/b")
    for walked in walk(roots, ""):
        assert walked.stat is not None
        by_name = os.stat(walked.name, dir_fd=walked.directory)
        assert by_name.st_ino == walked.stat.st_ino
        if walked.is_directory:
            assert walked.opened is not None
            assert os.fstat(walked.opened).st_ino == by_name.st_ino


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.text("ab.-", min_size=1, max_size=2), max_size=12),
    after=st.lists(st.text("ab.-", min_size=1, max_size=2), min_size=1, max_size=4),
)
def test_a_walk_goes_on_after_any_path_there_or_not(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], after: list[str]
) -> None:
    from sidecar.hands.local.beneath import Beneath

    root = tmp_path_factory.mktemp("tree")
    here = root
    for name in names:
        if name in (".", "..") or (here / name).exists():
            here = root
            continue
        (here / name).mkdir()
        (here / name / "file").touch()
        here = here / name
    roots = Roots(Beneath(str(root)))
    try:
        everything = paths(roots)
        assert everything == sorted(everything, key=lambda path: path.split(b"/"))
        for place in [*everything, "/".join(after).encode()]:
            rest = [path for path in everything if path.split(b"/") > place.split(b"/")]
            assert paths(roots, after=place) == rest
    finally:
        roots.close()


@pytest.mark.usefixtures("deep")
def test_a_tree_deeper_than_there_may_be_descriptors(roots: Roots, root: Path) -> None:
    make_deep(root, 3000)
    os.mkdir(root / "d" / "e")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (HELD + 64, hard))
    try:
        found = paths(roots)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == [b"/".join([b"d"] * depth) for depth in range(1, 3001)] + [b"d/e"]


@pytest.mark.usefixtures("deep")
def test_a_path_that_is_too_long_ends_in_one_error(roots: Roots, root: Path) -> None:
    make_deep(root, 100, "n" * 200)
    *found, last = walk(roots, "")
    assert all(walked.error is None for walked in found)
    assert last.error is not None
    assert last.error.errno == errno.ENAMETOOLONG
    assert walking.LONGEST < len(last.path) <= walking.LONGEST + 256


@pytest.mark.parametrize("depth", [3, HELD + 10])
def test_what_is_moved_away_meanwhile_leads_nowhere_else(
    roots: Roots, root: Path, tmp_path: Path, depth: int
) -> None:
    """The descriptor below still works; its `..` is outside by now."""
    make_deep(root, depth)
    make(root, "z")
    found: list[bytes] = []
    for walked in walk(roots, ""):
        found.append(walked.path)
        if len(found) == depth:
            (root / "d").rename(tmp_path / "outside" / "d")
            (root / "d").mkdir()
            (root / "d" / "other").touch()
    assert found == [b"/".join([b"d"] * count) for count in range(1, depth + 1)] + [b"z"]


def test_a_directory_that_becomes_a_link_is_not_followed(
    roots: Roots, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(root, "a/", "b")
    real = os.open

    def swapping(path: object, flags: int, *more: int, dir_fd: int | None = None) -> int:
        if path == b"a":
            (root / "a").rmdir()
            (root / "a").symlink_to("../outside")
        return real(path, flags, *more, dir_fd=dir_fd)  # type: ignore[arg-type]

    monkeypatch.setattr(walking.os, "open", swapping)
    swapped, other = walk(roots, "")
    assert swapped.error is not None
    assert swapped.error.errno in (errno.ELOOP, errno.ENOTDIR)
    assert other.path == b"b"


def test_what_vanishes_meanwhile_is_passed_over(roots: Roots, root: Path) -> None:
    make(root, "a", "b", "c/d", "e")
    found = []
    for walked in walk(roots, ""):
        found.append(walked.path)
        if walked.name == b"a":
            (root / "b").unlink()
        if walked.name == b"c":
            (root / "c" / "d").unlink()
            (root / "c").rmdir()
    assert found == [b"a", b"c", b"e"]


@pytest.mark.usefixtures("deep")
def test_what_cannot_be_entered_is_told_and_the_walk_goes_on(roots: Roots, root: Path) -> None:
    make(root, "a/x", "b/y", "c")
    (root / "a").chmod(0)
    (root / "b").chmod(0o444)  # its names can be read, and nothing behind them
    with as_nobody():
        found = list(walk(roots, ""))
    assert [(walked.path, walked.error and walked.error.errno) for walked in found] == [
        (b"a", errno.EACCES),
        (b"b", None),
        (b"b/y", errno.EACCES),
        (b"c", None),
    ]
    assert found[0].is_directory
    assert found[2].stat is None


def test_no_room_for_descriptors_is_no_property_of_an_entry(
    roots: Roots, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(root, "a/")

    def full(entry: Walked) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(walking._Tree, "_open", lambda tree, entry: full(entry))
    with pytest.raises(CallError) as caught:
        list(walk(roots, ""))
    assert caught.value.code == Code.LIMIT


def test_check_is_asked_before_each_entry_and_told_what_was_before(
    roots: Roots, root: Path
) -> None:
    make(root, "a/b", "c")
    told: list[bytes] = []
    assert len(list(walk(roots, "", check=told.append))) == 3
    assert list(dict.fromkeys(told)) == [b"", b"a", b"a/b"]

    def stop(last: bytes) -> None:
        if last == b"a":
            raise CallError(Code.CANCELLED, "enough")

    with pytest.raises(CallError, match="enough"):
        list(walk(roots, "", check=stop))


def test_who_leaves_early_leaves_no_descriptor(roots: Roots, root: Path) -> None:
    make(root, "a/b/c")
    with closing(walk(roots, "")) as found:  # type: ignore[type-var]
        assert next(found).path == b"a"


@pytest.mark.parametrize(
    "start, code",
    [("file", Code.NOT_DIRECTORY), ("no", Code.NOT_FOUND), ("..", Code.OUTSIDE)],
)
def test_a_start_that_is_no_directory(roots: Roots, root: Path, start: str, code: Code) -> None:
    make(root, "file")
    with pytest.raises(CallError) as caught:
        list(walk(roots, start))
    assert caught.value.code == code


def test_depth_counts_levels(roots: Roots, root: Path) -> None:
    make(root, "a/b/c")
    for depth, last in [(1, b"a"), (2, b"a/b"), (3, b"a/b/c"), (4, b"a/b/c")]:
        assert [walked.path for walked in walk(roots, "", Selection(depth=depth))][-1] == last


@contextmanager
def as_nobody() -> Iterator[None]:
    """This thread asks for files as a user who is nobody (setfsuid(2)), if it is root's."""
    set_user: Callable[[int], int] = ctypes.CDLL(None).setfsuid
    before = set_user(NOBODY)
    assert threading.current_thread() is threading.main_thread()
    try:
        yield
    finally:
        set_user(before)
