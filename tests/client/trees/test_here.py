"""The tree of this machine: nothing that a sandbox says leads out of the folder."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.client.trees.entries import EVERYTHING, TreeOptions
from sidecar.client.trees.here import Cancelled, Folder, Look
from sidecar.errors import CallError, Code


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "top").mkdir()
    (tmp_path / "outside").mkdir()
    return tmp_path / "top"


@pytest.fixture
def folder(top: Path) -> Iterator[Folder]:
    with Folder(str(top)) as found:
        yield found


def test_a_look_tells_what_there_is_and_follows_no_link(top: Path) -> None:
    (top / "d").mkdir()
    (top / "d/a").write_text("12345")
    (top / "d/a").chmod(0o640)
    os.utime(top / "d/a", ns=(0, 1_234_567_891))
    (top / "l").symlink_to("../outside")
    os.mkfifo(top / "p")
    (top / "x.part").touch()
    nodes = Look(str(top), TreeOptions(exclude=("*.part",))).run().nodes
    assert [(node.path, node.kind) for node in nodes] == [
        (b"d", "directory"),
        (b"d/a", "file"),
        (b"l", "symlink"),
        (b"p", "fifo"),
    ]
    assert (nodes[1].size, nodes[1].mode, nodes[1].mtime_ns) == (5, 0o640, 1_234_567_891)
    assert nodes[2].target == b"../outside"


@pytest.mark.usefixtures("deep")
def test_a_directory_that_cannot_be_entered_is_a_problem(top: Path) -> None:
    deep = "n" * 250
    here = os.open(top, os.O_RDONLY)
    for _ in range(40):
        os.mkdir(deep, dir_fd=here)
        step = os.open(deep, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = step
    os.close(here)
    look = Look(str(top), EVERYTHING).run()
    [problem] = look.problems
    assert problem.why == "File name too long"
    assert len(look.nodes) < 40


def test_a_look_that_nobody_waits_for_ends(top: Path) -> None:
    (top / "a").touch()
    look = Look(str(top), EVERYTHING)
    look.cancelled = True
    with pytest.raises(Cancelled):
        look.run()


def test_a_look_at_nothing_says_so(top: Path) -> None:
    with pytest.raises(CallError) as caught:
        Look(str(top / "nope"), EVERYTHING).run()
    assert caught.value.code is Code.NOT_FOUND


def test_a_file_is_replaced_in_one_step_with_mode_and_time(folder: Folder, top: Path) -> None:
    (top / "a").write_text("old")
    before = os.open(top / "a", os.O_RDONLY)
    folder.write(b"a", b"new", 0o6755, 1_234_567_891)
    found = (top / "a").stat()
    assert (top / "a").read_bytes() == b"new"
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o755, 1_234_567_891)
    assert os.read(before, 9) == b"old"
    os.close(before)
    assert os.listdir(top) == ["a"]


@pytest.mark.parametrize(
    "operation", ["write", "link", "make_directory", "settle", "chmod", "read"]
)
@pytest.mark.parametrize("target", ["../outside", "inner", "/proc/self/cwd"])
def test_no_way_leads_through_a_link(
    operation: str, target: str, folder: Folder, top: Path
) -> None:
    (top / "inner").mkdir()
    for place in ("inner", "../outside"):
        (top / place / "x").mkdir()
    (top / "l").symlink_to(target)
    work = {
        "write": lambda: folder.write(b"l/x/a", b"1", 0o644, 0),
        "link": lambda: folder.link(b"l/x/a", b"b", 0),
        "make_directory": lambda: folder.make_directory(b"l/x/a", 0o755),
        "settle": lambda: folder.settle(b"l/x", 0o700, 0),
        "chmod": lambda: folder.chmod(b"l/x", 0o700),
        "read": lambda: folder.read(b"l/x/a", 9),
    }
    with pytest.raises(OSError) as caught:
        work[operation]()
    assert caught.value.errno in (errno.ENOTDIR, errno.ELOOP)
    assert os.listdir(top / "inner/x") == os.listdir(top / "../outside/x") == []


def test_a_link_as_the_last_name_is_replaced_and_not_written_through(
    folder: Folder, top: Path
) -> None:
    (top / "../outside/kept").write_text("old")
    (top / "l").symlink_to("../outside/kept")
    folder.write(b"l", b"new", 0o644, 0)
    assert not (top / "l").is_symlink()
    assert (top / "../outside/kept").read_text() == "old"


def test_a_link_in_the_place_of_a_directory_is_not_entered(folder: Folder, top: Path) -> None:
    (top / "../outside").chmod(0o751)
    (top / "l").symlink_to("../outside")
    with pytest.raises(OSError):
        folder.make_directory(b"l", 0o755)
    assert (top / "../outside").stat().st_mode & 0o777 == 0o751


def test_a_link_is_made_as_it_is_said_with_its_time(folder: Folder, top: Path) -> None:
    folder.link(b"l", b"../../anything", 1_234_567_891)
    folder.link(b"l", b"b", 1_234_567_891)
    assert os.readlink(top / "l") == "b"
    assert (top / "l").lstat().st_mtime_ns == 1_234_567_891
    assert os.listdir(top) == ["l"]


def test_what_cannot_be_put_in_its_place_leaves_nothing(folder: Folder, top: Path) -> None:
    (top / "d").mkdir()
    with pytest.raises(IsADirectoryError):
        folder.write(b"d", b"1", 0o644, 0)
    with pytest.raises(OSError):
        folder.link(b"d", b"x", 0)
    assert os.listdir(top) == ["d"]


def test_a_directory_is_ours_to_write_into_until_it_is_settled(folder: Folder, top: Path) -> None:
    folder.make_directory(b"d", 0o500)
    assert (top / "d").stat().st_mode & 0o777 == 0o700
    folder.make_directory(b"d", 0o500)
    folder.settle(b"d", 0o4500, 1_234_567_891)
    found = (top / "d").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o500, 1_234_567_891)


def test_a_directory_that_was_there_gives_nobody_more_rights(folder: Folder, top: Path) -> None:
    (top / "d").mkdir(mode=0o700)
    (top / "shared").mkdir()
    (top / "shared").chmod(0o775)
    for name in (b"d", b"shared"):
        folder.make_directory(name, 0o757)
        folder.settle(name, 0o757, 5)
    assert stat.S_IMODE((top / "d").stat().st_mode) == 0o700
    assert stat.S_IMODE((top / "shared").stat().st_mode) == 0o755
    assert (top / "d").stat().st_mtime_ns == 5


def test_a_fifo_in_the_place_of_a_file_is_no_trap(folder: Folder, top: Path) -> None:
    os.mkfifo(top / "p")
    with pytest.raises(OSError, match="no regular file"):
        folder.read(b"p", 9)


def test_a_file_that_has_grown_is_not_read_whole(folder: Folder, top: Path) -> None:
    (top / "a").write_bytes(b"1234567890")
    content, found = folder.read(b"a", 10)
    assert (content, found.st_size) == (b"1234567890", 10)
    with pytest.raises(OSError, match="has grown"):
        folder.read(b"a", 9)


def test_a_marker_is_there_until_it_is_removed_and_is_not_listed(folder: Folder, top: Path) -> None:
    token = bytes(16)
    assert not folder.is_marked(token)
    folder.mark(token)
    folder.mark(token)
    assert folder.is_marked(token)
    assert not folder.is_marked(b"\1" * 16)
    assert Look(str(top), EVERYTHING).run().nodes == []
    folder.unmark(token)
    folder.unmark(token)
    assert os.listdir(top) == []
