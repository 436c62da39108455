"""The other verbs of `sidecar`, and what all of them have in common."""

from __future__ import annotations

import importlib
import json
import os
import re
import stat
import subprocess
from pathlib import Path

import click
import pytest

from sidecar import __version__
from sidecar.cli.main import VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_teaches_with_examples(verb) -> None:
    module = importlib.import_module(f"sidecar.cli.{verb}")
    if hasattr(module, "HELP"):  # parsed without click
        text = module.HELP
    else:
        command = getattr(module, verb)
        with click.Context(command, info_name=f"sidecar {verb}") as context:
            text = command.get_help(context)
    assert text.startswith(f"Usage: sidecar {verb}")
    assert "Example" in text or verb == "demo"  # it is one


def test_help_lists_every_verb_and_version_the_version(bench) -> None:
    help = bench("--help").stdout.decode()
    assert [verb for verb in VERBS if not re.search(rf"^  {verb} ", help, re.MULTILINE)] == []
    assert bench("--version").stdout == f"sidecar {__version__}\n".encode()


def test_without_a_verb_there_is_help_and_it_is_bad_usage(bench) -> None:
    done = bench()
    assert done.returncode == 2
    assert b"Use a sidecar:" in done.stderr


def test_a_misspelt_verb_gets_a_suggestion(bench) -> None:
    done = bench("evnets")
    assert done.returncode == 2
    assert b"There is no verb 'evnets'. Did you mean `sidecar events`?" in done.stderr


@pytest.mark.parametrize("arguments", [["ls", "--colour"], ["cp", "a"], ["ping", "-c", "0"]])
def test_bad_usage_is_2_and_points_at_the_help(bench, arguments) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert f"sidecar {arguments[0]} --help" in done.stderr.decode()


@pytest.mark.parametrize("verb", ["ls", "info", "events", "ping", "token"])
def test_without_a_dev_every_verb_says_how_to_start_one(bench, verb) -> None:
    done = bench(verb)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"sidecar: No `sidecar dev` is running: start one" in done.stderr


def test_info_for_people_and_for_programs(sidecar, dev) -> None:
    lines = dict(line.split(None, 1) for line in sidecar("info").stdout.decode().splitlines())
    assert lines["run"] == dev.profile["run"]
    assert lines["channel.state"] == "open"
    answer = json.loads(sidecar("info", "--json").stdout)
    assert answer["run"] == dev.profile["run"]
    assert answer["capabilities"]["root"] == str(dev.folder)


def test_ping_counts(sidecar, dev) -> None:
    lines = sidecar("ping", "-c", "2", "-i", "0").stdout.decode().splitlines()
    assert len(lines) == 3
    assert re.fullmatch(rf"{dev.profile['run']}: [\d.]+ ms", lines[0])
    answer = json.loads(sidecar("ping", "-c", "3", "-i", "0", "--json").stdout)
    assert answer["count"] == 3
    assert 0 < answer["min"] <= answer["median"] <= answer["max"]


def test_events_end_with_those_that_are_there(sidecar) -> None:
    sidecar("exec", "true")
    lines = sidecar("events", "--json").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["name"] for event in events][:1] == ["sidecar.started"]
    assert [event["name"] for event in events][-2:] == ["exec.started", "exec.ended"]
    assert len(sidecar("events").stdout.splitlines()) == len(events)


def test_events_go_on_after_a_cursor(sidecar) -> None:
    sidecar("exec", "true")
    events = [json.loads(line) for line in sidecar("events", "--json").stdout.splitlines()]
    later = sidecar("events", "--json", "--after", events[-2]["cursor"]).stdout.splitlines()
    assert [json.loads(line)["seq"] for line in later] == [events[-1]["seq"]]
    assert sidecar("events", "--after", events[-1]["cursor"]).stdout == b""
    assert sidecar("events", "--after", "x:y").returncode == 2


@pytest.mark.slow
def test_events_can_be_followed_until_interrupted(sidecar) -> None:
    process = sidecar.start("events", "--follow", "--json", stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["seq"] == 1
        sidecar("exec", "--", "sh", "-c", "exit 42")
        for line in process.stdout:
            event = json.loads(line)
            if event["name"] == "exec.ended" and event["data"]["status"] == 42:
                break
        process.terminate()
        assert process.wait(10) == 143


def test_a_token_of_ours_is_a_way_in(sidecar, dev, tmp_path) -> None:
    run = dev.profile["run"]
    done = sidecar("token", "--controller", "me")
    assert done.stdout.startswith(dev.profile["hub"].encode() + b"?access_token=eyJ")
    (tmp_path / "token").write_bytes(done.stdout)
    options = ["--token-file", str(tmp_path / "token"), "--run", run]
    assert sidecar("exec", *options, "--controller", "me", "echo", "in").stdout == b"in\n"

    done = sidecar("exec", *options, "true")
    assert done.returncode == 125
    assert b"--controller ID" in done.stderr


def test_a_token_for_the_sidecar_is_told_apart(sidecar, dev) -> None:
    answer = json.loads(sidecar("token", "--sidecar", "--json").stdout)
    assert (answer["run"], answer["controller"]) == (dev.profile["run"], None)
    assert sidecar("token", "--sidecar", "--watch").returncode == 2
    assert b"is not an id" in sidecar("token", "--controller", "Not.An.Id").stderr


def test_a_token_that_the_hub_refuses_is_told_at_once(sidecar, dev, tmp_path) -> None:
    url = sidecar("token", "--controller", "me").stdout.strip()
    (tmp_path / "token").write_bytes(url[:-4] + b"AAAA")
    arguments = ["--token-file", str(tmp_path / "token"), "--run", "x", "--controller", "me"]
    done = sidecar("ls", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(b"sidecar: refused: ")


def test_a_hub_that_is_not_there_is_told_as_network(sidecar, tmp_path) -> None:
    url = sidecar("token", "--controller", "me").stdout.decode().strip()
    (tmp_path / "token").write_text(re.sub(r":\d+/", ":9/", url))
    arguments = ["--token-file", str(tmp_path / "token"), "--run", "x", "--controller", "me"]
    done = sidecar("ls", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(b"sidecar: network: ")
    assert b"hint: is the hub running" in done.stderr


@pytest.mark.slow
def test_a_hub_alone_with_its_key_in_a_file(bench, tmp_path, wait_for) -> None:
    key = tmp_path / "hub.key"
    hub = bench.start("hub", "--key-file", str(key), stdout=subprocess.PIPE)
    try:
        assert hub.stdout is not None
        url = hub.stdout.readline().decode().split()[1]
        client_url = hub.stdout.readline().decode().split()[1]
        assert b"AccessKey" not in hub.stdout.readline()
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert key.read_text().startswith(f"Endpoint={url};AccessKey=")
        options = ["token", "--key-file", str(key), "--run", "demo"]
        token = bench(*options, "--sidecar").stdout
        assert token.startswith(client_url.encode() + b"?access_token=")
        (tmp_path / "sidecar").write_bytes(token)
        (tmp_path / "me").write_bytes(bench(*options, "--controller", "me").stdout)
        flags = ["--run", "demo", "--token-file", str(tmp_path / "sidecar")]
        sidecar = bench.start("run", *flags, "--workspace", str(tmp_path), stderr=subprocess.PIPE)
        try:
            who = ["--run", "demo", "--controller", "me", "--token-file", str(tmp_path / "me")]
            assert bench("ls", *who).stdout == b"hub.key\nme\nsidecar\n"
        finally:
            sidecar.terminate()
            assert sidecar.communicate()[1] is not None
        assert sidecar.returncode == 0
    finally:
        hub.terminate()
        hub.communicate()
    assert hub.returncode == 0


def test_a_hub_keeps_its_key_and_its_own_file_goes_with_it(bench, tmp_path) -> None:
    key = tmp_path / "hub.key"
    key.write_text("k" * 40)
    hub = bench.start("hub", "--key-file", str(key), "--show-key", stdout=subprocess.PIPE)
    assert hub.stdout is not None
    lines = [hub.stdout.readline() for _ in range(3)]
    hub.terminate()
    hub.communicate()
    assert b"AccessKey=" + b"k" * 40 in lines[2]

    hub = bench.start("hub", stdout=subprocess.PIPE)
    assert hub.stdout is not None
    lines = [hub.stdout.readline() for _ in range(3)]
    own = Path(lines[2].decode().split()[-1])
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    hub.terminate()
    hub.communicate()
    assert not own.exists()


def test_a_port_that_is_taken_is_told(bench) -> None:
    hub = bench.start("hub", stdout=subprocess.PIPE)
    assert hub.stdout is not None
    port = hub.stdout.readline().decode().strip().rpartition(":")[2]
    done = bench("hub", "--port", port)
    hub.terminate()
    hub.communicate()
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr.decode()


def test_without_the_extra_the_hub_says_what_to_install(bench, tmp_path) -> None:
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError('no', name='uvicorn')")
    for verb in (["hub"], ["dev", str(tmp_path)]):
        done = bench(*verb, env={"PYTHONPATH": f"{tmp_path}:{os.getcwd()}"})
        assert done.returncode == 1
        assert b"pip install 'sandbox-sidecar[dev]'" in done.stderr


def test_a_broken_pipe_is_141(sidecar, dev) -> None:
    (dev.folder / "many").mkdir()
    for n in range(2000):
        (dev.folder / "many" / f"{n:0100}").touch()
    process = sidecar.start("ls", "many", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(10) == 141
    assert process.stderr is not None and process.stderr.read() == b""
    process.stderr.close()


def test_a_watcher_sees_all_and_changes_nothing(sidecar, dev) -> None:
    assert sidecar("ls", "--watch").returncode == 0
    assert b"sidecar.started" in sidecar("events", "--watch").stdout
    refused = sidecar("exec", "--watch", "--", "touch", "trace")
    assert refused.returncode == 125
    assert b"forbidden" in refused.stderr
    assert not (dev.folder / "trace").exists()
