"""What is told of a directory that is watched, by the real kernel."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from watchers import watching

from sidecar.errors import CallError, Code
from sidecar.hands.local.beneath import Beneath
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.stop import Stop, Stopped
from sidecar.hands.local.watch.watching import Watching
from sidecar.hands.names import part_name

QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")


def test_files_come_change_and_go(root: Path) -> None:
    (root / "old").write_bytes(b"1")
    (root / "gone").touch()
    with watching(root) as watcher:
        (root / "new").touch()
        (root / "old").write_bytes(b"2")
        (root / "gone").unlink()
        (root / "link").symlink_to("nowhere")
        os.mkfifo(root / "fifo")
        assert watcher.rows() == {
            ("added", "new", "file"),
            ("modified", "old", "file"),
            ("removed", "gone", "file"),
            ("added", "link", "symlink"),
            ("added", "fifo", "fifo"),
        }
        assert watcher.told() == set()


def test_a_file_that_is_renamed_over_another_has_modified_it(root: Path) -> None:
    (root / "target").write_bytes(b"old")
    with watching(root) as watcher:
        (root / "draft").write_bytes(b"new")
        assert watcher.told() == {"+draft"}
        os.replace(root / "draft", root / "target")
        assert watcher.told() == {"-draft", "~target"}


def test_what_comes_and_goes_between_two_looks_is_nothing(root: Path) -> None:
    with watching(root) as watcher:
        (root / "a").touch()
        (root / "a").unlink()
        (root / "d/e").mkdir(parents=True)
        shutil.rmtree(root / "d")
        assert watcher.told() == set()


def test_all_that_lies_in_new_directories_is_told_once(root: Path) -> None:
    expected = set()
    with watching(root) as watcher:
        for a in range(10):
            for b in range(5):
                folder = root / f"a{a}" / f"b{b}"
                folder.mkdir(parents=True)
                for c in range(10):
                    (folder / f"c{c}").touch()
                    expected.add(f"+a{a}/b{b}/c{c}")
                expected.add(f"+a{a}/b{b}/")
                if b == 2:
                    watcher.watching.receive()  # in the middle of it
            expected.add(f"+a{a}/")
        assert watcher.told() == expected


def test_a_directory_that_is_moved_goes_and_comes_with_all_in_it(root: Path) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/c").touch()
    with watching(root) as watcher:
        (root / "a").rename(root / "z")
        assert watcher.told() == {"-a/", "-a/b/", "-a/b/c", "+z/", "+z/b/", "+z/b/c"}
        (root / "z/b/d").touch()
        assert watcher.told() == {"+z/b/d"}, "it is watched in its new place"
        (root / "z").rename(root.parent / "outside/z")
        assert watcher.told() == {"-z/", "-z/b/", "-z/b/c", "-z/b/d"}
        (root.parent / "outside/z/b/e").touch()
        assert watcher.told() == set(), "it is not ours any more"


def test_directories_that_change_places_are_told_right(root: Path) -> None:
    for name in "ab":
        (root / name / "sub").mkdir(parents=True)
        (root / name / "sub" / f"of-{name}").touch()
    with watching(root) as watcher:
        (root / "a").rename(root / "t")
        (root / "b").rename(root / "a")
        (root / "t").rename(root / "b")
        assert {"-a/sub/of-a", "+a/sub/of-b", "-b/sub/of-b", "+b/sub/of-a"} <= watcher.told()
        (root / "a/sub/new").touch()
        (root / "b/sub/new").touch()
        assert watcher.told() == {"+a/sub/new", "+b/sub/new"}


def test_a_directory_that_takes_the_place_of_another_is_watched(root: Path) -> None:
    (root / "d").mkdir()
    (root / "d/old").touch()
    with watching(root) as watcher:
        shutil.rmtree(root / "d")
        (root / "d").mkdir()
        (root / "d/new").touch()
        assert watcher.told() == {"-d/old", "~d/", "+d/new"}
        shutil.rmtree(root / "d")
        (root / "d").touch()
        assert watcher.rows() == {("removed", "d/new", "file"), ("modified", "d", "file")}


def test_a_directory_may_move_up_into_the_place_of_its_parent(root: Path) -> None:
    (root / "d/sub").mkdir(parents=True)
    (root / "d/sub/x").touch()
    with watching(root) as watcher:
        (root / "d/sub").rename(root / "t")
        (root / "d").rmdir()
        (root / "t").rename(root / "d")
        assert watcher.told() == {"-d/sub/", "-d/sub/x", "~d/", "+d/x"}
        (root / "d/y").touch()
        assert watcher.told() == {"+d/y"}


def test_links_are_told_and_never_followed(root: Path) -> None:
    outside = root.parent / "outside"
    (root / "before").symlink_to(outside)
    with watching(root) as watcher:
        (root / "after").symlink_to(outside)
        assert watcher.told() == {"+after"}
        (outside / "more").touch()
        (outside / "folder").mkdir()
        assert watcher.told() == set()


def test_names_that_are_not_text_are_told(root: Path) -> None:
    with watching(root) as watcher:
        (root / os.fsdecode(b"\xff")).mkdir()
        (root / os.fsdecode(b"\xff/\xfe")).touch()
        assert watcher.told() == {"+\udcff/", "+\udcff/\udcfe"}


def test_files_without_a_name_and_parts_of_uploads_are_not_told(root: Path) -> None:
    part = os.fsdecode(part_name(b"file", bytes(16)))
    with watching(root) as watcher:
        fd = os.open(root, os.O_TMPFILE | os.O_WRONLY)
        os.write(fd, b"x")
        os.close(fd)
        (root / part).write_bytes(b"half")
        assert watcher.told() == set()
        (root / part).rename(root / "file")
        assert watcher.told() == {"+file"}


def test_only_the_directory_itself_if_that_is_wanted(root: Path) -> None:
    (root / "old").mkdir()
    with watching(root, recursive=False) as watcher:
        (root / "new/sub").mkdir(parents=True)
        (root / "old/x").touch()
        (root / "y").touch()
        assert watcher.told() == {"+new/", "+y"}
        assert watcher.watching.directories == 1
        (root / "new").rename(root / "other")
        assert watcher.told() == {"-new/", "+other/"}


# What is left out --------------------------------------------------------------------------


def test_what_is_excluded_is_neither_told_nor_watched(root: Path) -> None:
    (root / "node_modules/x").mkdir(parents=True)
    with watching(root, exclude=["*.log", "node_modules/"]) as watcher:
        assert watcher.watching.directories == 1
        (root / "a.log").touch()
        (root / "node_modules/y").touch()
        (root / "a.txt").touch()
        (root / "sub/node_modules").mkdir(parents=True)
        assert watcher.told() == {"+a.txt", "+sub/"}
        (root / "a.log").rename(root / "b.txt")
        assert watcher.told() == {"+b.txt"}
        (root / "b.txt").rename(root / "b.log")
        assert watcher.told() == {"-b.txt"}


def test_ignore_files_count_also_when_they_change(root: Path) -> None:
    (root / ".git").mkdir()
    (root / ".gitignore").write_text("out/\n")
    (root / "out").mkdir()
    (root / "out/x").touch()
    (root / "keep").touch()
    with watching(root, ignore="git") as watcher:
        (root / "out/y").touch()
        (root / ".git/index").touch()
        assert watcher.told() == set()
        (root / ".gitignore").write_text("keep\n")
        assert watcher.told() == {"~.gitignore", "+out/", "+out/x", "+out/y", "-keep"}
        (root / "out/z").touch()
        (root / "keep").write_bytes(b"1")
        assert watcher.told() == {"+out/z"}
        (root / "out/.gitignore").write_text("*.o\n")
        (root / "out/a.o").touch()
        (root / "out/a.c").touch()
        assert watcher.told() == {"+out/.gitignore", "+out/a.c"}


def test_an_ignore_file_above_the_directory_counts(root: Path) -> None:
    (root / "src").mkdir()
    (root / ".gitignore").write_text("/src/*.o\n")
    with watching(root, "src", ignore="git") as watcher:
        (root / "src/a.o").touch()
        (root / "src/a.c").touch()
        assert watcher.told() == {"+a.c"}


# When it is not that simple -----------------------------------------------------------------


@pytest.mark.optional
def test_an_overflow_is_told_and_then_all_is_right_again(root: Path) -> None:
    events = int(QUEUE.read_text())
    if events > 50_000:
        pytest.skip(f"this kernel keeps {events} events")
    with watching(root) as watcher:
        for name in "ab":
            (root / name).touch()
        for _ in range(events // 2):  # in turn, because the same event twice is one
            os.utime(root / "a")
            os.utime(root / "b")
        (root / "unseen/sub").mkdir(parents=True)
        (root / "a").unlink()
        assert watcher.lost() == ["overflow"]
        (root / "unseen/sub/x").touch()
        (root / "b").unlink()
        (root / "a").touch()
        assert watcher.told() == {"+unseen/sub/x", "-b", "+a"}


@pytest.mark.parametrize("path", ["a/w", "link"])
def test_the_watch_goes_on_with_what_takes_the_place_of_its_directory(
    root: Path, path: str
) -> None:
    (root / "a/w").mkdir(parents=True)
    (root / "link").symlink_to("a/w")
    with watching(root, path) as watcher:
        (root / "a/w").rename(root / "a/old")
        assert watcher.lost() == ["gone"]
        (root / "a/old/x").touch()
        assert watcher.batches() == []
        if path == "link":
            (root / "other").mkdir()
            (root / "new").symlink_to("other")
            os.replace(root / "new", root / "link")
        else:
            (root / path).mkdir()
        assert watcher.lost() == ["replaced"]
        (root / path / "y").touch()
        assert watcher.told() == {"+y"}


def test_a_directory_that_comes_back_is_watched(root: Path) -> None:
    (root / "a/w/sub").mkdir(parents=True)
    with watching(root, "a/w") as watcher:
        (root / "a").rename(root / "b")
        assert watcher.lost() == ["gone"]
        (root / "b").rename(root / "a")
        assert watcher.lost() == ["replaced"]
        (root / "a/w/sub/x").touch()
        assert watcher.told() == {"+sub/x"}
        shutil.rmtree(root / "a")
        assert watcher.lost() == ["gone"]
        (root / "a/w").mkdir(parents=True)
        assert watcher.lost() == ["replaced"]


def test_a_way_through_a_link_that_is_turned_is_another_directory(root: Path) -> None:
    for name in ("one", "two"):
        (root / name).mkdir()
    (root / "current").symlink_to("one")
    with watching(root, "current") as watcher:
        (root / "next").symlink_to("two")
        os.replace(root / "next", root / "current")
        assert watcher.lost() == ["replaced"]
        (root / "one/x").touch()
        (root / "two/y").touch()
        assert watcher.told() == {"+y"}


def test_a_root_of_hands_is_the_directory_and_not_its_name(root: Path) -> None:
    (root / "x").touch()
    with watching(root) as watcher:
        moved = root.rename(root.parent / "moved")
        (moved / "y").touch()
        assert watcher.told() == {"+y"}
        shutil.rmtree(moved)
        assert watcher.told() == {"-x", "-y"}
    root.mkdir()


def test_a_way_that_leads_into_the_tree_itself_is_no_loop(root: Path) -> None:
    (root / "d").mkdir()
    (root / "d/up").symlink_to("..")
    with watching(root, "d/up") as watcher:
        (root / "x").touch()
        (root / "d/y").touch()
        assert watcher.told() == {"+x", "+d/y"}


@pytest.mark.parametrize(
    "path, code",
    [
        ("nothing", Code.NOT_FOUND),
        ("file", Code.NOT_DIRECTORY),
        ("out", Code.OUTSIDE),
        ("../outside", Code.OUTSIDE),
    ],
)
def test_what_cannot_be_watched_is_an_error(root: Path, path: str, code: Code) -> None:
    (root / "file").touch()
    (root / "out").symlink_to("../outside")
    with pytest.raises(CallError) as caught, watching(root, path):
        pass
    assert caught.value.code is code


@pytest.mark.usefixtures("deep")
def test_a_deep_tree_is_watched_with_few_descriptors(root: Path) -> None:
    here = root
    for _ in range(300):
        here = here / "d"
        here.mkdir()
    with watching(root) as watcher:
        assert watcher.watching.directories == 301
        (here / "x").touch()
        assert watcher.told() == {"+" + "d/" * 300 + "x"}
        (root / "d").rename(root / "e")
        assert len(watcher.told()) == 2 * 301


def test_no_watch_is_left_for_what_is_gone(root: Path) -> None:
    with watching(root) as watcher:
        for turn in range(3):
            for number in range(10):
                (root / f"d{turn}" / str(number)).mkdir(parents=True)
            watcher.read_all()
            (root / f"d{turn}").rename(root.parent / f"outside/{turn}")
        watcher.read_all()
        assert watcher.watching.directories == 1
        assert _watches(watcher.watching.fd) == 1


def _watches(fd: int) -> int:
    """How many the kernel knows of (proc(5), /proc/pid/fdinfo)."""
    return Path(f"/proc/self/fdinfo/{fd}").read_text().count("inotify wd:")


@pytest.mark.optional
def test_a_bind_mount_of_a_directory_in_itself_is_no_loop(root: Path, tmp_path: Path) -> None:
    (root / "a/b").mkdir(parents=True)
    if os.system(f"mount --bind {root}/a {root}/a/b 2>/dev/null") != 0:
        pytest.skip("cannot mount here")
    try:
        with watching(root) as watcher:
            (root / "a/x").touch()
            assert watcher.told() == {"+a/x"}
    finally:
        assert os.system(f"umount {root}/a/b") == 0


def test_a_stop_ends_the_first_look_at_a_tree(root: Path) -> None:
    (root / "a").mkdir()
    roots, stop = Roots(Beneath(str(root))), Stop()
    stop.request()
    watching = Watching(roots, "", {"recursive": True, "exclude": [], "ignore": "none"}, stop)
    with pytest.raises(Stopped):
        watching.begin()
    watching.close()
    stop.close()
    roots.close()
