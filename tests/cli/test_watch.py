"""`sidecar watch`, as a program that somebody ends with Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def watching(sidecar, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """One that has begun; it ends as Ctrl-C ends it."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = sidecar.start("watch", *arguments, **pipes)
    try:
        assert b"Ctrl-C ends it" in process.stderr.readline()
        yield process
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.communicate()


def test_changes_are_lines_until_ctrl_c(sidecar, dev) -> None:
    folder = dev.folder / "lines"
    folder.mkdir()
    (folder / "old").touch()
    with watching(sidecar, "lines", "--exclude", "*.log") as process:
        (folder / "a.log").touch()
        (folder / "sub").mkdir()
        assert process.stdout.readline() == b"+ sub/\n"
        (folder / "old").write_bytes(b"1")
        assert process.stdout.readline() == b"~ old\n"
        (folder / "old").unlink()
        assert process.stdout.readline() == b"- old\n"


@pytest.mark.slow
def test_changes_are_json_lines_for_programs(sidecar, dev) -> None:
    folder = dev.folder / "json"
    folder.mkdir()
    (folder / ".gitignore").write_text("*.o\n")
    with watching(sidecar, "json", "--json", "--git-ignore", "--flat") as process:
        (folder / "a.o").touch()
        (folder / "a.c").touch()
        expected = {"kind": "added", "path": "a.c", "type": "file"}
        assert json.loads(process.stdout.readline()) == expected


@pytest.mark.slow
def test_what_may_have_been_missed_is_said(sidecar, dev) -> None:
    folder = dev.folder / "moved"
    folder.mkdir()
    with watching(sidecar, "moved") as process:
        folder.rename(dev.folder / "elsewhere")
        assert b"may have been missed: the directory is not there" in process.stderr.readline()
    with watching(sidecar, "elsewhere", "--json") as process:
        (dev.folder / "elsewhere").rename(folder)
        assert json.loads(process.stdout.readline()) == {"lost": "gone", "paths": []}


def test_what_cannot_be_watched_is_an_error(sidecar) -> None:
    done = sidecar("watch", "nothing")
    assert done.returncode == 1
    assert b"not_found: 'nothing'" in done.stderr
