"""`sidecar cp -r`: where a folder goes, what is said of it, and how it goes on after Ctrl-C."""

from __future__ import annotations

import filecmp
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest
from screen import Tty

BIG = 400_000_000
SLOW = pytest.mark.slow  # one process more for what others show too


@pytest.fixture(autouse=True)
def folders(dev, tmp_path, monkeypatch) -> tuple[Path, Path]:
    """Here, where there is a folder `src`, and there, where there is nothing."""
    for path in dev.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src/d").mkdir(parents=True)
    (tmp_path / "src/d/a").write_text("1")
    return tmp_path, dev.folder


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "source, target, expected",
    [
        pytest.param("src", ":", "src/d/a", id="into the workspace", marks=SLOW),
        pytest.param("src/", ":", "src/d/a", id="a slash changes nothing", marks=SLOW),
        pytest.param("src", ":new", "new/d/a", id="what is missing becomes it"),
        pytest.param("src", ":old", "old/src/d/a", id="into what is there"),
        pytest.param("src/.", ":old", "old/d/a", id="what is in it"),
        pytest.param("src/d/..", ":old", "old/d/a", id="what is in the one above", marks=SLOW),
    ],
)
def test_a_folder_goes_in_where_cp_would_put_it(sidecar, folders, source, target, expected) -> None:
    _, there = folders
    (there / "old").mkdir()
    done = sidecar("cp", "-r", source, target)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert files_of(there) == [expected]


@pytest.mark.parametrize(
    "source, target, expected",
    [
        pytest.param(":src", ".", "src/d/a", id="into this folder"),
        pytest.param(":src", "new", "new/d/a", id="what is missing becomes it"),
        pytest.param(":src/.", "old", "old/d/a", id="what is in it"),
        pytest.param(":", "old", "old/src/d/a", id="the workspace", marks=SLOW),
    ],
)
def test_a_folder_comes_out_where_cp_would_put_it(
    sidecar, folders, source, target, expected
) -> None:
    here, there = folders
    (here / "src").rename(there / "src")
    (here / "old").mkdir()
    done = sidecar("cp", "-r", source, target)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert files_of(here) == [expected]


def test_what_is_not_copied_is_named_and_the_status_says_so(sidecar, folders) -> None:
    here, there = folders
    os.mkfifo(here / "src/pipe")
    (here / "src/out").symlink_to("/etc/passwd")
    done = sidecar("cp", "-rv", "src", ":")
    assert done.returncode == 1
    assert sorted(done.stderr.decode().splitlines()) == [
        "sidecar: 1 files, 1 bytes -> :src; 0 were there already",
        "sidecar: 2 entries were not copied",
        "sidecar: d/a",
        "sidecar: out: it is a link that leads out: its target is absolute",
        "sidecar: pipe: is a fifo, which is not copied",
    ]
    assert files_of(there) == ["src/d/a"]


@pytest.mark.slow
def test_parents_are_made_when_asked_for(sidecar, folders) -> None:
    _, there = folders
    assert sidecar("cp", "-r", "src", ":x/y").returncode == 1
    assert sidecar("cp", "-rp", "src", ":x/y").returncode == 0
    assert files_of(there) == ["x/y/d/a"]


@pytest.mark.slow
def test_a_single_file_may_be_said_with_r(sidecar, folders) -> None:
    here, there = folders
    assert sidecar("cp", "-r", "src/d/a", ":b").returncode == 0
    assert sidecar("cp", "-r", ":b", "c").returncode == 0
    assert (here / "c").read_text() == "1"
    assert files_of(there) == ["b"]


@pytest.mark.slow
def test_a_link_as_the_source_is_not_followed_unless_a_slash_says_so(sidecar, folders) -> None:
    here, there = folders
    (here / "l").symlink_to("src")
    done = sidecar("cp", "-r", "l", ":")
    assert (done.returncode, b"with a slash at its end" in done.stderr) == (1, True)
    assert sidecar("cp", "-r", "l/", ":").returncode == 0
    assert files_of(there) == ["l/d/a"]


def test_what_is_for_folders_goes_with_r_only(sidecar) -> None:
    done = sidecar("cp", "--exclude", "*.o", "src", ":")
    assert done.returncode == 2
    assert b"go with -r" in done.stderr


def test_patterns_leave_out_what_they_name(sidecar, folders) -> None:
    here, there = folders
    for name in ("x.o", "y.log", "b"):
        (here / "src" / name).touch()
    (here / "src/.gitignore").write_text("*.log\n")
    done = sidecar("cp", "-r", "--exclude", "*.o", "--git-ignore", "src", ":")
    assert done.returncode == 0
    assert files_of(there) == ["src/.gitignore", "src/b", "src/d/a"]


# At a terminal ------------------------------------------------------------------------------


def start_at_terminal(sidecar, *arguments: str) -> tuple[pexpect.spawn, Tty]:
    environ = {**sidecar.environ, "TERM": "xterm", "COLUMNS": "100"}
    command = ["-m", "sidecar", "cp", *arguments]
    child = pexpect.spawn(sys.executable, command, env=environ, dimensions=(24, 100), timeout=20)
    os.set_blocking(child.child_fd, False)
    return child, Tty(child.child_fd, child.child_fd, cols=100)


def sparse(path: Path, size: int) -> None:
    """A large file that takes no room here."""
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size // 2)
        file.write(os.urandom(1000))


async def test_a_terminal_shows_each_transfer_and_all_of_them(sidecar, folders) -> None:
    here, _ = folders
    sparse(here / "src/large", BIG)
    child, tty = start_at_terminal(sidecar, "-r", "src", ":")
    await tty.shows(
        lambda lines: (
            any("/2 files" in line and "400.0 MB" in line for line in lines)
            and any(line.startswith("  large") and "MB/s" in line for line in lines)
        )
    )
    child.kill(signal.SIGINT)
    await tty.shows("interrupted; the same command goes on")
    await tty.ends()
    child.close()
    assert child.exitstatus == 130


@pytest.mark.slow
@pytest.mark.parametrize("way", ["in", "out"])
async def test_after_ctrl_c_the_same_command_goes_on(way, sidecar, folders, wait_for) -> None:
    here, there = folders
    source, target = (here, there) if way == "in" else (there, here)
    if way == "out":
        (here / "src").rename(there / "src")
    arguments = ("-r", "src", ":new") if way == "in" else ("-r", ":src", "new")
    sparse(source / "src/large", BIG)
    child, tty = start_at_terminal(sidecar, *arguments)
    await tty.shows(lambda lines: any(line.startswith("  large") for line in lines))
    part = await part_of(target / "new", wait_for)
    tty.type("\x03")
    await tty.ends()
    child.close()
    assert child.exitstatus == 130
    assert not (target / "new/large").exists()
    inode, size = part.stat().st_ino, part.stat().st_size
    assert size < BIG

    assert sidecar("cp", *arguments).returncode == 0
    assert (target / "new/large").stat().st_ino == inode, "it was begun anew"
    assert filecmp.cmp(source / "src/large", target / "new/large", shallow=False)
    assert sorted(os.listdir(target / "new")) == ["d", "large"], "a marker or part was left"


async def part_of(folder: Path, wait_for: Callable[..., object]) -> Path:
    """The part of the large file, as soon as there is something in it."""

    def look() -> Path | None:
        found = [path for path in folder.glob(".large.*") if path.stat().st_size > 10_000_000]
        return found[0] if found else None

    part = wait_for(look, "a part")
    assert isinstance(part, Path)
    return part


# A real tree --------------------------------------------------------------------------------


def listing(folder: Path) -> list[str]:
    """Name, type, mode, time and target of every entry."""
    found = []
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        link = os.readlink(path) if path.is_symlink() else ""
        mode = stat.filemode(status.st_mode)
        found.append(f"{path.relative_to(folder)} {mode} {status.st_mtime_ns} {link}")
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_real_tree_goes_in_and_out_unchanged(sidecar, folders, tmp_path) -> None:
    """A few thousand files of a source distribution, as its authors made them."""
    here, there = folders
    wanted = ["--no-deps", "--no-binary", ":all:", "Django==5.2"]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", *wanted, "-d", str(here / "sdist")],
        check=True,
    )
    [archive] = (here / "sdist").glob("*.tar.gz")
    (here / "tree").mkdir()
    subprocess.run(["tar", "xzf", str(archive), "-C", str(here / "tree")], check=True)
    (here / "tree/empty").mkdir()
    (here / "tree/link").symlink_to("empty")
    assert len(files_of(here / "tree")) > 5000

    assert sidecar("cp", "-r", "tree", ":").returncode == 0
    subprocess.run(["diff", "-r", "--no-dereference", here / "tree", there / "tree"], check=True)
    assert listing(there / "tree") == listing(here / "tree")
    done = sidecar("cp", "-rv", "tree", ":")
    assert done.returncode == 0
    assert b"0 files, 0 bytes" in done.stderr

    assert sidecar("cp", "-r", ":tree", "back").returncode == 0
    subprocess.run(["diff", "-r", "--no-dereference", here / "tree", here / "back"], check=True)
    assert listing(here / "back") == listing(here / "tree")
