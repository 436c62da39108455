"""The part of a download: taken up by who copies the same, refused to everybody else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.client.localpart import LocalPart, open_directory_of, remove_older, token_of
from sidecar.errors import CallError, Code

TOKEN = token_of("run:a", "version 1")
NAME = f".a.{TOKEN.hex()}.sidecar-part"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_a_part_is_kept_taken_up_and_becomes_the_file(tmp_path: Path, directory: int) -> None:
    part = LocalPart(directory, b"a", TOKEN)
    part.write([b"12", b"34"])
    part.close(keep=True)
    assert os.listdir(tmp_path) == [NAME]

    part = LocalPart(directory, b"a", TOKEN)
    assert part.size == 4
    part.write([b"5"])
    part.commit(0o6750, 1_234_567_891)
    part.close(keep=False)
    found = (tmp_path / "a").stat()
    assert (tmp_path / "a").read_bytes() == b"12345"
    assert (found.st_mode & 0o7777, found.st_mtime_ns) == (0o750, 1_234_567_891)
    assert os.listdir(tmp_path) == ["a"]


def test_what_is_begun_anew_is_empty(directory: int) -> None:
    part = LocalPart(directory, b"a", TOKEN)
    part.write([b"12"])
    part.truncate()
    assert (part.size, os.fstat(part.fd).st_size) == (0, 0)
    part.close(keep=False)


@pytest.mark.parametrize("keep", [True, False])
def test_an_empty_part_and_one_that_is_not_kept_are_removed(
    keep: bool, tmp_path: Path, directory: int
) -> None:
    part = LocalPart(directory, b"a", TOKEN)
    if not keep:
        part.write([b"12"])
    part.close(keep=keep)
    assert os.listdir(tmp_path) == []


def test_one_copies_at_a_time(directory: int) -> None:
    first = LocalPart(directory, b"a", TOKEN)
    with pytest.raises(CallError) as caught:
        LocalPart(directory, b"a", TOKEN)
    assert caught.value.code is Code.CONFLICT
    first.close(keep=False)
    LocalPart(directory, b"a", TOKEN).close(keep=False)


def test_a_link_in_its_place_is_not_followed(tmp_path: Path, directory: int) -> None:
    (tmp_path / "victim").write_text("old")
    (tmp_path / NAME).symlink_to("victim")
    with pytest.raises(OSError):
        LocalPart(directory, b"a", TOKEN)
    assert (tmp_path / "victim").read_text() == "old"


def test_a_second_name_of_another_file_is_none_of_ours(tmp_path: Path, directory: int) -> None:
    (tmp_path / "victim").write_text("old")
    (tmp_path / NAME).hardlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        LocalPart(directory, b"a", TOKEN)
    assert (tmp_path / "victim").read_text() == "old"


def test_parts_of_older_versions_are_removed_and_no_others(tmp_path: Path, directory: int) -> None:
    for source, version in [("run:a", "version 0"), ("run:b", "version 0")]:
        part = LocalPart(directory, b"a", token_of(source, version))
        part.write([b"1"])
        part.close(keep=True)
    busy = LocalPart(directory, b"a", token_of("run:a", "busy"))
    busy.write([b"1"])
    (tmp_path / "a").touch()
    remove_older(directory, b"a", TOKEN)
    other = f".a.{token_of('run:b', 'version 0').hex()}.sidecar-part"
    assert sorted(os.listdir(tmp_path)) == sorted(
        ["a", other, f".a.{token_of('run:a', 'busy').hex()}.sidecar-part"]
    )
    busy.close(keep=False)


def test_a_long_name_has_a_part_too(tmp_path: Path, directory: int) -> None:
    name = b"n" * 255
    part = LocalPart(directory, name, TOKEN)
    part.write([b"1"])
    part.commit(0o644, 0)
    part.close(keep=False)
    assert os.listdir(tmp_path) == ["n" * 255]


def test_the_directory_of_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (b"a", os.fsencode(tmp_path / "a")):
        fd, name = open_directory_of(path)
        assert name == b"a"
        assert os.path.sameopenfile(fd, fd) and os.path.samestat(os.fstat(fd), tmp_path.stat())
        os.close(fd)
