"""The state folder: private, and for one at a time."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from sidecar.statefolder import StateLocked, StateUnusable, state_folder


async def test_it_is_made_with_all_its_parents_and_private(tmp_path: Path) -> None:
    async with state_folder(tmp_path / "a" / "b") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_one_that_others_may_read_is_made_private(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o755)
    async with state_folder(tmp_path / "state") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["journal", "receipts", "spools"])
async def test_no_folder_in_it_is_a_link_to_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "passwd").write_text("root")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / name).symlink_to(tmp_path / "precious")
    with pytest.raises(StateUnusable, match=f"{name}: not a folder"):
        async with state_folder(tmp_path / "state"):
            pass
    assert (tmp_path / "precious" / "passwd").read_text() == "root"


async def test_a_second_one_waits_and_gives_up(tmp_path: Path) -> None:
    async with state_folder(tmp_path / "state"):
        with pytest.raises(StateLocked, match="in use by another sidecar"):
            async with state_folder(tmp_path / "state", wait=0.0):
                pass
    async with state_folder(tmp_path / "state", wait=0.0):
        pass


async def test_a_second_one_follows_when_the_first_ends(tmp_path: Path) -> None:
    order: list[str] = []

    async def second() -> None:
        async with state_folder(tmp_path / "state", wait=5.0):
            order.append("second")

    async with anyio.create_task_group() as group:
        async with state_folder(tmp_path / "state"):
            group.start_soon(second)
            await anyio.sleep(0.05)
            order.append("first")
    assert order == ["first", "second"]


async def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(flush=True)"
    (tmp_path / "state").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", code + "; sys.stdin.read()", str(tmp_path / "state" / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        await anyio.to_thread.run_sync(other.stdout.readline)
        with pytest.raises(StateLocked):
            async with state_folder(tmp_path / "state", wait=0.0):
                pass
        other.kill()
        other.wait()
    async with state_folder(tmp_path / "state", wait=0.0):
        pass


@pytest.mark.parametrize("name", ["file", "file/below"])
async def test_what_is_no_folder_cannot_be_used(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateUnusable, match="SIDECAR_STATE"):
        async with state_folder(tmp_path / name):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
async def test_a_folder_of_somebody_else_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 12345, 12345)
    with pytest.raises(StateUnusable, match="belongs to uid 12345"):
        async with state_folder(tmp_path / "state"):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
async def test_a_runtime_folder_of_somebody_else_is_not_built_upon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "sidecar").mkdir(mode=0o777)
    os.chown(tmp_path / "sidecar", 12345, 12345)
    with pytest.raises(StateUnusable, match="belongs to uid 12345"):
        async with state_folder(tmp_path / "sidecar" / "demo"):
            pass
    assert not (tmp_path / "sidecar" / "demo").exists()
