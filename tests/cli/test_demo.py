"""`sidecar demo` as a newcomer runs it: a real process, and whatever it starts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.cli.demo import NAMES

TIME = 120.0  # seconds; fifty are usual


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where the demo makes its folder. A short path, because sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        yield Path(folder)


def environment(temporary: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    return {**kept, "TMPDIR": str(temporary), **more}


def run_demo(temporary: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sidecar", "demo", *arguments],
        env=environment(temporary, **environ),
        capture_output=True,
        text=True,
        timeout=TIME,
    )


def sidecar_of(story: str) -> int:
    """The process id of the demo's sidecar."""
    return int(re.search(r"sidecar in process (\d+)", story)[1])  # type: ignore[index]


def is_alive(pid: int) -> bool:
    """Whether it runs; one that waits to be reaped has no command line any more."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def processes_of(temporary: Path) -> list[str]:
    """Command lines of processes that were told of the demo's folder. As another user than
    root this leaves out the sidecar itself, whose environment is not to be read."""
    needle = str(temporary).encode()
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                if needle in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue  # gone, or another user's
    return found


@pytest.fixture(autouse=True)
def nothing_is_left_behind(temporary: Path) -> Iterator[None]:
    yield
    assert list(temporary.iterdir()) == []
    assert processes_of(temporary) == []


@pytest.mark.slow
@pytest.mark.alone  # its time is judged
def test_every_promise_holds(temporary: Path) -> None:
    began = time.monotonic()
    done = run_demo(temporary)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 75
    table = done.stdout[done.stdout.index("name  ") :].splitlines()[1:-1]
    assert [row.split()[:2] for row in table] == [["ok", name] for name in NAMES]
    assert not is_alive(sidecar_of(done.stdout))
    assert "600 of 600 lines, 1 start" in done.stdout
    assert "1,000,000 printed, 1,000,000 delivered, 0 doubled, 0 gaps" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("  Every promise held: 16 of 16, in ")


@pytest.mark.slow
def test_the_story_shows_the_output_of_the_tests(temporary: Path) -> None:
    done = run_demo(temporary, "--only", "tests")
    assert "test_patience_ends" in done.stdout
    assert "Ran 4 tests" in done.stdout


def test_json_is_all_there_is_on_standard_output(temporary: Path) -> None:
    done = run_demo(temporary, "--json", "--only", "status", "--only", "signal")
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert report["ok"] is True
    assert 0 < report["seconds"] < TIME
    assert report["lines"] == [
        {
            "name": "status",
            "promise": "an exit status arrives as it was",
            "figure": "status 7",
            "ok": True,
            "problem": None,
        },
        {
            "name": "signal",
            "promise": "so does a death by signal",
            "figure": "signal 9, 137 to a shell",
            "ok": True,
            "problem": None,
        },
    ]
    assert "A program is killed" in done.stderr


PROBLEMS = {
    "project": "git status says 'M README.md', expected nothing",
    "tests": "it ended with 1, expected 0",
    "live": "the first output came after ",
    "files": "SHA-256 ",
    "recovery": "line 150: '151 ",
    "reconnect": "the program was started 2 times",
    "once": "3 calls with one id ran 3 times",
    "status": "ended with 0, expected 7",
    "signal": "signal None, expected 9",
    "confined": "../../etc/passwd, ",
    "ports": "it listens on tcp port ",
    "lines": "lines came twice: ",
    "killed": "the program was started 2 times",
    "renewed": "0 renewals, at least 1 expected",
    "numbered": "events [1, 2, 4",
    "events": "event 4 came where 3 was expected",
}


@pytest.mark.slow  # each starts a hub and a sidecar of its own
@pytest.mark.parametrize("name", NAMES)
def test_a_broken_promise_fails_the_demo_and_is_named(name: str, temporary: Path) -> None:
    done = run_demo(temporary, "--json", "--only", name, SIDECAR_DEMO_BREAK=name)
    failed = {
        line["name"]: line["problem"] for line in json.loads(done.stdout)["lines"] if not line["ok"]
    }
    assert done.returncode == 1
    assert list(failed) == [name]
    assert failed[name].startswith(PROBLEMS[name])
    assert f"{name} FAILED: {failed[name]}" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_everything_it_started(
    number: signal.Signals, temporary: Path
) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "demo", "--only", "recovery"],
        env=environment(temporary),
        stdout=subprocess.PIPE,
        text=True,
    )
    with demo:
        assert demo.stdout is not None
        sidecar = sidecar_of(demo.stdout.readline())
        for line in demo.stdout:
            if "cutting both connections" in line:  # its program runs now, or will at once
                break
        demo.send_signal(number)
        demo.stdout.read()
        assert demo.wait(TIME) == 128 + number
    assert not is_alive(sidecar)


@pytest.mark.slow
def test_a_killed_demo_takes_its_sidecar_with_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    temporary = tmp_path_factory.mktemp("killed")
    demo = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "demo", "--only", "recovery"],
        env=environment(temporary),
        stdout=subprocess.PIPE,
        text=True,
    )
    with demo:
        assert demo.stdout is not None
        sidecar = sidecar_of(demo.stdout.readline())
        demo.kill()
    deadline = time.monotonic() + 10
    while is_alive(sidecar) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(sidecar)


@pytest.mark.slow
def test_a_killed_demo_takes_hub_hands_and_programs_with_it() -> None:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        temporary = Path(folder)
        demo = subprocess.Popen(
            [sys.executable, "-m", "sidecar", "demo", "--only", "killed"],
            env=environment(temporary),
            stdout=subprocess.PIPE,
            text=True,
        )
        with demo:
            assert demo.stdout is not None
            for line in demo.stdout:
                if "killed the hub" in line:
                    break
            assert len(processes_of(temporary)) >= 4
            demo.kill()
        deadline = time.monotonic() + 20
        while processes_of(temporary) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert processes_of(temporary) == []


def test_a_sidecar_that_dies_ends_the_demo_at_once(temporary: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "demo", "--only", "files"],
        env=environment(temporary),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with demo:
        assert demo.stdout is not None and demo.stderr is not None
        os.kill(sidecar_of(demo.stdout.readline()), signal.SIGKILL)
        began = time.monotonic()
        assert "the sidecar ended: " in demo.stderr.read()
        assert demo.wait(TIME) == 1
        assert time.monotonic() - began < 10


def test_it_ends_when_nobody_reads_its_story(temporary: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "demo", "--only", "recovery"],
        env=environment(temporary),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with demo:
        assert demo.stdout is not None and demo.stderr is not None
        sidecar = sidecar_of(demo.stdout.readline())
        demo.stdout.close()
        assert demo.stderr.read() == ""
        assert demo.wait(TIME) == 128 + signal.SIGPIPE
    assert not is_alive(sidecar)


def test_without_git_it_says_how_to_install_it(temporary: Path) -> None:
    done = run_demo(temporary, PATH=str(temporary))
    assert done.returncode == 1
    assert done.stderr == (
        "sidecar: the demo needs git: install it (Debian: sudo apt-get install git)\n"
    )


@pytest.mark.slow
def test_a_sidecar_that_does_not_come_up_is_quoted(temporary: Path) -> None:
    # A folder so deep that no socket fits in it: unix(7), 107 bytes.
    deep = temporary / ("x" * 100)
    deep.mkdir()
    done = run_demo(deep)
    deep.rmdir()
    assert done.returncode == 1
    assert "the sidecar did not come up" in done.stderr
