"""`sidecar edit`: a file comes, is edited, and goes back unless somebody else was there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import sys
from pathlib import Path

import pytest
from console import Console

from sidecar.client import Code


@pytest.fixture(autouse=True)
def there(dev, tmp_path, monkeypatch):
    """The workspace, empty; temporary folders lie in a place that can be looked into."""
    for path in dev.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    monkeypatch.setitem(dev.bench.environ, "TMPDIR", str(tmp_path))
    dev.bench.environ.pop("VISUAL", None)
    return dev.folder


@pytest.fixture
def editor(dev, tmp_path_factory, monkeypatch):
    """Makes an editor of a script in which `$1` is the file."""

    def make(script: str) -> None:
        path = tmp_path_factory.mktemp("editor") / "my editor"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
        monkeypatch.setitem(dev.bench.environ, "EDITOR", shlex.quote(str(path)))

    return make


def test_what_was_edited_is_written_back(sidecar, there, editor, tmp_path) -> None:
    (there / "sub").mkdir()
    (there / "sub/app.py").write_bytes(b"old\n")
    (there / "sub/app.py").chmod(0o751)
    editor(
        f'cp "$1" {tmp_path}/seen; stat -c %a "$1" "$(dirname "$1")" > {tmp_path}/modes;'
        f' basename "$1" > {tmp_path}/name; echo new >> "$1"'
    )
    done = sidecar("edit", "sub/app.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (there / "sub/app.py").read_bytes() == b"old\nnew\n"
    assert stat.S_IMODE((there / "sub/app.py").stat().st_mode) == 0o751
    assert (tmp_path / "seen").read_bytes() == b"old\n"
    assert (tmp_path / "modes").read_text() == "600\n700\n"
    assert (tmp_path / "name").read_text() == "app.py\n"
    assert sorted(os.listdir(tmp_path)) == ["modes", "name", "seen"], "the folder is left"


def test_what_was_not_changed_is_not_written(sidecar, there, editor) -> None:
    (there / "file").write_bytes(b"old")
    before = (there / "file").stat().st_mtime_ns
    editor('touch "$1"')
    done = sidecar("edit", "file")
    assert done.returncode == 0
    assert done.stderr == b"sidecar: nothing was changed, and nothing is written\n"
    assert (there / "file").stat().st_mtime_ns == before


def test_a_new_file_is_made_if_the_editor_makes_one(sidecar, there, editor) -> None:
    editor("true")
    assert sidecar("edit", "new").returncode == 0
    assert not (there / "new").exists()
    editor('echo content > "$1"')
    assert sidecar("edit", "new").returncode == 0
    assert (there / "new").read_bytes() == b"content\n"


@pytest.mark.parametrize("is_new", [False, True])
def test_what_somebody_else_wrote_stays_and_ours_is_kept(
    is_new, sidecar, there, editor, tmp_path
) -> None:
    if not is_new:
        (there / "file").write_bytes(b"old")
    editor(f'echo theirs > {there}/file; echo mine > "$1"')
    done = sidecar("edit", "file")
    assert done.returncode == 1
    assert (there / "file").read_bytes() == b"theirs\n"
    said = done.stderr.decode()
    assert "file was changed by somebody else meanwhile" in said
    [kept] = re.findall(r"what you wrote is kept in (\S+)", said)
    assert Path(kept).read_bytes() == b"mine\n"
    [command] = re.findall(r"to write it all the same: sidecar (.+)", said)
    assert sidecar(*shlex.split(command)).returncode == 0
    assert (there / "file").read_bytes() == b"mine\n"


@pytest.mark.slow
@pytest.mark.parametrize("script, status", [("exit 3", 3), ("kill -9 $$", 137)])
def test_an_editor_that_fails_writes_nothing(
    script, status, sidecar, there, editor, tmp_path
) -> None:
    (there / "file").write_bytes(b"old")
    editor(f'echo new > "$1"; {script}')
    done = sidecar("edit", "file")
    assert done.returncode == status
    assert f"the editor ended with status {status}: nothing is written" in done.stderr.decode()
    assert (there / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == []


def test_an_editor_that_is_not_there(sidecar, there) -> None:
    (there / "file").write_bytes(b"old")
    done = sidecar("edit", "file", env={"VISUAL": "no-such-editor --wait"})
    assert done.returncode == 127


@pytest.mark.slow
@pytest.mark.parametrize(
    "path, code", [("dir", Code.IS_DIRECTORY), ("../file", Code.OUTSIDE), ("no/file", None)]
)
def test_what_is_no_file_is_not_edited(path, code, sidecar, there, editor) -> None:
    (there / "dir").mkdir()
    editor("echo was started >&2")
    done = sidecar("edit", path)
    if code is None:  # a new file in a directory that is not there
        assert done.returncode == 0
    else:
        assert done.returncode == 1
        assert done.stderr.startswith(f"sidecar: {code}: ".encode())
        assert b"was started" not in done.stderr


def test_the_terminal_is_the_editors_and_so_is_ctrl_c(sidecar, there, editor) -> None:
    (there / "file").write_bytes(b"old")
    editor('trap "" INT; printf "type: "; read -r line; echo "$line" > "$1"')
    program = [sys.executable, "-m", "sidecar", "edit", "file"]
    with Console(program, sidecar.environ) as console:
        console.shows("type:")
        console.type("\x03")
        console.type("typed\n")
        assert console.ends() == 0, console.text
    assert (there / "file").read_bytes() == b"typed\n"
