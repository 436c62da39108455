"""The folder of our own: where it is, and that nobody else can have a hand in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sidecar.runtimefolder import make_private, runtime_folder


def test_it_lies_where_the_login_keeps_such_things(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert runtime_folder() == Path("/run/user/1000/sidecar")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtime_folder() == Path(f"/tmp/sidecar-{os.geteuid()}")


def test_it_is_made_private_and_stays_so(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    for _ in range(2):
        make_private(folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        folder.chmod(0o755)


def test_a_link_in_its_place_is_followed_only_if_that_is_meant(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to("folder")
    with pytest.raises(OSError, match="Not a directory"):
        make_private(tmp_path / "link")
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o755
    make_private(tmp_path / "link", follow=True)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.joinpath("folder").mkdir(mode=0o755)
    os.chown(tmp_path / "folder", 12345, 12345)
    with pytest.raises(PermissionError, match="belongs to uid 12345, we are 0"):
        make_private(tmp_path / "folder")
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o755
