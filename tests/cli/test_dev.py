"""`sidecar dev`: what it starts, shows, restarts, and leaves behind: nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
from pathlib import Path

import pytest


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "TERM"])
def test_a_signal_ends_everything_with_status_0(dev_on, number) -> None:
    dev = dev_on("a")
    profile, child = dev.profile, dev.child()
    assert dev.bench("exec", "true").returncode == 0

    dev.process.send_signal(number)
    assert dev.process.wait(15) == 0
    assert is_gone(child)
    assert not Path(profile["state"]).exists()
    assert list((dev.bench.runtime / "sidecar").iterdir()) == []


def test_what_it_keeps_is_ours_alone(dev_on) -> None:
    dev = dev_on("a")
    assert dev.bench("exec", "true").returncode == 0
    folder = dev.bench.runtime / "sidecar"
    state = Path(dev.profile["state"])
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, state)}
    assert modes == {folder: 0o700, state: 0o700}
    files = [
        *folder.iterdir(),
        state / "first-run-token",
        state / "run-token",
        state / "admin.sock",
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert dev.profile["pid"] == dev.process.pid


@pytest.mark.slow
def test_a_second_one_on_the_same_folder_names_the_first(dev_on) -> None:
    dev = dev_on("a")
    done = dev.bench("dev", ".", cwd=dev.folder)
    assert done.returncode == 1
    assert f"served already, by `sidecar dev`, process {dev.process.pid}" in done.stderr.decode()
    assert dev.bench("exec", "true").returncode == 0


@pytest.mark.slow
def test_the_sidecar_is_started_again_when_it_dies(dev_on, wait_for) -> None:
    dev = dev_on("a")
    wait_for(lambda: b"channel open" in dev.log.read_bytes(), "the sidecar")
    first = dev.child()
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: dev.child() not in (0, first), "another sidecar")
    assert dev.bench("exec", "echo", "again").stdout == b"again\n"
    assert "the sidecar was killed by SIGKILL; starting it again" in dev.log.read_text()


@pytest.mark.slow
def test_a_run_that_is_ended_ends_it(dev_on) -> None:
    dev = dev_on("a")
    dev.bench("exec", "true")
    run = dev.profile["run"]
    done = dev.bench("drain")
    assert (done.returncode, done.stdout.decode()) == (0, f"run {run} ended: nothing left over\n")
    assert dev.process.wait(30) == 0
    assert "the run was ended by drain" in dev.log.read_text()


@pytest.mark.slow
def test_each_start_of_the_sidecar_is_counted(dev_on, wait_for) -> None:
    dev = dev_on("a")
    assert json.loads(dev.bench("info", "--json").stdout)["generation"] == 1
    first = dev.child()
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: dev.child() not in (0, first), "another sidecar")
    assert json.loads(dev.bench("info", "--json").stdout)["generation"] == 2


@pytest.mark.slow
def test_a_dev_that_is_killed_leaves_no_sidecar_and_no_trace(dev_on, wait_for) -> None:
    dev = dev_on("a")
    child = dev.child()
    dev.process.kill()
    dev.process.wait()
    wait_for(lambda: is_gone(child), "the sidecar to end as well")
    done = dev.bench("ls")
    assert b"No `sidecar dev` is running" in done.stderr
    assert list((dev.bench.runtime / "sidecar").iterdir()) == []
    again = dev_on("a")
    assert again.bench("exec", "true").returncode == 0


def test_it_shows_what_happens_in_plain_lines(dev_on, wait_for) -> None:
    dev = dev_on("a")
    dev.bench("exec", "--", "sh", "-c", "exit 42")
    wait_for(lambda: b"status=42" in dev.log.read_bytes(), "the event")
    text = dev.log.read_text()
    assert "\x1b" not in text
    assert f"sidecar dev: {dev.folder} is run {dev.profile['run']}" in text
    assert "channel open: ws://127.0.0.1:" in text
    assert "exec.ended " in text
    assert "eyJ" not in text and "access_token" not in text, "a token was shown"


@pytest.mark.slow
def test_of_two_the_current_folder_or_an_option_chooses(dev_on) -> None:
    one, two = dev_on("one"), dev_on("two")
    (one.folder / "deep").mkdir()
    sidecar = one.bench
    assert sidecar("exec", "pwd", cwd=one.folder / "deep").stdout == f"{one.folder}\n".encode()
    assert sidecar("exec", "pwd", cwd=two.folder).stdout == f"{two.folder}\n".encode()
    run = two.profile["run"]
    for options, environ in ((["--run", run], {}), ([], {"SIDECAR_RUN": run})):
        done = sidecar("exec", *options, "pwd", cwd=one.folder, env=environ)
        assert done.stdout == f"{two.folder}\n".encode()
    file = str(sidecar.runtime / "sidecar" / f"{run}.json")
    assert sidecar("exec", "--profile", file, "pwd").stdout == f"{two.folder}\n".encode()

    done = sidecar("exec", "pwd", cwd=Path("/"))
    assert done.returncode == 125
    for dev in (one, two):
        assert f"--run {dev.profile['run']}  {dev.folder}" in done.stderr.decode()
    done = sidecar("ls", "--run", "other")
    assert b"no `sidecar dev` serves run 'other'" in done.stderr


def test_programs_inherit_the_environment_without_our_settings(bench, dev_on) -> None:
    bench.environ |= {"FROM_HERE": "yes", "SIDECAR_LOG_LEVEL": "info"}
    dev = dev_on("a")
    names = dev.bench("exec", "env").stdout
    assert b"FROM_HERE=yes\n" in names
    assert re.findall(rb"^SIDECAR_\w+", names, re.MULTILINE) == [b"SIDECAR_EXEC_ID"]


def test_health_finds_the_dev(dev_on) -> None:
    dev = dev_on("a")
    dev.bench("exec", "true")
    answer = json.loads(dev.bench("health", "--json").stdout)
    assert (answer["healthy"], answer["run"], answer["pid"]) == (
        True,
        dev.profile["run"],
        dev.child(),
    )


def test_it_gives_up_on_a_sidecar_that_cannot_start(bench, tmp_path) -> None:
    # The state folder lies in TMPDIR, and a path this long leaves no room for a socket in it.
    long = bench.runtime / ("x" * 90)
    long.mkdir()
    done = bench("dev", str(tmp_path), env={"TMPDIR": str(long)})
    assert done.returncode == 1
    assert b"too long for the sockets in it" in done.stdout
    assert b"the sidecar ended with status 77: giving up" in done.stdout


def test_the_run_can_be_named(bench, dev_on) -> None:
    dev = dev_on("named", "--run", "demo")
    assert dev.profile["run"] == "demo"
    assert bench("exec", "--run", "demo", "--", "true").returncode == 0


def test_a_name_that_is_no_id_is_bad_usage(bench, tmp_path) -> None:
    refused = bench("dev", str(tmp_path), "--run", "a.*")
    assert refused.returncode == 2
    assert b"1 to 63 characters" in refused.stderr


def test_roots_that_cannot_be_are_told_before_anything_starts(bench, tmp_path) -> None:
    done = bench("dev", str(tmp_path), "--roots", f"{tmp_path}/none")
    assert done.returncode == 2
    assert f"'{tmp_path}/none' is not a folder; make it or take it off" in done.stderr.decode()
