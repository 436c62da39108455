"""Lists of names that are kept for the next page, and when they are not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sidecar.errors import CallError, Code
from sidecar.hands.local.walk import namelists
from sidecar.hands.local.walk.namelists import KEPT_TIME, NameLists, read_names


class Bench:
    """A large directory that was not changed for long, and lists on a clock that stands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 100.0
        self.lists = NameLists(lambda: self.now)

    def read(self) -> Sequence[bytes]:
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            return self.lists.read(descriptor, lambda: None)
        finally:
            os.close(descriptor)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(namelists, "KEEP_FROM", 2)
    monkeypatch.setattr(namelists, "SETTLED", -60.0)
    for name in ("b", "a", "c"):
        (tmp_path / name).touch()
    yield Bench(tmp_path)


def test_a_list_is_kept_until_the_directory_changes(bench: Bench) -> None:
    first = bench.read()
    assert first == [b"a", b"b", b"c"]
    assert bench.read() is first
    (bench.folder / "d").touch()
    os.utime(bench.folder, ns=(1, 1))
    assert bench.read() == [b"a", b"b", b"c", b"d"]


def test_a_directory_in_the_place_of_another_has_names_of_its_own(bench: Bench) -> None:
    bench.read()
    times = os.stat(bench.folder)
    bench.folder.rename(bench.folder.with_name("old"))
    bench.folder.mkdir()
    (bench.folder / "x").touch()
    (bench.folder / "y").touch()
    os.utime(bench.folder, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert bench.read() == [b"x", b"y"]


def test_a_list_goes_when_nobody_used_it_for_a_while(bench: Bench) -> None:
    first = bench.read()
    assert bench.lists.expire() == KEPT_TIME
    bench.now += KEPT_TIME - 1
    assert bench.read() is first
    bench.now += KEPT_TIME - 1
    assert bench.lists.expire() == 1.0
    bench.now += 1
    assert bench.lists.expire() is None
    assert bench.read() is not first


def test_a_directory_that_was_changed_just_now_is_read_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two changes may bear the same time."""
    monkeypatch.setattr(namelists, "SETTLED", 2.0)
    (bench.folder / "d").touch()
    assert bench.read() is not bench.read()


def test_a_small_directory_is_read_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namelists, "KEEP_FROM", 4)
    assert bench.read() is not bench.read()


def test_lists_are_kept_within_bounds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bench.read()
    other = Bench(bench.folder / "other")
    other.lists = bench.lists
    other.folder.mkdir()
    for name in ("x", "y", "z"):
        (other.folder / name).touch()
    monkeypatch.setattr(namelists, "KEPT_BYTES", 3 * (namelists._NAME_BYTES + 1))
    assert bench.read() is not first, "the folder has another name by now"
    kept = other.read()
    assert other.read() is kept
    assert len(bench.lists._kept) == 1, "the list used longest ago is gone"
    monkeypatch.setattr(namelists, "KEPT_BYTES", 1)
    os.utime(other.folder, ns=(1, 1))
    assert other.read() is not other.read(), "too large to be kept at all"


def test_more_names_than_are_held_end_in_an_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namelists, "MAX_NAMES", 2)
    with pytest.raises(CallError) as caught:
        bench.read()
    assert caught.value.code == Code.LIMIT


def test_many_names_are_sorted_in_runs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namelists, "RUN", 10)
    for number in range(95):
        (bench.folder / f"{number * 37 % 95:02}").touch()
    descriptor = os.open(bench.folder, os.O_RDONLY)
    found = read_names(descriptor, lambda: None)
    os.close(descriptor)
    assert found == [*(b"%02d" % number for number in range(95)), b"a", b"b", b"c"]
