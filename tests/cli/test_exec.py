"""`sidecar exec` as a shell sees it: bytes, statuses, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_output_and_status_are_those_of_the_program(sidecar) -> None:
    done = sidecar("exec", "--", "sh", "-c", r"printf 'o\377'; printf 'e\n' >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"o\xff", b"e\n")


def test_a_signal_becomes_128_plus_its_number(sidecar) -> None:
    assert sidecar("exec", "--", "sh", "-c", "kill -9 $$").returncode == 137


def test_standard_input_goes_to_the_program(sidecar) -> None:
    done = sidecar("exec", "cat", input=b"hi\n\xff\0")
    assert (done.returncode, done.stdout) == (0, b"hi\n\xff\0")


def test_a_file_as_standard_input_goes_to_the_program(sidecar, tmp_path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "in").write_bytes(content)
    with (tmp_path / "in").open("rb") as file:
        done = sidecar("exec", "cat", stdin=file)
    assert (done.returncode, done.stdout) == (0, content)


def test_a_program_that_ends_before_its_input_is_not_waited_for(sidecar) -> None:
    reader, writer = os.pipe()  # an input that does not end
    try:
        assert sidecar("exec", "true", stdin=reader).returncode == 0
    finally:
        os.close(reader)
        os.close(writer)


def test_a_program_that_reads_no_more_does_not_hold_us_up(sidecar) -> None:
    done = sidecar("exec", "--", "head", "-c", "3", input=b"abc" * 1_000_000)
    assert (done.returncode, done.stdout) == (0, b"abc")


def test_without_stdin_the_program_gets_none(sidecar) -> None:
    done = sidecar("exec", "-n", "cat", input=b"kept")
    assert (done.returncode, done.stdout) == (0, b"")


def test_a_program_that_runs_too_long_is_124(sidecar) -> None:
    done = sidecar("exec", "--timeout", "0.2", "--", "sh", "-c", "echo partial; sleep 30")
    assert (done.returncode, done.stdout) == (124, b"partial\n")
    assert done.stderr == b"sidecar: timeout: the program ran longer than 0.2 s and was killed\n"


@pytest.mark.parametrize(
    "arguments, status, code",
    [
        pytest.param(["/etc/passwd"], 126, b"permission_denied", id="not executable"),
        pytest.param(["/"], 126, b"is_directory", id="a directory"),
        pytest.param(["no-such-program"], 127, b"not_found", id="not there"),
        pytest.param(["--cwd", "no-such-folder", "true"], 125, b"not_found", id="no folder"),
        pytest.param(["--cwd", "..", "true"], 125, b"outside", id="outside"),
    ],
)
def test_what_cannot_be_started_says_why(sidecar, arguments, status, code) -> None:
    done = sidecar("exec", *arguments)
    assert done.returncode == status
    assert done.stderr.startswith(b"sidecar: " + code + b": ")


@pytest.mark.parametrize("arguments", [["--bad", "x"], [], ["--env", "A", "true"]])
def test_bad_usage_is_125_for_2_could_be_the_program(sidecar, arguments) -> None:
    done = sidecar("exec", *arguments)
    assert done.returncode == 125
    assert b"sidecar exec --help" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_obstacle(sidecar, closed) -> None:
    line = f'exec "$@" {closed}'
    code = "cat; echo out; echo err >&2; exit 5"
    program = [sys.executable, "-m", "sidecar", "exec", "--", "sh", "-c", code]
    done = subprocess.run(
        ["sh", "-c", line, "sh", *program],
        env=sidecar.environ,
        capture_output=True,
        input=b"",
        timeout=20,
        check=False,
    )
    assert done.returncode == 5
    assert done.stdout == (b"" if " >&-" in f" {closed}" else b"out\n")
    assert done.stderr == (b"" if "2>&-" in closed else b"err\n")


def test_nobody_to_speak_to_is_125(bench) -> None:
    done = bench("exec", "true")
    assert done.returncode == 125
    assert b"start one with `sidecar dev`" in done.stderr


def test_folder_environment_and_shell(sidecar, dev) -> None:
    (dev.folder / "sub").mkdir()
    done = sidecar("exec", "--cwd", "sub", "--env", "A=b c", "--shell", 'echo "$A"; pwd')
    assert done.stdout == f"b c\n{dev.folder}/sub\n".encode()


def test_words_that_are_not_utf8_arrive_as_they_are(sidecar) -> None:
    assert sidecar("exec", "printf", "%s", b"\xff\xfe").stdout == b"\xff\xfe"
    assert sidecar("exec", "--shell", b"printf '\xff'").stdout == b"\xff"


def test_programs_learn_no_settings_and_no_secrets(sidecar) -> None:
    done = sidecar("exec", "env", env={"SIDECAR_PROFILE": ""})
    names = {line.split(b"=")[0] for line in done.stdout.splitlines()}
    assert b"PATH" in names
    mark = {b"SIDECAR_EXEC_ID"}  # by which what it starts is known as its own
    assert {name for name in names if name.startswith(b"SIDECAR")} == mark


def test_json_tells_all_in_one_line(sidecar) -> None:
    done = sidecar("exec", "--json", "--", "sh", "-c", r"echo hi; printf '\377' >&2; exit 3")
    assert done.returncode == 3
    [line] = done.stdout.splitlines()
    answer = json.loads(line)
    assert answer.pop("duration") > 0
    assert answer == {
        "status": 3,
        "signal": None,
        "stdout": "hi\n",
        "stderr": {"base64": "/w=="},
        "dropped": {"stdout": 0, "stderr": 0},
    }


def test_json_tells_of_errors_too(sidecar) -> None:
    done = sidecar("exec", "--json", "no-such-program")
    assert (done.returncode, done.stderr) == (127, b"")
    assert json.loads(done.stdout)["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    "number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "TERM"]
)
def test_a_signal_ends_the_program_there(sidecar, wait_for, number, status) -> None:
    process = sidecar.start(
        "exec", "--", "sh", "-c", "echo $$; exec sleep 1000", stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        remote = int(process.stdout.readline())
        assert is_alive(remote)
        process.send_signal(number)
        assert process.wait(10) == status
    wait_for(lambda: not is_alive(remote), "the program to end")


@pytest.mark.slow
def test_a_second_signal_does_not_wait_for_a_stubborn_program(sidecar, wait_for) -> None:
    stubborn = "trap '' TERM; echo $$; while :; do sleep 0.1; done"
    process = sidecar.start("exec", "--", "sh", "-c", stubborn, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        remote = int(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)  # it is given time
        process.send_signal(signal.SIGINT)
        assert process.wait(3) == 130
    os.kill(remote, signal.SIGKILL)  # or the sidecar would, after the grace of 5 s


def test_nobody_reads_our_output_any_more(sidecar, wait_for) -> None:
    process = sidecar.start("exec", "--", "sh", "-c", "echo $$; exec yes", stdout=subprocess.PIPE)
    assert process.stdout is not None
    remote = int(process.stdout.readline())
    process.stdout.close()
    assert process.wait(10) == 141
    wait_for(lambda: not is_alive(remote), "the program to end")


def test_who_is_interrupted_while_its_reader_sleeps_still_ends(sidecar, wait_for) -> None:
    process = sidecar.start("exec", "--", "sh", "-c", "echo $$; exec yes", stdout=subprocess.PIPE)
    assert process.stdout is not None
    remote = int(process.stdout.readline())
    process.send_signal(signal.SIGINT)  # a thread is held up in write(2) now
    try:
        assert process.wait(5) == 130
    finally:
        process.stdout.close()
        process.kill()
    wait_for(lambda: not is_alive(remote), "the program to end")
