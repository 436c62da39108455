"""Both forms on every case: `beneath` comes twice."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar.errors import CallError, Code, Invalid
from sidecar.hands.local import beneath as module
from sidecar.hands.local import removal
from sidecar.hands.local.beneath import Beneath, through_proc
from sidecar.hands.local.roots import Roots


def read(beneath: Beneath, path: str | bytes) -> bytes:
    with beneath.resolved(path) as found:
        opened = os.open(through_proc(found), os.O_RDONLY)
        try:
            return os.read(opened, 100)
        finally:
            os.close(opened)


def code_of(beneath: Beneath, path: str | bytes, *, follow: bool = True) -> Code:
    with pytest.raises(CallError) as caught:
        beneath.resolve(path, follow=follow)
    return caught.value.code


@pytest.fixture
def tree(root: Path) -> Path:
    (root / "a/b").mkdir(parents=True)
    (root / "file").write_bytes(b"top")
    (root / "a/file").write_bytes(b"in a")
    (root / "a/b/file").write_bytes(b"in b")
    return root


@pytest.mark.parametrize(
    "path, content",
    [
        ("file", b"top"),
        ("./a//file", b"in a"),
        ("a/b/../file", b"in a"),
        ("a/b/../../file", b"top"),
        ("a/../a/b/../b/file", b"in b"),
        (b"a/b/file", b"in b"),
    ],
)
def test_a_path_leads_to_its_file(
    beneath: Beneath, tree: Path, path: str | bytes, content: bytes
) -> None:
    assert read(beneath, path) == content


def test_an_absolute_path_below_the_root_is_accepted(beneath: Beneath, tree: Path) -> None:
    assert read(beneath, str(tree / "a/file")) == b"in a"


def test_a_root_that_is_reached_by_a_link_has_two_names(
    tree: Path, tmp_path: Path, use_openat2: bool
) -> None:
    (tmp_path / "alias").symlink_to(tree)
    beneath = Beneath(str(tmp_path / "alias"), use_openat2=use_openat2)
    try:
        assert read(beneath, str(tmp_path / "alias/file")) == b"top"
        assert read(beneath, str(tree / "file")) == b"top"
    finally:
        beneath.close()


@pytest.mark.parametrize("path", ["", ".", "a/..", "a/b/../.."])
def test_many_paths_lead_to_the_root(beneath: Beneath, tree: Path, path: str) -> None:
    with beneath.resolved(path) as found:
        assert os.path.samestat(os.fstat(found), os.stat(tree))


@pytest.mark.parametrize(
    "path", ["..", "../outside/secret", "a/../..", "a/../../root/file", "/etc/passwd", "/"]
)
def test_a_path_that_climbs_out_is_outside(beneath: Beneath, tree: Path, path: str) -> None:
    assert code_of(beneath, path) == Code.OUTSIDE


@pytest.mark.parametrize(
    "target, content",
    [
        ("file", b"top"),
        ("./a/file", b"in a"),
        ("a/b/../file", b"in a"),
        ("a/../a/b/file", b"in b"),
        ("a/up/file", b"top"),
    ],
)
def test_a_link_that_stays_inside_is_followed(
    beneath: Beneath, tree: Path, target: str, content: bytes
) -> None:
    (tree / "a/up").symlink_to("..")
    (tree / "link").symlink_to(target)
    assert read(beneath, "link") == content


@pytest.mark.parametrize("target", ["..", "../outside/secret", "a/../../outside", "/etc/passwd"])
@pytest.mark.parametrize("path", ["link", "link/", "link/x", "a/../link"])
def test_a_link_that_leads_out_is_outside(
    beneath: Beneath, tree: Path, target: str, path: str
) -> None:
    (tree / "link").symlink_to(target)
    assert code_of(beneath, path) == Code.OUTSIDE


def test_an_absolute_link_is_outside_though_it_leads_back_in(beneath: Beneath, tree: Path) -> None:
    (tree / "link").symlink_to(tree / "file")
    assert code_of(beneath, "link") == Code.OUTSIDE


def test_the_parent_of_a_linked_directory_is_that_of_its_target(
    beneath: Beneath, tree: Path
) -> None:
    (tree / "link").symlink_to("a/b")
    assert read(beneath, "link/../file") == b"in a"


@pytest.mark.parametrize(
    "path, is_link", [("link", True), ("link/", False), ("link/.", False), ("a/../link", True)]
)
def test_a_last_link_is_itself_unless_a_slash_follows(
    beneath: Beneath, tree: Path, path: str, is_link: bool
) -> None:
    (tree / "link").symlink_to("a")
    with beneath.resolved(path, follow=False) as found:
        assert stat.S_ISLNK(os.fstat(found).st_mode) == is_link


def test_a_link_outwards_can_itself_be_looked_at(beneath: Beneath, tree: Path) -> None:
    (tree / "link").symlink_to("/etc/passwd")
    with beneath.resolved("link", follow=False) as found:
        assert os.readlink(b"", dir_fd=found) == b"/etc/passwd"


@pytest.mark.parametrize(
    "path, code",
    [
        ("nothing", Code.NOT_FOUND),
        ("nothing/..", Code.NOT_FOUND),
        ("dangling", Code.NOT_FOUND),
        ("file/", Code.NOT_DIRECTORY),
        ("file/.", Code.NOT_DIRECTORY),
        ("file/..", Code.NOT_DIRECTORY),
        ("file/x", Code.NOT_DIRECTORY),
        ("slashed", Code.NOT_DIRECTORY),
        ("loop", Code.INVALID),
        ("loop/x", Code.INVALID),
        ("n" * 256, Code.INVALID),
        ("a\0b", Code.INVALID),
    ],
)
def test_what_is_not_there_has_a_code(beneath: Beneath, tree: Path, path: str, code: Code) -> None:
    (tree / "dangling").symlink_to("nothing")
    (tree / "slashed").symlink_to("file/")
    (tree / "loop").symlink_to("loop")
    assert code_of(beneath, path) == code


def test_forty_links_are_followed_and_no_more(beneath: Beneath, tree: Path) -> None:
    previous = "file"
    for number in range(1, 42):
        (tree / f"l{number}").symlink_to(previous)
        previous = f"l{number}"
    assert read(beneath, "l40") == b"top"
    assert code_of(beneath, "l41") == Code.INVALID


def test_names_that_are_not_utf_8(beneath: Beneath, root: Path) -> None:
    directory = os.fsencode(root) + b"/\xff\xfe"
    os.mkdir(directory)
    Path(os.fsdecode(directory + b"/\x80")).write_bytes(b"latin")
    os.symlink(b"\xff\xfe/\x80", os.fsencode(root) + b"/link")
    assert read(beneath, b"\xff\xfe/\x80") == b"latin"
    assert read(beneath, "\udcff\udcfe/\udc80") == b"latin"
    assert read(beneath, "link") == b"latin"


def test_a_path_as_deep_as_the_kernel_allows(beneath: Beneath, root: Path) -> None:
    here = os.open(root, os.O_RDONLY)
    for _ in range(2046):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    assert read(beneath, "d/" * 2046 + "f") == b""
    removal.remove(
        Roots(beneath), "d", recursive=True, check=lambda: None
    )  # pytest's own rmtree recurses


def test_a_walk_has_an_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STEPS", 100)
    (root / "d").mkdir()
    beneath = Beneath(str(root), use_openat2=False)
    os.close(beneath.resolve("d/../" * 30 + "d"))
    assert code_of(beneath, "d/../" * 60 + "d") == Code.INVALID
    beneath.close()


@pytest.mark.parametrize(
    "path", ["proc/self/root/etc/passwd", "proc/self/cwd", "proc/self/fd/0", "proc/self/exe"]
)
def test_magic_links_are_not_followed(path: str, use_openat2: bool) -> None:
    beneath = Beneath("/", use_openat2=use_openat2)
    try:
        assert code_of(beneath, path) == Code.INVALID
    finally:
        beneath.close()


def test_a_magic_link_does_not_lead_out_of_proc(use_openat2: bool) -> None:
    beneath = Beneath("/proc", use_openat2=use_openat2)
    inside = os.open("/proc/version", os.O_RDONLY)
    try:
        assert code_of(beneath, f"self/fd/{inside}") == Code.INVALID
        assert code_of(beneath, "self/root/proc/version") == Code.INVALID
        assert read(beneath, "self/mounts")  # a link to self/mounts, where self is a link too
        assert read(beneath, "mounts")
    finally:
        os.close(inside)
        beneath.close()


def test_renames_elsewhere_do_not_disturb(beneath: Beneath, tree: Path) -> None:
    def rename_something() -> None:
        (tree / "x").rename(tree / "y")
        (tree / "y").rename(tree / "x")

    (tree / "x").mkdir()
    with meanwhile(rename_something):
        for _ in range(500):
            assert read(beneath, "a/b/../../a/b/../file") == b"in a"


@pytest.mark.parametrize("swapped", ["a", "a/file"])
def test_nothing_outside_is_read_while_links_are_swapped_in(
    beneath: Beneath, tree: Path, tmp_path: Path, swapped: str
) -> None:
    (tmp_path / "outside/file").write_bytes(b"secret")
    (tmp_path / "outside/b").mkdir()
    (tmp_path / "outside/b/file").write_bytes(b"secret")
    real, aside, lure = tree / swapped, tree / "aside", tree / "lure"

    def swap() -> None:
        lure.symlink_to(tmp_path / "outside" if swapped == "a" else tmp_path / "outside/secret")
        real.rename(aside)
        lure.rename(real)
        real.unlink()
        lure.symlink_to("../outside" if swapped == "a" else "../../outside/secret")
        lure.rename(real)
        real.unlink()
        aside.rename(real)

    seen, refused = set(), set()
    rounds, patience = 0, time.monotonic() + 40
    with meanwhile(swap):
        while rounds < 4000 or (Code.OUTSIDE not in refused and time.monotonic() < patience):
            rounds += 1
            for path in ("a/file", "a/b/../file", "a/b/../../a/file"):
                try:
                    seen.add(read(beneath, path))
                except CallError as error:
                    refused.add(error.code)
    assert seen == {b"in a"}
    assert Code.OUTSIDE in refused  # the lure was met


def test_a_busy_kernel_is_not_asked_for_ever(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def busy(*arguments: object) -> int:
        asked.append(arguments)
        raise BlockingIOError

    beneath = Beneath(str(tree))
    beneath._form = module.KernelForm(beneath.root)
    monkeypatch.setattr(module, "openat2", busy)
    try:
        assert read(beneath, "a/b/../file") == b"in a"
        assert len(asked) == 64
    finally:
        beneath.close()


@pytest.mark.parametrize("number", [38, 1], ids=["ENOSYS", "EPERM"])
def test_a_kernel_without_openat2_is_walked(
    tree: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def missing(*arguments: object) -> int:
        raise OSError(number, "no such call")

    monkeypatch.setattr(module, "openat2", missing)
    beneath = Beneath(str(tree))
    assert not beneath.has_openat2
    assert read(beneath, "a/file") == b"in a"
    beneath.close()
    with pytest.raises(CallError) as caught:
        Beneath(str(tree), use_openat2=True)
    assert caught.value.code == Code.UNSUPPORTED


@pytest.mark.parametrize("name, code", [("nothing", Code.NOT_FOUND), ("file", Code.NOT_DIRECTORY)])
def test_a_root_that_is_no_directory_has_a_code(tree: Path, name: str, code: Code) -> None:
    with pytest.raises(CallError) as caught:
        Beneath(str(tree / name))
    assert caught.value.code == code


def test_a_closed_root_stays_open_for_who_is_at_it(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beneath = Beneath(str(tree))
    resolve = beneath._form.resolve

    def close_and_resolve(path: bytes, *, follow: bool) -> int:
        beneath.close()
        return resolve(path, follow=follow)

    monkeypatch.setattr(beneath._form, "resolve", close_and_resolve)
    os.close(beneath.resolve("a"))
    assert code_of(beneath, "a") == Code.HANDS_AWAY
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(beneath.root)


@pytest.mark.parametrize("path", ["", ".", "..", "a/..", "a/../.", "./"])
def test_the_root_and_dots_are_no_entries(beneath: Beneath, tree: Path, path: str) -> None:
    with pytest.raises(Invalid), beneath.parent(path):
        pass


def test_a_place_is_a_directory_and_a_name(beneath: Beneath, tree: Path) -> None:
    with beneath.parent("a/b/new/") as place:
        assert os.path.samestat(os.fstat(place.directory), os.stat(tree / "a/b"))
        assert (place.name, place.has_slash) == (b"new", True)


@contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """`action` again and again in another thread; it always ends where it began."""
    over = threading.Event()

    def repeat() -> None:
        while not over.is_set():
            action()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
