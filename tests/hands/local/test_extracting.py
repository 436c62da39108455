"""What tar writes is unpacked; what means harm is refused, and nothing gets out."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tars
from tars import extracting, folder, link, member, pack, tar_of, unpack

import sidecar
from sidecar.errors import CallError, Code, Started
from sidecar.hands.local.beneath import Beneath
from sidecar.hands.local.roots import Root, Roots
from sidecar.hands.local.stop import Stop, Stopped
from sidecar.hands.local.syscalls import renameat2
from sidecar.hands.local.tar import planting
from sidecar.hands.local.tar.extracting import extract

AT_FDCWD = -100  # fcntl.h
RENAME_EXCHANGE = 2  # linux/fs.h

Member = tuple[tarfile.TarInfo, bytes]


def hard_link(name: str, target: str) -> Member:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def paths(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


# What tar writes -------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("format", ["pax", "gnu", "ustar", "v7"])
def test_what_tar_writes(root: Path, tmp_path: Path, format: str, compress: bool) -> None:
    source = tmp_path / "source"
    (source / "folder" / "below").mkdir(parents=True)
    (source / "folder" / "file").write_bytes(os.urandom(100_000))
    (source / "folder" / "file").chmod(0o640)
    (source / "folder" / "second").hardlink_to(source / "folder" / "file")
    (source / "link").symlink_to("folder/file")
    Path(os.fsdecode(os.fsencode(source) + b"/no utf-8 \xff")).write_bytes(b"3")
    if format in ("pax", "gnu"):
        (source / ("long" * 60)).write_bytes(b"2")
    os.utime(source / "folder" / "below", (0, 1_000_000_000))
    os.utime(source / "folder", (0, 1_000_000_001))
    tar = subprocess.run(
        ["tar", "-c", f"--format={format}", *(["-z"] if compress else []), "."],
        cwd=source,
        capture_output=True,
        check=True,
    ).stdout
    told = unpack(root, tar)
    assert told["refused"] == []
    same = subprocess.run(["diff", "-r", "--no-dereference", source, root])
    assert same.returncode == 0
    assert (root / "folder" / "file").stat().st_mode & 0o7777 == 0o640
    assert (root / "folder" / "file").samefile(root / "folder" / "second")
    assert (root / "folder" / "below").stat().st_mtime == 1_000_000_000
    assert (root / "folder").stat().st_mtime == 1_000_000_001


def test_what_we_write(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "read only").mkdir(parents=True)
    (source / "read only" / "file").write_bytes(b"1")
    os.utime(source / "read only" / "file", ns=(0, 1_700_000_000_123_456_789))
    (source / "read only").chmod(0o555)
    os.utime(source / "read only", ns=(0, 1_700_000_000_000_000_001))
    assert unpack(root, pack(source)[0], "made/for it")["entries"] == 2
    made = root / "made" / "for it" / "read only"
    assert made.stat().st_mode & 0o7777 == 0o555
    assert made.stat().st_mtime_ns == 1_700_000_000_000_000_001
    assert (made / "file").stat().st_mtime_ns == 1_700_000_000_123_456_789


def test_directories_that_no_member_names_are_made(root: Path) -> None:
    told = unpack(root, tar_of(member("a/b/c", b"1"), member("a/d", b"2")))
    assert told["entries"] == 2
    assert paths(root) == ["a", "a/b", "a/b/c", "a/d"]


def test_a_tree_deeper_than_descriptors_are_held(root: Path) -> None:
    deep = "/".join(["d"] * 100)
    unpack(root, tar_of(member(f"{deep}/a", b"1"), member("b", b"2"), member(f"{deep}/c", b"3")))
    assert (root / deep / "a").read_bytes() + (root / deep / "c").read_bytes() == b"13"


def test_stripped_names(root: Path) -> None:
    tar = tar_of(
        folder("top"), member("top/a", b"1"), hard_link("top/b", "top/a"), link("top/c", "a")
    )
    told = unpack(root, tar, strip=1)
    assert (told["entries"], told["refused"]) == (3, [])
    assert paths(root) == ["a", "b", "c"]
    assert os.readlink(root / "c") == "a"


def test_set_user_id_is_dropped(root: Path) -> None:
    unpack(root, tar_of(member("a", mode=0o6755), folder("d", 0o3777)))
    assert (root / "a").stat().st_mode & 0o7777 == 0o755
    assert (root / "d").stat().st_mode & 0o7777 == 0o777


# What is refused -------------------------------------------------------------------------

EVIL: dict[str, tuple[list[Member], str]] = {
    "absolute": ([member("/tmp/file")], "its path is absolute"),
    "up": ([member("../file")], "its path has a `..`"),
    "up in the middle": ([member("a/../../file")], "its path has a `..`"),
    "through a link": (
        [link("l", "."), member("l/file")],
        "its path leads through a link",
    ),
    "through a link of a directory": (
        [link("l", "."), folder("l/d")],
        "its path leads through a link",
    ),
    "through a file": (
        [member("f"), member("f/file")],
        "its path leads through what is no directory",
    ),
    "a directory for a link": ([link("l", "."), folder("l")], "a link has its name"),
    "a directory for a file": ([member("f"), folder("f")], "what is no directory has its name"),
    "a file for a directory": ([folder("d"), member("d")], "a directory has its name"),
    "a link for a directory": ([folder("d"), link("d", "x")], "a directory has its name"),
    "absolute link": ([link("l", "/etc")], "it is a link that leads out: its target is absolute"),
    "link up": ([link("l", "../outside")], "it is a link that leads out"),
    "link up and up": ([link("a/l", "../../x")], "it is a link that leads out"),
    "link up after a name": (
        [link("l", "a/../../x")],
        "it is a link that may lead out: a `..` follows a name in its target",
    ),
    "no target": ([link("l", "")], "it is a link to no path"),
    "device": ([member("d", type=tarfile.CHRTYPE, devmajor=1, devminor=3)], "it is a device"),
    "block": ([member("d", type=tarfile.BLKTYPE)], "it is a device"),
    "fifo": ([member("f", type=tarfile.FIFOTYPE)], "it is a FIFO"),
    "hard link out": (
        [hard_link("h", "../outside/secret")],
        "it is a hard link to what is not beneath the target",
    ),
    "hard link absolute": (
        [hard_link("h", "/etc/passwd")],
        "it is a hard link to what is not beneath the target",
    ),
    "hard link through a link": (
        [link("l", "."), hard_link("h", "l/x")],
        "its path leads through a link",
    ),
    "hard link to a link": (
        [link("l", "x"), hard_link("h", "l")],
        "it is a hard link to what is no regular file",
    ),
    "hard link to nothing": ([hard_link("h", "x")], "No such file or directory"),
    "hard link to the target": ([hard_link("h", ".")], "it is a link to a directory"),
    "too long a name": ([member("n" * 256)], "a name in its path is too long"),
    "too deep": ([member("d/" * 4000 + "f")], "its path is too long"),
    "part": (
        [member(f".f.{'0' * 32}.sidecar-part")],
        "a name in its path is that of a part of an upload",
    ),
    "label": ([member("label", type=b"V")], "it is a member of an unknown kind"),
}


@pytest.mark.parametrize(("members", "why"), EVIL.values(), ids=EVIL.keys())
def test_what_is_refused(root: Path, tmp_path: Path, members: list[Member], why: str) -> None:
    told = unpack(root, tar_of(*members, member("good", b"1")))
    name = members[-1][0].name.encode()
    assert told["refused"] == [[name, why]]
    assert (told["refused_count"], told["entries"]) == (1, len(members))
    assert (root / "good").read_bytes() == b"1"
    assert sorted(os.listdir(tmp_path)) == ["outside", "root"]
    assert os.listdir(tmp_path / "outside") == ["secret"]


def test_a_name_with_a_nul(root: Path) -> None:
    info, _ = member("a")
    info.pax_headers = {"path": "a\0b"}
    told = unpack(root, tar_of((info, b"")))
    assert told["refused"] == [[b"a\0b", "its path holds a NUL byte"]]


def test_a_link_that_was_there_before_leads_nowhere(root: Path, tmp_path: Path) -> None:
    (root / "l").symlink_to(tmp_path / "outside")
    told = unpack(root, tar_of(member("l/secret", b"1")))
    assert told["refused"] == [[b"l/secret", "its path leads through a link"]]
    unpack(root, tar_of(member("l", b"2")))
    assert not (root / "l").is_symlink()
    assert (tmp_path / "outside" / "secret").read_bytes() == b"secret"


def test_links_that_stay_inside(root: Path) -> None:
    tar = tar_of(link("a/b/up", "../../x"), link("a/self", "."), link("plain", "a/b"))
    assert unpack(root, tar)["refused"] == []
    assert unpack(root, tar_of(link("l", "../x")), "below")["refused"] == []
    assert unpack(root, tar_of(link("l", "../../x")), "below")["refused_count"] == 1


def test_links_may_lead_anywhere_if_asked_for(root: Path) -> None:
    tar = tar_of(link("a", "/etc"), link("b", "../../x"), link("c", "x/../../y"))
    assert unpack(root, tar, links="all")["refused"] == []
    assert [os.readlink(root / name) for name in "abc"] == ["/etc", "../../x", "x/../../y"]


def test_what_is_written_through_no_hard_link(root: Path) -> None:
    (root / "old").write_bytes(b"old")
    unpack(root, tar_of(hard_link("h", "old"), member("h", b"new")))
    assert (root / "old").read_bytes() == b"old"
    assert (root / "h").read_bytes() == b"new"


def test_only_so_many_refusals_are_named(root: Path) -> None:
    told = unpack(root, tar_of(*(member(f"../{n}") for n in range(1010))))
    assert (len(told["refused"]), told["refused_count"]) == (1000, 1010)


def test_a_sparse_member_is_refused_and_what_follows_is_made(root: Path, tmp_path: Path) -> None:
    sparse = tmp_path / "root" / ".." / "sparse"
    sparse.touch()
    os.truncate(sparse, 1 << 20)
    with sparse.open("r+b") as file:
        for offset in range(0, 1 << 20, 1 << 15):  # more holes than one block has room for
            file.seek(offset)
            file.write(b"1" * 4096)
    (tmp_path / "z").write_bytes(b"2")
    for format in ("gnu", "pax"):
        tar = subprocess.run(
            ["tar", "-c", "-S", f"--format={format}", "sparse", "z"],
            cwd=tmp_path,
            capture_output=True,
            check=True,
        ).stdout
        told = unpack(root, tar)
        assert told["refused"] == [[b"sparse", "it is a sparse file of GNU tar"]]
        assert (root / "z").read_bytes() == b"2"


# What is there already -------------------------------------------------------------------

TWICE = tar_of(folder("d", 0o700), member("d/f", b"new"), link("d/l", "f"), hard_link("d/h", "d/f"))


def test_what_is_there_is_replaced(root: Path) -> None:
    for _ in range(2):
        assert unpack(root, TWICE)["entries"] == 4
    assert paths(root) == ["d", "d/f", "d/h", "d/l"]
    assert (root / "d/f").samefile(root / "d/h")


def test_what_is_there_is_kept(root: Path) -> None:
    (root / "d").mkdir(mode=0o755)
    (root / "d" / "f").write_bytes(b"old")
    told = unpack(root, TWICE, existing="keep")
    assert (told["entries"], told["kept"], told["bytes"]) == (2, 2, 0)
    assert (root / "d" / "f").read_bytes() == b"old"
    assert (root / "d").stat().st_mode & 0o777 == 0o755


def test_what_is_there_ends_it(root: Path) -> None:
    (root / "d").mkdir()
    (root / "d" / "l").write_bytes(b"old")
    with pytest.raises(CallError) as caught:
        unpack(root, TWICE, existing="refuse")
    error = caught.value
    assert (error.code, error.started) == (Code.EXISTS, Started.YES)
    assert (error.details["member"], error.details["entries"]) == (b"d/l", 1)
    assert (root / "d" / "l").read_bytes() == b"old"
    assert (root / "d" / "f").read_bytes() == b"new"


# What ends it ----------------------------------------------------------------------------


def test_an_archive_that_is_cut_off(root: Path) -> None:
    tar = tar_of(folder("d", 0o555), member("d/a", b"1" * 1000), member("d/b", b"2" * 1000))
    with pytest.raises(CallError, match="broken at byte 3000: the end") as caught:
        unpack(root, tar[:3000])
    error = caught.value
    assert (error.code, error.started) == (Code.INVALID, Started.YES)
    assert error.details == {
        "offset": 3000,
        "entries": 2,
        "bytes": 1000,
        "refused_count": 0,
        "member": b"d/b",
    }
    assert paths(root) == ["d", "d/a"]
    assert (root / "d").stat().st_mode & 0o777 == 0o555


def test_gzip_that_is_cut_off(root: Path) -> None:
    tar = gzip.compress(tar_of(member("a", b"1"), member("b", os.urandom(100_000))))
    with pytest.raises(CallError, match="cannot be inflated"):
        unpack(root, tar[:50_000])
    assert paths(root) == ["a"]


def test_a_bomb_is_held_against_the_space_there_is(root: Path) -> None:
    info, _ = member("bomb")
    info.size = 1 << 50
    tar = tar_of(member("a", b"1"))[:1024] + info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)
    with pytest.raises(CallError) as caught:
        unpack(root, gzip.compress(tar))
    assert caught.value.code is Code.NO_SPACE
    assert caught.value.details["needed"] == 1 << 50
    assert paths(root) == ["a"]


def test_a_full_disk(small_disk: Path, root: Path) -> None:
    (small_disk / "b").write_bytes(b"old")
    tar = tar_of(member("a", b"1" * 1000), member("b", b"2" * 100_000), member("c"))
    with pytest.raises(CallError) as caught:
        unpack(root, tar, "disk")
    assert caught.value.code is Code.NO_SPACE
    assert (caught.value.details["entries"], caught.value.details["member"]) == (1, b"b")
    assert (small_disk / "b").read_bytes() == b"old"
    assert sorted(os.listdir(small_disk)) == ["a", "b"]


def test_it_is_stopped_in_the_middle_of_a_file(root: Path) -> None:
    tar = tar_of(member("a", b"1"), member("b", b"2" * 1000))
    with extracting(root) as running:
        os.write(running.fd, tar[:1700])
        running.stop.request()
        with pytest.raises(Stopped):
            running.result()
    assert "b" not in paths(root)


def test_the_target_is_a_file(root: Path) -> None:
    (root / "file").touch()
    with pytest.raises(CallError) as caught:
        unpack(root, tar_of(member("a")), "file")
    assert caught.value.code in (Code.EXISTS, Code.NOT_DIRECTORY)


def test_a_root_that_is_only_to_be_read(root: Path, tmp_path: Path) -> None:
    other = Root(Beneath(str(tmp_path / "outside")), writable=False)
    roots = Roots(Beneath(str(root)), [other])
    reader, writer = os.pipe2(os.O_NONBLOCK)
    stop = Stop()
    options = {"strip": 0, "links": "inside", "existing": "replace"}
    with pytest.raises(CallError) as caught:
        extract(roots, str(tmp_path / "outside"), options, reader, stop)
    assert caught.value.code is Code.READ_ONLY
    for descriptor in (reader, writer):
        os.close(descriptor)
    stop.close()
    roots.close()


def test_more_directories_than_wait_for_the_end(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planting, "MOST_FOLDERS", 1)
    unpack(root, tar_of(folder("a", 0o711, 7), folder("b", 0o711, 7)))
    for name in "ab":
        assert (root / name).stat().st_mode & 0o777 == 0o711
        assert (root / name).stat().st_mtime == 7


# Races -----------------------------------------------------------------------------------


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """Two names change places as fast as they can."""
    is_over = threading.Event()
    names = os.fsencode(one), os.fsencode(other)

    def swap() -> None:
        while not is_over.is_set():
            renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_a_directory_that_is_swapped_for_a_link_leads_nobody_out(
    root: Path, tmp_path: Path
) -> None:
    (root / "d").mkdir()
    (root / "l").symlink_to("../outside")
    members: list[Member] = []
    for number in range(200):
        members += [folder("d", mtime=7), member(f"d/f{number}", b"1"), member("x/other", b"2")]
        members += [link(f"d/l{number}", "x"), hard_link(f"d/h{number}", "x/other")]
    with swapping(root / "d", root / "l"):
        told: dict[str, Any] = unpack(root, tar_of(*members))
    assert os.listdir(tmp_path / "outside") == ["secret"]
    assert (tmp_path / "outside").stat().st_mtime != 7
    assert told["entries"] + told["refused_count"] == len(members)
    assert told["entries"] > 200  # and what is refused is not all of it


@pytest.mark.optional
@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody else")
@pytest.mark.optional
def test_read_only_directories_of_somebody_who_is_not_root(root: Path) -> None:
    tar = tar_of(
        folder("d", 0o555, 7),
        member("d/a", b"1"),
        folder("d/e", 0),
        member("d/e/b", b"2"),
        member("d/c", b"3"),
        member("roots/x", b"4"),
    )
    (root / "roots").mkdir()
    os.chown(root, 12345, 12345)
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, Path(tars.__file__).with_name("unpackother.py"), "12345", root],
            input=tar,
            env={**os.environ, "PYTHONPATH": str(Path(sidecar.__path__[0]).parent)},
            capture_output=True,
        )
        assert done.stderr == b""
        assert b"[[b'roots/x', 'Permission denied']]" in done.stdout
        assert b"'entries': 5" in done.stdout
        assert (root / "d").stat().st_mode & 0o777 == 0o555
        assert (root / "d").stat().st_mtime == 7
        assert (root / "d" / "e").stat().st_mode & 0o777 == 0
