"""`sidecar hands` as a real program: its command line, its socket, its command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.hands import Arguments, parse
from sidecar.cli.usage import BadUsage
from sidecar.errors import SettingsError

Start = Callable[..., tuple[subprocess.Popen[bytes], Path]]


@pytest.fixture
def start(bench: Any, wait_for: Any) -> Iterator[Start]:
    """Starts one; when it listens: the process, and where. Ended after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, **environ: str) -> tuple[subprocess.Popen[bytes], Path]:
        path = bench.runtime / "hands.sock"
        process = subprocess.Popen(
            [sys.executable, "-m", "sidecar", "hands", "--socket", str(path), *arguments],
            env={**bench.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        wait_for(lambda: path.exists() or process.poll() is not None, "the socket")
        return process, path

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


# The command line ---------------------------------------------------------------------------


def test_flags_and_a_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIDECAR_WORKSPACE", "/nowhere")
    monkeypatch.setenv("SIDECAR_HANDS", "/run/s")
    (tmp_path / "work").mkdir()
    (tmp_path / "data").mkdir()
    assert parse(
        [
            *("--workspace", str(tmp_path / "work"), "--roots", str(tmp_path / "data")),
            *("--core-uid=5", "--core-uid", "6", "--", "ls", "--help"),
        ]
    ) == Arguments(
        socket="/run/s",
        workspace=str(tmp_path / "work"),
        roots=str(tmp_path / "data"),
        core_uids=[5, 6],
        command=["ls", "--help"],
    )


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "--socket PATH is needed"),
        (["--socket"], "--socket needs a value"),
        (["--socket", "s", "ls"], "'ls' is out of place; a command goes after --"),
        (["--socket", "s", "--speed", "9"], "'--speed' is out of place"),
        (["--socket", "s", "--"], "a command has to follow --"),
        (["--socket", "s", "--core-uid", "root"], "a number expected"),
        (["--socket", "s", "--core-uid", "-1"], "a number expected"),
        (["--socket", "s", "--core-uid", str(2**32 - 1)], "a number expected"),
    ],
)
def test_what_cannot_be_understood(arguments: list[str], words: str) -> None:
    with pytest.raises(BadUsage, match=words):
        parse(arguments)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--workspace", "/no/such"], "not a folder; make it or name another"),
        (["--roots", "data"], "--roots: 'data' is not absolute: say where it is from /"),
        (["--environment", "none"], "clean or inherited expected"),
        (["--log-level", "loud"], "debug, info, warning, error expected"),
    ],
)
def test_settings_that_cannot_be(arguments: list[str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        parse(["--socket", "s", *arguments])


def test_help_teaches(bench: Any) -> None:
    done = bench("hands", "--help")
    assert done.returncode == 0
    assert b"sidecar run --run demo --token-file /run/token --hands" in done.stdout
    assert b"--core-uid UID" in done.stdout
    assert b"\n  hands " in bench("--help").stdout


@pytest.mark.parametrize(
    "arguments, status, words",
    [
        ([], 2, b"--socket PATH is needed: where to listen (see `sidecar hands --help`)"),
        (["--socket", "/no/such/s"], 77, b"/no/such: No such file or directory"),
        (["--socket", "s", "--workspace", "/no"], 78, b"--workspace is '/no': not a folder"),
    ],
)
def test_a_bad_start_is_one_line_and_a_status(
    bench: Any, arguments: list[str], status: int, words: bytes
) -> None:
    done = bench("hands", *arguments)
    assert (done.returncode, done.stdout) == (status, b"")
    assert done.stderr.startswith(b"sidecar hands: " + words)
    assert done.stderr.count(b"\n") == 1


# The process --------------------------------------------------------------------------------


def test_it_listens_for_its_own_user_until_it_is_told_to_end(start: Start, bench: Any) -> None:
    process, path = start()
    assert path.stat().st_mode & 0o777 == 0o600
    second = bench("hands", "--socket", str(path))
    assert second.returncode == 75
    assert second.stderr.startswith(b"sidecar hands: another hands listens at ")
    process.terminate()
    assert process.wait(10) == 0
    assert not path.exists()


def test_others_are_asked_who_they_are(start: Start) -> None:
    _, path = start("--core-uid", "4321")
    assert path.stat().st_mode & 0o777 == 0o666


def test_a_token_is_not_kept_and_memory_is_not_shown(start: Start) -> None:
    process, _ = start(
        "--", "env", SIDECAR_TOKEN="secret", SIDECAR_RUN_TOKEN="another", SIDECAR_RUN="x"
    )
    output, log = process.communicate(timeout=10)
    assert b"SIDECAR" not in output
    assert b"SIDECAR_TOKEN is set here, where nobody needs it: removed" in log
    assert b"SIDECAR_RUN_TOKEN is set here" in log
    assert b"secret" not in log


def test_it_is_not_dumpable(start: Start) -> None:
    process, _ = start()
    owner = os.stat(f"/proc/{process.pid}/fd").st_uid
    assert owner == 0, "proc(5): of a process that is not dumpable it belongs to root"
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    assert "Max core file size        0 " in limits


SAYS = """
import os, signal, sys
numbers = {1, 2, 10, 15, 28}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print(sys.stdin.readline().strip(), os.getppid(), flush=True)
number = 0
while number != 15:
    number = signal.sigwait(numbers)
    print(int(number), flush=True)
sys.exit(42)
"""


def test_its_command_has_our_files_our_signals_and_the_last_word(start: Start) -> None:
    process, path = start("--", sys.executable, "-c", SAYS)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"hello\n")
    process.stdin.flush()
    assert process.stdout.readline() == f"hello {process.pid}\n".encode()
    # One after the other: of those that come at once the kernel promises no order.
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH, signal.SIGTERM):
        process.send_signal(number)
        assert int(process.stdout.readline()) == number
    assert process.wait(10) == 42
    assert not path.exists()


@pytest.mark.parametrize(
    "command, status",
    [
        (["sh", "-c", "exit 0"], 0),
        (["sh", "-c", "kill -9 $$"], 137),
        (["no-such-command"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_we_end_as_the_command_ends(bench: Any, command: list[str], status: int) -> None:
    socket = str(bench.runtime / "hands.sock")
    assert bench("hands", "--socket", socket, "--", *command).returncode == status


def test_orphans_of_the_command_are_reaped_and_it_is_not(start: Start, wait_for: Any) -> None:
    script = "(sh -c 'echo $$; exit 3' &); sleep 0.3; exit 5"
    process, _ = start("--", "sh", "-c", script)
    assert process.stdout is not None
    orphan = int(process.stdout.readline())
    wait_for(lambda: not Path(f"/proc/{orphan}").exists(), "the orphan to be reaped")
    assert process.wait(10) == 5
