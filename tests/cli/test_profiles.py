"""The files by which verbs find a `sidecar dev`."""

from __future__ import annotations

import json
import os
import socket
import stat
from dataclasses import asdict
from pathlib import Path

import pytest

from sidecar.cli import profiles
from sidecar.errors import SettingsError
from sidecar.protocol.names import check_id


@pytest.fixture(autouse=True)
def folder(bench, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(bench.runtime))
    return bench.runtime / "sidecar"


def profile(run: str, folder: Path, pid: int, served: str = "/work") -> profiles.Profile:
    return profiles.Profile(
        run=run,
        folder=served,
        hub="ws://127.0.0.1:1/client/hubs/sidecar",
        socket=str(folder / f"{run}.sock"),
        state="/tmp/state",
        pid=pid,
    )


@pytest.mark.parametrize(
    "name, slug",
    [
        ("My Project_2", "my-project-2"),
        ("--..--", "dev"),
        ("日本", "dev"),
        ("x" * 70, "x" * 24),
        ("a" * 23 + "-b", "a" * 23),
    ],
)
def test_a_folder_has_a_readable_run_id(tmp_path, name, slug) -> None:
    run = profiles.run_id_of(tmp_path / name)
    assert run[:-7] == slug
    assert check_id(run) == run


def test_the_run_id_is_of_the_real_path(tmp_path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    assert profiles.run_id_of(tmp_path / "link") == profiles.run_id_of(tmp_path / "a")
    assert profiles.run_id_of(tmp_path / "b/a") != profiles.run_id_of(tmp_path / "a")


def test_a_claim_excludes_others_and_ends_with_its_block(folder) -> None:
    with profiles.claim("a", Path("/work")) as claim:
        with pytest.raises(profiles.AlreadyServed, match="just starting"):
            profiles.claim("a", Path("/work")).__enter__()
        claim.publish(profile("a", folder, os.getpid()))
        with pytest.raises(profiles.AlreadyServed, match=f"process {os.getpid()}: use that one"):
            profiles.claim("a", Path("/work")).__enter__()
    assert list(folder.iterdir()) == []
    with profiles.claim("a", Path("/work")):
        pass


def test_a_profile_without_its_owner_is_removed(folder) -> None:
    gone = profile("a", folder, pid=2**22 + 1)  # above the kernel's PID_MAX_LIMIT
    with profiles.claim("a", Path("/work")) as claim:
        claim.publish(gone)
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(gone.socket)
        assert profiles.live() == []
        assert list(folder.iterdir()) == []


def test_a_profile_whose_owner_does_not_answer_yet_is_left_alone(folder) -> None:
    with profiles.claim("a", Path("/work")) as claim:
        claim.publish(profile("a", folder, os.getpid()))
        assert profiles.live() == []
        assert [path.name for path in folder.iterdir()] == ["a.json"]


def test_of_nested_folders_the_deepest_is_meant(folder, tmp_path, monkeypatch) -> None:
    inner = tmp_path / "inner" / "deep"
    inner.mkdir(parents=True)
    listening = []
    for run, served in (("out", tmp_path), ("in", tmp_path / "inner"), ("side", tmp_path / "in")):
        one = profile(run, profiles.folder_of_profiles(), os.getpid(), str(served))
        (folder / f"{run}.json").write_text(json.dumps(asdict(one)))
        listening.append(socket.socket(socket.AF_UNIX))
        listening[-1].bind(one.socket)
        listening[-1].listen()
    monkeypatch.chdir(inner)
    assert profiles.find().run == "in"
    monkeypatch.chdir("/")
    with pytest.raises(SettingsError, match="Choose with --run ID"):
        profiles.find()
    for one in listening:
        one.close()


def test_the_folder_is_made_ours_alone(folder) -> None:
    folder.mkdir(mode=0o755)
    assert profiles.folder_of_profiles() == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_link_in_place_of_the_folder_is_refused(folder, tmp_path) -> None:
    folder.symlink_to(tmp_path)
    with pytest.raises(SettingsError, match="set XDG_RUNTIME_DIR to a folder of ours"):
        profiles.folder_of_profiles()


def test_a_path_too_long_for_a_socket_is_told(bench, monkeypatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(bench.runtime / ("x" * 90)))
    with pytest.raises(SettingsError, match="longer than a socket's path may be"):
        profiles.claim("a", Path("/work")).__enter__()
