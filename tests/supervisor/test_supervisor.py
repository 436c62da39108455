"""The real program: what it starts, what it reaps, and how it ends. As root, without a hub."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from procs import alive_with, sleep_of_its_own
from supervised import AGENT, CORE, Supervised, children, wait_until

every_way = pytest.mark.parametrize(
    "as_pid_1", [pytest.param(True, id="PID 1"), pytest.param(False, id="subreaper")]
)

# Prints what it hears, so that a test need not guess when it listens.
LISTENS = """
import signal, sys
numbers = {1, 2, 3, 10, 12, 15, 28}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print("ready", flush=True)
while True:
    number = signal.sigwait(numbers)
    print(int(number), flush=True)
    if number == 15:
        sys.exit(42)
"""
DEAF = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


def status_of(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: words.split() for name, _, words in (line.partition(":") for line in lines)}


def line(box: Supervised) -> bytes:
    assert box.process.stdout is not None
    return box.process.stdout.readline().strip()


# What is started ----------------------------------------------------------------------------


@every_way
def test_each_part_is_its_user_and_can_become_nobody_else(box: Supervised, as_pid_1: bool) -> None:
    box.start("sleep", "60", as_pid_1=as_pid_1)
    box.says("the command is process")  # said of each one when it runs; it is the last
    pids = {box.part("run"): CORE, box.part("hands"): AGENT}
    [command] = set(children(box.pid)) - set(pids)
    for pid, uid in {**pids, command: AGENT}.items():
        status = status_of(pid)
        assert status["Uid"] == status["Gid"] == [str(uid)] * 4
        assert status["Groups"] == [str(uid)]
        assert status["NoNewPrivs"] == ["1"]
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[name][0], 16) == 0, name


def test_new_privileges_are_for_the_agent_only(box: Supervised) -> None:
    box.start("sleep", "60", flags=["--new-privileges"])
    assert status_of(box.part("run"))["NoNewPrivs"] == ["1"]
    assert status_of(box.part("hands"))["NoNewPrivs"] == ["0"]


def test_it_is_small_and_has_one_thread(box: Supervised) -> None:
    box.start("sleep", "60")
    box.part("run")
    status = status_of(box.pid)
    assert int(status["VmRSS"][0]) < 12 * 1024, "KiB"
    assert status["Threads"] == ["1"]


def test_nobody_inherits_a_descriptor(box: Supervised) -> None:
    box.start("sh", "-c", "ls /proc/self/fd")  # of which one is that folder
    assert box.output().split() == [b"0", b"1", b"2", b"3"]
    assert box.wait() == 0


def test_the_command_has_our_files_our_folder_and_its_own_home(box: Supervised) -> None:
    box.start("sh", "-c", "cat; pwd; echo $HOME $USER; env | grep -c SIDECAR_; id -u")
    assert box.process.stdin is not None
    box.process.stdin.write(b"hello\n")
    assert box.output().decode().splitlines() == [
        *("hello", str(box.workspace), f"/ {AGENT}", "0", str(AGENT))
    ]


def test_the_command_is_killed_by_a_pipe_that_nobody_reads(box: Supervised) -> None:
    box.start("sh", "-c", "yes | head -c 1; exit ${PIPESTATUS:-3}")
    assert box.output() == b"y"
    assert box.wait() == 3  # and not hung: SIGPIPE is not ignored
    assert "Broken pipe" not in box.log


def test_the_folders_are_made_for_those_who_need_them(box: Supervised) -> None:
    box.start("true")
    assert box.wait() == 0
    for path, uid, mode in ((box.state, CORE, 0o700), (box.socket.parent, AGENT, 0o755)):
        found = path.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (uid, uid, mode)


# How it ends --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command, status, as_pid_1",
    [
        (["sh", "-c", "exit 0"], 0, False),
        (["sh", "-c", "exit 7"], 7, True),
        (["sh", "-c", "exit 255"], 255, False),
        (["sh", "-c", "kill -9 $$"], 137, True),
        (["sh", "-c", "kill -15 $$"], 143, False),
        (["no-such-command"], 127, True),
        (["/etc/passwd"], 126, False),
    ],
)
def test_it_ends_as_the_command_ends(
    box: Supervised, command: list[str], status: int, as_pid_1: bool
) -> None:
    box.start(*command, as_pid_1=as_pid_1)
    assert box.wait() == status
    if status in (126, 127):
        assert f"the command cannot be started: {command[0]}: " in box.log


@every_way
def test_the_command_gets_our_signals_and_has_the_last_word(
    box: Supervised, as_pid_1: bool
) -> None:
    box.start(sys.executable, "-uc", LISTENS, as_pid_1=as_pid_1)
    assert line(box) == b"ready"
    for number in (1, 3, 10, 12, 28, 15):
        box.send(number)
        assert line(box) == str(number).encode()
    assert box.wait() == 42
    assert "SIGTERM: ending" in box.log


def test_a_core_with_bad_settings_is_not_started_again(box: Supervised) -> None:
    box.start("sleep", "60", SIDECAR_SUBPROTOCOL="morse")
    assert box.wait() == 78
    assert "SIDECAR_SUBPROTOCOL is 'morse': protobuf or json expected" in box.log
    assert "core ended with status 78: ending" in box.log
    assert box.log.count("core is process") == 1


def test_a_hands_with_bad_settings_is_not_started_again(box: Supervised) -> None:
    box.start("sleep", "60", SIDECAR_WORKSPACE="/no/such")
    assert box.wait() == 78
    assert "--workspace is '/no/such': not a folder" in box.log
    assert box.log.count("hands is process") == 1


def test_what_is_killed_comes_back_after_a_pause_that_grows(box: Supervised) -> None:
    box.start("sleep", "60")
    core = box.part("run")
    for pause in ("0.1", "0.2"):
        os.kill(core, signal.SIGKILL)
        box.says(rf"core ended with status 137 \(128 \+ SIGKILL\): .* again in {pause} s")
        core = box.part("run", but=core)
    hands = box.part("hands")
    os.kill(hands, signal.SIGTERM)
    box.says(r"hands ended with status \d+.*: starting it again in 0.1 s")
    assert box.part("hands", but=hands) != hands


def test_a_command_that_will_not_end_is_killed_after_the_grace(box: Supervised) -> None:
    box.start("sh", "-c", DEAF, flags=["--grace=0.3"])
    assert line(box) == b"ready"
    box.send(signal.SIGTERM)
    assert box.wait() == 137


def test_a_second_signal_kills(box: Supervised) -> None:
    box.start("sh", "-c", DEAF)
    assert line(box) == b"ready"
    box.send(signal.SIGTERM)
    box.says("SIGTERM: ending")
    box.send(signal.SIGTERM)
    assert box.wait() == 137


@pytest.mark.slow
def test_what_the_supervisor_was_to_end_ends_when_it_is_killed(box: Supervised) -> None:
    with sleep_of_its_own() as word:
        box.start("sleep", word)
        pids = [box.part("run"), box.part("hands")]
        wait_until(lambda: alive_with(word), "the command")
        box.send(signal.SIGKILL)
        box.process.wait()
        gone = lambda: not [p for p in pids if Path(f"/proc/{p}").exists()]  # noqa: E731
        wait_until(lambda: gone() and not alive_with(word), "all of them to end")


# What is left -------------------------------------------------------------------------------


@pytest.mark.slow
@every_way
def test_five_hundred_orphans_are_reaped(box: Supervised, as_pid_1: bool) -> None:
    script = "i=0; while [ $i -lt 500 ]; do (sh -c 'exit 3' &) ; i=$((i+1)); done; echo; read x"
    box.start("sh", "-c", script, as_pid_1=as_pid_1)
    line(box)
    parts = [box.part("run"), box.part("hands")]
    wait_until(lambda: len(children(box.pid)) == 3, "nothing but core, hands and the command")
    assert set(parts) < set(children(box.pid))
    box.output()
    assert box.wait() == 1  # of `read` at the end of its input


@every_way
def test_nothing_is_left_behind(box: Supervised, as_pid_1: bool) -> None:
    with sleep_of_its_own() as word:
        # A daemon in a session of its own, and one that ignores what it is told.
        leaves = f"setsid sleep {word} & (trap '' TERM HUP; sleep {word}) & sleep 0.2"
        box.start("sh", "-c", leaves, as_pid_1=as_pid_1)
        wait_until(lambda: len(alive_with(word)) >= 2, "both of them")
        assert box.wait() == 0
        assert alive_with(word) == []


def test_a_signal_to_what_was_reaped_reaches_nobody(box: Supervised) -> None:
    box.start("sh", "-c", "exit 5", SIDECAR_DRAIN="5")
    box.says("the command ended with status 5")
    if box.process.poll() is None:
        box.send(signal.SIGHUP)  # for the command, which has no process any more
    assert box.wait() == 5
