"""A tree becomes a tar stream that others read: tar itself, and Python's `tarfile`."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import tarfile
from pathlib import Path

import pytest
from tars import archiving, pack

from sidecar.errors import CallError, Code, Invalid
from sidecar.hands.local.stop import Stopped
from sidecar.hands.local.tar import archiving as module


def members(tar: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8") as archive:
        return {info.name: info for info in archive}


def content(tar: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8") as archive:
        file = archive.extractfile(name)
        assert file is not None
        return file.read()


def listed(folder: Path) -> list[bytes]:
    """Type, mode, time and target of all that is in a tree."""
    found = subprocess.run(
        ["find", ".", "-mindepth", "1", "-printf", r"%y %m %T@ %s %P %l\0"],
        cwd=folder,
        capture_output=True,
        check=True,
    )
    return sorted(line for line in found.stdout.split(b"\0") if not line.startswith(b"d "))


@pytest.fixture
def tree(root: Path) -> Path:
    """Whatever a tree may hold."""
    (root / "folder" / "empty").mkdir(parents=True)
    (root / "folder" / "file").write_bytes(b"content")
    (root / "folder" / "second").hardlink_to(root / "folder" / "file")
    (root / "script").write_bytes(b"#!/bin/sh\n" * 10_000)
    (root / "script").chmod(0o4751)
    os.utime(root / "script", ns=(0, 1_234_567_890_123_456_789))
    (root / "link").symlink_to("folder/" + "x" * 200)
    (root / "\u00fcn\u00efcode").write_bytes(b"1")
    (root / ("long" * 60)).write_bytes(b"2")
    Path(os.fsdecode(os.fsencode(root) + b"/no utf-8 \xff")).write_bytes(b"3")
    (root / "folder").chmod(0o750)
    return root


@pytest.mark.parametrize("compress", ["none", "gzip"])
def test_tar_reads_it(tree: Path, tmp_path: Path, compress: str) -> None:
    tar, told = pack(tree, compress=compress)
    copy = tmp_path / "copy"
    copy.mkdir()
    done = subprocess.run(
        ["tar", "-x", "-p", "-f", "-", *(["-z"] if compress == "gzip" else [])],
        input=tar,
        cwd=copy,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert listed(copy) == listed(tree)
    assert (copy / "folder").stat().st_mode & 0o7777 == 0o750
    assert (copy / "folder/file").samefile(copy / "folder/second")
    assert told == {"entries": 9, "bytes": 100_010, "skipped": [], "skipped_count": 0}


def test_tarfile_reads_it(tree: Path) -> None:
    found = members(pack(tree)[0])
    assert sorted(map(os.fsencode, found)) == sorted(
        os.fsencode(path.relative_to(tree)) for path in tree.rglob("*")
    )
    assert found["script"].mode == 0o4751
    assert found["script"].pax_headers["mtime"] == "1234567890.123456789"
    assert (found["script"].uid, found["script"].uname) == (os.getuid(), "")
    assert found["folder/second"].islnk()
    assert found["folder/second"].linkname == "folder/file"


def test_what_is_left_out_is_told(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    tar, told = pack(root)
    assert members(tar) == {}
    assert told["skipped"] == [[b"fifo", "a FIFO"], [b"socket", "a socket"]]
    assert told["skipped_count"] == 2


def test_only_so_many_are_named(root: Path) -> None:
    for number in range(1010):
        os.mkfifo(root / f"fifo{number:04}")
    told = pack(root)[1]
    assert (len(told["skipped"]), told["skipped_count"]) == (1000, 1010)


def test_only_these_paths_and_what_is_below_them(tree: Path) -> None:
    tar = pack(tree, paths=["folder/file", "folder", "./link", b"folder//empty/"])[0]
    assert list(members(tar)) == ["folder", "folder/empty", "folder/file", "folder/second", "link"]
    assert list(members(pack(tree, "folder", paths=["empty"])[0])) == ["empty"]
    assert list(members(pack(tree, "folder", paths=["."])[0])) == ["empty", "file", "second"]


@pytest.mark.parametrize("path", ["../outside", "folder/../../outside", "/etc", "a\0b"])
def test_paths_that_lead_elsewhere(tree: Path, path: str) -> None:
    with pytest.raises(Invalid):
        pack(tree, paths=[path])


def test_a_path_that_is_missing_is_told_before_the_first_byte(tree: Path) -> None:
    with pytest.raises(CallError) as caught:
        pack(tree, paths=["folder", "missing"])
    assert (caught.value.code, caught.value.details["path"]) == (Code.NOT_FOUND, "missing")


def test_what_the_selection_leaves_out(tree: Path) -> None:
    (tree / ".gitignore").write_text("script\n")
    tar = pack(tree, exclude=["second", "long*"], ignore="git")[0]
    names = list(members(tar))
    assert {"script", "folder/second", "long" * 60}.isdisjoint(names)
    assert "folder/file" in names


def test_parts_of_uploads_are_not_there(root: Path) -> None:
    (root / f".file.{'0' * 32}.sidecar-part").write_bytes(b"half")
    assert members(pack(root)[0]) == {}


SIZE = 4_000_000  # more than the pipe and what is gathered for it


def test_a_file_that_grows_is_cut_at_its_first_size(root: Path) -> None:
    (root / "log").write_bytes(b"1" * SIZE)
    with archiving(root) as running:
        begin = os.read(running.fd, 1000)
        with (root / "log").open("ab") as log:
            log.write(b"2" * SIZE)
        tar = begin + rest_of(running.fd)
        assert running.result()["skipped"] == []
    assert content(tar, "log") == b"1" * SIZE


def test_a_file_that_shrinks_ends_with_zeros_and_is_told(root: Path) -> None:
    (root / "a").write_bytes(b"1" * SIZE)
    (root / "b").write_bytes(b"next")
    with archiving(root) as running:
        begin = os.read(running.fd, 1000)
        os.truncate(root / "a", 3_000_000)
        tar = begin + rest_of(running.fd)
        told = running.result()
    assert told["skipped"] == [[b"a", "it became shorter: zeros stand for its last 1000000 bytes"]]
    assert told["bytes"] == 3_000_004
    assert content(tar, "a") == b"1" * 3_000_000 + bytes(1_000_000)
    assert content(tar, "b") == b"next"


def test_holes_become_zeros(root: Path) -> None:
    (root / "sparse").touch()
    os.truncate(root / "sparse", 1_000_000)
    assert content(pack(root)[0], "sparse") == bytes(1_000_000)


def test_more_files_with_several_names_than_are_remembered(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_LINKED", 1)
    for name in ("a", "b"):
        (root / name).write_bytes(b"1")
        (root / f"{name}2").hardlink_to(root / name)
    found = members(pack(root)[0])
    assert [name for name, info in found.items() if info.islnk()] == ["a2"]


def test_nothing_but_a_directory_is_archived(root: Path) -> None:
    (root / "file").touch()
    with pytest.raises(CallError) as caught:
        pack(root, "file")
    assert caught.value.code is Code.NOT_DIRECTORY


def test_nobody_reads(root: Path) -> None:
    (root / "large").touch()
    os.truncate(root / "large", 1 << 34)
    with archiving(root) as running:
        os.read(running.fd, 1000)
        os.close(running.fd)
        running.fd = -1
        with pytest.raises(Stopped):
            running.result()


def test_it_is_stopped_while_nobody_reads(root: Path) -> None:
    (root / "large").touch()
    os.truncate(root / "large", 1 << 34)
    with archiving(root) as running:
        os.read(running.fd, 1000)
        running.stop.request()
        with pytest.raises(Stopped):
            running.result()


def rest_of(fd: int) -> bytes:
    parts = []
    while data := os.read(fd, 1 << 20):
        parts.append(data)
    return b"".join(parts)
