"""Programs that were started and left: listed, read and ended by whoever comes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.cli.ps import age_of, command_of, state_of
from sidecar.client import ProcessInfo, Survivor

INFO = ProcessInfo(
    id=bytes(16),
    pid=7,
    state="running",
    owner=None,
    argv=["true"],
    shell=None,
    cut=0,
    age=0.0,
    terminal=None,
    has_input=False,
    status=None,
    signal=None,
    timed_out=None,
    sizes={},
    survivors=[],
    more_survivors=0,
)


def info(**changes: object) -> ProcessInfo:
    return replace(INFO, **changes)  # type: ignore[arg-type]


@pytest.fixture
def start(sidecar):
    """Starts a program that is left to itself; its id. What still runs is killed."""
    started: list[str] = []

    def start(*arguments: str) -> str:
        done = sidecar("exec", "-d", *arguments)
        assert (done.returncode, done.stderr) == (0, b"")
        started.append(done.stdout.decode().strip())
        return started[-1]

    yield start
    if started:
        assert sidecar("kill", "--grace", "0", *started).returncode == 0


def listed(sidecar, *options: str) -> dict[str, dict]:
    lines = sidecar("ps", "--json", *options).stdout.splitlines()
    return {entry["exec"]: entry for entry in map(json.loads, lines)}


# In words --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, words",
    [
        ({}, "running"),
        ({"state": "ended", "status": 3}, "exited 3"),
        ({"state": "ended", "signal": 9}, "killed by KILL"),
        ({"state": "ended", "signal": 64, "timed_out": "idle"}, "killed by RTMAX (idle timeout)"),
        ({"state": "unknown"}, "unknown"),
        (
            {"state": "ended", "status": 0, "survivors": [Survivor(8, "x")], "more_survivors": 2},
            "exited 0, left 3 behind",
        ),
    ],
)
def test_a_state_in_words(changes, words) -> None:
    assert state_of(info(**changes)) == words


@pytest.mark.parametrize(
    "seconds, words",
    [(0.9, "0s"), (59, "59s"), (61, "1m01s"), (3661, "1h01m"), (90061, "1d01h"), (1e7, "115d17h")],
)
def test_an_age_has_its_two_largest_units(seconds, words) -> None:
    assert age_of(seconds) == words


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"argv": ["a b", b"\xff", "c"]}, "'a b' '\udcff' c"),
        ({"argv": (), "shell": "echo one\n  echo two"}, "echo one echo two"),
        ({"argv": ()}, "(unknown: started before this sidecar)"),
        ({"argv": ["x"], "cut": 5}, "x\u2026"),
        ({"argv": ["x" * 100]}, "x" * 71 + "\u2026"),
    ],
)
def test_a_command_on_one_line(changes, words) -> None:
    assert command_of(info(**changes)) == words


# At work ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_program_is_started_listed_read_and_killed(sidecar, start) -> None:
    id = start("--", "sh", "-c", "printf 'out\\377'; printf err >&2; exec sleep 1000")
    entry = listed(sidecar)[id]
    assert (entry["state"], entry["argv"][0], entry["terminal"]) == ("running", "sh", None)
    head, row = sidecar("ps").stdout.decode().splitlines()
    assert head.split() == ["ID", "PID", "STATE", "AGE", "COMMAND"]
    assert row.split()[:3] == [id[:13], str(entry["pid"]), "running"]

    done = sidecar("logs", id[:13])
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\xff", b"err")
    done = sidecar("logs", "--stderr", "--from", "1", id)
    assert (done.stdout, done.stderr) == (b"rr", b"")
    done = sidecar("logs", "--tail", "2", id.upper())
    assert (done.stdout, done.stderr) == (b"t\xff", b"rr")

    assert sidecar("kill", id[:13]).returncode == 0
    assert listed(sidecar) == {}
    assert listed(sidecar, "--all")[id]["signal"] == signal.SIGTERM


@pytest.mark.slow
def test_logs_follow_until_the_end_and_what_is_missing_is_told(sidecar, start) -> None:
    id = start("--shell", "head -c 30000000 /dev/zero; sleep 0.2; echo end")
    done = sidecar("logs", "--follow", id)
    assert done.returncode == 0
    assert done.stdout.endswith(b"\0end\n")
    done = sidecar("logs", id)
    assert len(done.stdout) == 16 * 1024 * 1024
    first, last = 4 * 1024 * 1024, 30_000_004 - 12 * 1024 * 1024 - 1
    said = f"sidecar: bytes that were not kept: stdout {first} to {last}\n"
    assert done.stderr == said.encode()


@pytest.mark.slow
def test_what_a_program_left_behind_is_listed_and_killed(sidecar, start, wait_for) -> None:
    id = start("--", "sh", "-c", "setsid sleep 1000 & echo $!")
    pid = int(sidecar("logs", "--follow", id).stdout)
    entry = listed(sidecar)[id]
    assert (entry["state"], entry["status"]) == ("ended", 0)
    assert [one["pid"] for one in entry["survivors"]] == [pid]
    assert b"exited 0, left 1 behind" in sidecar("ps").stdout
    assert sidecar("kill", id).returncode == 0
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "its end")
    assert listed(sidecar) == {}


@pytest.mark.slow
def test_a_signal_is_only_sent(sidecar, start) -> None:
    id = start("--shell", "trap 'echo caught' USR1; while :; do sleep 0.05; done")
    reader = sidecar.start("logs", "--follow", id, stdout=subprocess.PIPE)
    with reader:
        assert sidecar("kill", "--signal", "USR1", "--to", "program", id).returncode == 0
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"caught\n"
        reader.terminate()
        assert reader.wait(10) == 143
    assert listed(sidecar)[id]["state"] == "running"
    done = sidecar("kill", "--signal", "NONSENSE", id)
    assert (done.returncode, done.stderr[:17]) == (1, b"sidecar: invalid:")


@pytest.mark.parametrize(
    "arguments, why",
    [
        (["kill", "--to", "program", "0"], b"--to goes with --signal"),
        (["logs", "--from", "1", "--tail", "1", "0"], b"one of them is expected"),
    ],
)
def test_options_that_do_not_go_together_do_nothing(sidecar, arguments, why) -> None:
    done = sidecar(*arguments)
    assert done.returncode == 2
    assert why in done.stderr


@pytest.mark.slow
def test_of_several_the_known_are_killed_and_the_unknown_told(sidecar, start) -> None:
    one, two = start("sleep", "1000"), start("sleep", "1001")
    done = sidecar("kill", one, "zz", two)
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert lines[0] == "sidecar: not_found: no program 'zz' is known here"
    assert lines[1] == "  hint: `sidecar ps --all` shows which programs are known"
    assert listed(sidecar) == {}
    done = sidecar("kill", "0")
    assert (done.returncode, done.stderr[:17]) == (1, b"sidecar: invalid:")
    assert b"could be any of" in done.stderr


@pytest.mark.slow
def test_attached_by_pipes_it_is_fed_and_its_status_is_ours(sidecar, start) -> None:
    id = start("-t", "--", "sh", "-c", "stty -echo; read line; echo got $line; exit 4")
    done = sidecar("attach", "--from", "0", id, input=b"typed\n")
    assert (done.returncode, done.stdout) == (4, b"got typed\r\n")
    assert sidecar("attach", id).returncode == 4  # it has ended, and prints nothing more


@pytest.mark.slow
def test_who_only_looks_may_leave(sidecar, start) -> None:
    id = start("--", "sh", "-c", "while echo tick; do sleep 0.05; done")
    looking = sidecar.start(
        "attach", "--no-stdin", id, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with looking:
        assert looking.stdout is not None and looking.stderr is not None
        assert looking.stdout.readline() == b"tick\n"
        os.kill(looking.pid, signal.SIGINT)
        assert looking.wait(10) == 130
        said = f"sidecar: left running; come back with: sidecar attach {id[:13]}\n"
        assert looking.stderr.read() == said.encode()
    assert listed(sidecar)[id]["state"] == "running"


@pytest.mark.slow
def test_what_cannot_be_started_is_told_with_the_status_of_exec(sidecar) -> None:
    assert sidecar("exec", "-d", "no-such-program").returncode == 127
    answer = json.loads(sidecar("exec", "-d", "--json", "true").stdout)
    assert answer.keys() == {"exec", "pid"}
