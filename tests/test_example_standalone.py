"""`examples/standalone/run.sh`: what it prints works from another terminal, and nothing stays."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
TIME = 30  # seconds


@contextmanager
def standalone(folder: Path, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """The script as it runs; its files go to `folder`."""
    environ = {
        **os.environ,
        "TMPDIR": str(folder),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        **environ,
    }
    with subprocess.Popen(
        [str(ROOT / "examples/standalone/run.sh"), str(folder)],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()  # it ends what it started


def told_until(process: subprocess.Popen[str], wanted: str) -> str:
    """What it prints up to the line that begins with `wanted`."""
    assert process.stdout is not None
    told = ""
    for line in process.stdout:
        told += line
        if line.startswith(wanted):
            return told
    raise AssertionError(f"it ended before it said {wanted!r}:\n{told}")


def is_running(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_a_folder_until_it_is_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "here.txt").touch()
    with standalone(tmp_path) as process:
        told = told_until(process, "Logs are in ")
        commands = re.findall(r"^  (.+)$", told, re.MULTILINE)
        assert len(commands) == 2
        for command in commands:
            done = subprocess.run(
                ["sh", "-c", command],
                cwd=ROOT,
                env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
                capture_output=True,
                text=True,
                timeout=TIME,
            )
            assert (done.returncode, done.stderr) == (0, "")
            assert "here.txt" in done.stdout
        pids = re.findall(r"^(?:hub|sidecar), process (\d+): ", told, re.MULTILINE)
        assert [is_running(pid) for pid in pids] == [True, True]
        os.killpg(process.pid, number)  # as a terminal does at Ctrl-C
        assert process.wait(TIME) == 128 + number
        assert [is_running(pid) for pid in pids] == [False, False]
    assert [path.name for path in tmp_path.iterdir()] == ["here.txt"]


@pytest.mark.slow
def test_it_ends_with_an_error_when_a_part_has_ended(tmp_path: Path) -> None:
    with standalone(tmp_path) as process:
        told = told_until(process, "Logs are in ")
        [hub] = re.findall(r"^hub, process (\d+): ", told, re.MULTILINE)
        os.kill(int(hub), signal.SIGKILL)
        assert "one of them has ended:" in told_until(process, "ended;")
        assert process.wait(TIME) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_does_not_start_is_told(tmp_path: Path) -> None:
    with standalone(tmp_path, SIDECAR="/bin/false") as process:
        assert process.wait(TIME) == 1
        assert process.stdout is not None
        assert process.stdout.read().endswith("ended; nothing is left of it\n")
    assert list(tmp_path.iterdir()) == []
