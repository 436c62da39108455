"""A folder is on a volume whole, or visibly not."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from sidecar.cli import foldercopy
from sidecar.cli.foldercopy import Busy, NotOurs, build_of, copy_folder

TREE = {
    "bin/sidecar": 0o755,
    "lib/libc.so.6": 0o755,
    "lib/python3.11/os.py": 0o644,
    "libexec/python3": 0o755,
    "share/licenses/MIT": 0o644,
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "source", "one")


def make_folder(folder: Path, build: str) -> Path:
    for name, mode in TREE.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} of {build}")
        path.chmod(mode)
    (folder / ".build").write_text(f"{build}\n")
    return folder


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in found}


def no_words(line: str) -> None:
    raise AssertionError(line)


def test_a_copy_has_all_files_with_their_modes(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "new/volume"
    umask = os.umask(0o077)
    try:
        assert copy_folder(source, target, no_words)
    finally:
        os.umask(umask)
    assert files(target) == files(source)
    assert {name: (target / name).stat().st_mode & 0o777 for name in TREE} == TREE
    assert (target / "bin").stat().st_mode & 0o777 == 0o755
    assert build_of(target) == "one"


def test_a_second_copy_of_the_same_build_touches_nothing(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "volume"
    copy_folder(source, target, no_words)
    before = (target / "bin/sidecar").stat()
    assert not copy_folder(source, target, no_words)
    assert (target / "bin/sidecar").stat() == before


def test_another_build_takes_the_place_of_the_first(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "volume"
    copy_folder(source, target, no_words)
    (target / "lib/python3.11/gone.py").write_text("a file that the next build does not have")
    other = make_folder(tmp_path / "other", "two")
    assert copy_folder(other, target, no_words)
    assert files(target) == files(other)


def test_a_copy_can_be_copied_on(source: Path, tmp_path: Path) -> None:
    copy_folder(source, tmp_path / "first", no_words)
    assert copy_folder(tmp_path / "first", tmp_path / "second", no_words)
    assert files(tmp_path / "second") == files(source)


def test_a_new_volume_may_have_its_lost_and_found(source: Path, tmp_path: Path) -> None:
    (tmp_path / "volume/lost+found").mkdir(parents=True)
    assert copy_folder(source, tmp_path / "volume", no_words)


def test_a_directory_with_other_things_is_left_alone(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "usr"
    (target / "bin").mkdir(parents=True)
    (target / "bin/env").write_text("precious")
    with pytest.raises(NotOurs, match="'bin'"):
        copy_folder(source, target, no_words)
    assert files(target) == {"bin/env": "precious"}


def test_nothing_is_copied_into_itself(source: Path) -> None:
    with pytest.raises(NotOurs, match="inside"):
        copy_folder(source, source / "lib/x", no_words)
    assert not (source / "lib/x").exists()


def test_two_at_once_are_one_too_many(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "volume"
    target.mkdir()
    fd = os.open(target, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        with pytest.raises(Busy, match="at work"):
            copy_folder(source, target, no_words)
    finally:
        os.close(fd)
    assert files(target) == {}


@pytest.mark.parametrize("steps", range(1, 12))
def test_wherever_it_is_killed_there_is_no_program_without_the_rest(
    steps: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each step: the program is of one build with all of the rest, or is not there."""
    target = tmp_path / "volume"
    copy_folder(source, target, no_words)
    other = make_folder(tmp_path / "other", "two")

    left = steps
    with monkeypatch.context() as patch:
        patch.setattr(foldercopy, "_remove_leftovers", lambda target: None)  # a killed one cannot
        for owner, name in ((Path, "rename"), (Path, "mkdir"), (shutil, "copytree")):
            step = getattr(owner, name)

            def counted(*args: object, step: object = step, **more: object) -> object:
                nonlocal left
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
                return step(*args, **more)  # type: ignore[operator]

            patch.setattr(owner, name, counted)
        with pytest.raises(KeyboardInterrupt):
            copy_folder(other, target, no_words)

    there = files(target)
    if program := there.get("bin/sidecar"):
        build = program.split()[-1]
        assert [there[name] for name in TREE] == [f"{name} of {build}" for name in TREE]
    assert build_of(target) is None or there["bin/sidecar"] == "bin/sidecar of one"

    assert copy_folder(other, target, no_words)
    assert files(target) == files(other)


def test_what_takes_long_says_how_far_it_is(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foldercopy, "_PATIENCE", 0.0)
    said: list[str] = []
    copy_folder(source, tmp_path / "volume", said.append)
    assert said[-1] == "5 files copied ..."


def test_a_full_disk_leaves_no_rubbish_behind(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "volume"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copy", full)
        with pytest.raises(OSError, match="No space"):
            copy_folder(source, target, no_words)
    assert files(target) == {".build": ""}
    assert copy_folder(source, target, no_words)
