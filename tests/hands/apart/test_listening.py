from __future__ import annotations

import os
import socket
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest

from sidecar.hands.apart import listening as module
from sidecar.hands.apart.listening import InUse, Unusable, listening


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_the_file_has_its_mode_whatever_the_umask_and_goes_afterwards(
    tmp_path: Path, mode: int
) -> None:
    before = os.umask(0o077)
    try:
        with listening(str(tmp_path / "s"), mode=mode) as listener:
            assert mode_of(tmp_path / "s") == mode
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(str(tmp_path / "s"))
                listener.accept()[0].close()
            assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert os.listdir(tmp_path) == []


def test_a_socket_where_somebody_listens_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with listening(path, mode=0o600):
        with pytest.raises(InUse, match="another hands listens at"), listening(path, mode=0o600):
            pass
        assert os.path.exists(path)


def test_a_socket_that_was_left_over_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    with listening(path, mode=0o600), socket.socket(socket.AF_UNIX) as peer:
        peer.connect(path)


def test_what_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with (
        pytest.raises(Unusable, match="is there already, and is no socket"),
        listening(str(tmp_path / "s"), mode=0o600),
    ):
        pass
    assert (tmp_path / "s").read_text() == "precious"


def test_a_file_that_took_the_place_of_ours_stays(tmp_path: Path) -> None:
    with listening(str(tmp_path / "s"), mode=0o600):
        (tmp_path / "s").unlink()
        (tmp_path / "s").touch()
    assert os.listdir(tmp_path) == ["s"]


def test_one_that_ends_slowly_leaves_the_socket_of_the_next_one(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with ExitStack() as next_one:
        with listening(path, mode=0o600) as listener:
            listener.close()  # it ends, and what it started has to end first
            next_one.enter_context(listening(path, mode=0o600))
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(path)


def test_who_starts_at_the_same_time_waits_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_TIME", 0.05)
    with (
        module._locked_folder(str(tmp_path / "s")),
        pytest.raises(InUse, match="keeps a lock"),
        listening(str(tmp_path / "s"), mode=0o600),
    ):
        pass


@pytest.mark.parametrize(
    "name, words",
    [("no/s", "No such file or directory"), ("x" * 108, "longer than the 107 bytes")],
)
def test_a_place_where_there_can_be_none_says_why(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(Unusable, match=words), listening(str(tmp_path / name), mode=0o600):
        pass
