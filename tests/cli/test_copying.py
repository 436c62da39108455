"""`sidecar cp`, `ls` and `cat`: files of the workspace, byte for byte."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

BIG = 20_000_000


@pytest.fixture(scope="module")
def big() -> bytes:
    return os.urandom(BIG)


@pytest.fixture(autouse=True)
def folders(dev, tmp_path, monkeypatch):
    """Here and there, both empty; we stand in the one here."""
    for path in dev.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path, dev.folder


def test_a_large_file_comes_and_goes_unchanged(sidecar, folders, big) -> None:
    here, there = folders
    (here / "big").write_bytes(big)
    (here / "big").chmod(0o750)
    assert sidecar("cp", "big", ":").returncode == 0
    assert (there / "big").read_bytes() == big
    assert stat.S_IMODE((there / "big").stat().st_mode) == 0o750

    done = sidecar("cp", "-v", ":big", "back")
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == f"sidecar: :big -> {here}/back, {BIG} bytes\n".encode()
    assert (here / "back").read_bytes() == big
    assert stat.S_IMODE((here / "back").stat().st_mode) == 0o750
    assert sorted(os.listdir(here)) == ["back", "big"], "a temporary file was left"


def test_standard_input_and_output(sidecar, folders, big) -> None:
    _, there = folders
    assert sidecar("cp", "-", ":piped", input=big).returncode == 0
    assert (there / "piped").read_bytes() == big
    assert sidecar("cp", ":piped", "-").stdout == big


def test_an_empty_input_is_an_empty_file(sidecar, folders) -> None:
    _, there = folders
    assert sidecar("cp", "-", ":empty", input=b"").returncode == 0
    assert (there / "empty").read_bytes() == b""
    assert sidecar("cat", "empty").stdout == b""


def test_a_directory_as_target_keeps_the_name(sidecar, folders) -> None:
    here, there = folders
    (here / "a").write_text("1")
    (there / "sub").mkdir()
    (here / "own").mkdir()
    assert sidecar("cp", "a", ":sub").returncode == 0
    assert (there / "sub/a").read_text() == "1"
    assert sidecar("cp", ":sub/a", "own").returncode == 0
    assert (here / "own/a").read_text() == "1"


def test_parents_are_made_when_asked_for(sidecar, folders) -> None:
    here, there = folders
    (here / "a").write_text("1")
    assert sidecar("cp", "a", ":x/y/a").returncode == 1
    assert sidecar("cp", "-p", "a", ":x/y/a").returncode == 0
    assert (there / "x/y/a").read_text() == "1"


@pytest.mark.slow
def test_a_name_that_is_not_utf8(sidecar, folders) -> None:
    here, there = folders
    (here / "a").write_text("1")
    assert sidecar("cp", "a", b":n\xff").returncode == 0
    assert os.listdir(os.fsencode(there)) == [b"n\xff"]
    assert sidecar("ls").stdout == b"n\xff\n"
    assert json.loads(sidecar("ls", "--json").stdout)["name"] == {"base64": "bv8="}
    assert sidecar("cat", b"n\xff").stdout == b"1"
    assert sidecar("cp", b":n\xff", ".").returncode == 0
    assert b"n\xff" in os.listdir(os.fsencode(here))


def test_a_local_link_is_followed_and_a_device_is_written_to(sidecar, folders) -> None:
    here, there = folders
    (there / "a").write_text("new")
    (here / "real").write_text("old")
    (here / "link").symlink_to("real")
    assert sidecar("cp", ":a", "link").returncode == 0
    assert (here / "link").is_symlink()
    assert (here / "real").read_text() == "new"
    assert sidecar("cp", ":a", "/dev/null").returncode == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_fifo_is_read_and_ctrl_c_ends_the_wait_for_its_writer(sidecar, folders, wait_for) -> None:
    here, there = folders
    fifo = here / "fifo"
    os.mkfifo(fifo)
    copy = sidecar.start("cp", "fifo", ":a", cwd=here, stderr=subprocess.PIPE)
    opened = Path(f"/proc/{copy.pid}/fd")
    wait_for(lambda: str(fifo) in [os.readlink(fd) for fd in opened.iterdir()], "the FIFO")
    copy.send_signal(signal.SIGINT)
    _, said = copy.communicate(timeout=20)
    assert copy.returncode == 130, said
    copy = sidecar.start("cp", "fifo", ":a", cwd=here)
    fifo.write_text("piped")
    assert copy.wait(20) == 0
    assert (there / "a").read_text() == "piped"


def test_a_failed_download_leaves_what_was_there(sidecar, folders) -> None:
    here, _ = folders
    (here / "kept").write_text("old")
    done = sidecar("cp", ":nope", "kept")
    assert done.returncode == 1
    assert done.stderr.startswith(b"sidecar: not_found: 'nope'")
    assert os.listdir(here) == ["kept"]
    assert (here / "kept").read_text() == "old"


@pytest.mark.parametrize(
    "source, target, status, words",
    [
        pytest.param("a", "b", 2, b"begins with a colon", id="both here"),
        pytest.param(":a", ":b", 2, b"sidecar exec -- cp", id="both there"),
        pytest.param("nope", ":", 1, b"nope: No such file", id="no source"),
        pytest.param(".", ":x", 1, b"cp -r copies it", id="a folder"),
        pytest.param(":.", "x", 1, b"cp -r` copies it", id="a folder there"),
        pytest.param("-", ":", 1, b"name the file", id="no name"),
        pytest.param("/dev/null", ":../x", 1, b"outside", id="outside"),
    ],
)
def test_what_cannot_be_copied_says_what_to_do(sidecar, source, target, status, words) -> None:
    done = sidecar("cp", source, target, input=b"")
    assert done.returncode == status
    assert words in done.stderr


def test_a_terminal_gets_a_progress_bar(sidecar, folders, big) -> None:
    here, there = folders
    (here / "big").write_bytes(big)
    command = ["-m", "sidecar", "cp", "big", ":"]
    environ = {**sidecar.environ, "TERM": "xterm", "COLUMNS": "100"}
    terminal = pexpect.spawn(sys.executable, command, env=environ, timeout=20)
    terminal.expect("20.0.* MB")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert (there / "big").read_bytes() == big


def test_without_a_terminal_nothing_is_printed(sidecar, folders) -> None:
    here, _ = folders
    (here / "a").write_text("1")
    done = sidecar("cp", "a", ":")
    assert (done.stdout, done.stderr) == (b"", b"")


def test_ls_shows_names_and_with_long_the_rest(sidecar, folders) -> None:
    _, there = folders
    (there / "file").write_text("12345")
    (there / "file").chmod(0o640)
    os.utime(there / "file", (0, 86400))
    (there / "link").symlink_to("file")
    assert sidecar("ls").stdout == b"file\nlink\n"
    assert sidecar("ls", "file").stdout == b"file\n"
    first, second = sidecar("ls", "-l").stdout.decode().splitlines()
    assert first == "-rw-r-----            5 1970-01-02 00:00 file"
    assert second.startswith("lrwxrwxrwx ") and second.endswith(" link -> file")


def test_ls_on_a_terminal_shows_control_characters_and_obeys_none(sidecar, folders) -> None:
    _, there = folders
    (there / "a\x1b[31mred").touch()
    environ = {**sidecar.environ, "TERM": "xterm"}
    terminal = pexpect.spawn(sys.executable, ["-m", "sidecar", "ls"], env=environ, timeout=20)
    terminal.expect(pexpect.EOF)
    assert terminal.before == "a\N{REPLACEMENT CHARACTER}[31mred\r\n".encode()


def test_cat_goes_on_after_a_file_that_is_not_there(sidecar, folders) -> None:
    _, there = folders
    (there / "a").write_bytes(b"1\xff")
    (there / "b").write_bytes(b"2")
    done = sidecar("cat", "a", "nope", "b")
    assert (done.returncode, done.stdout) == (1, b"1\xff2")
    assert b"not_found: 'nope'" in done.stderr
