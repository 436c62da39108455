"""`sidecar hub --platform`, and a sidecar that gets its tokens there."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest


class Served:
    """A `sidecar hub` that runs, and what its lines say."""

    def __init__(self, process: subprocess.Popen[bytes], lines: int) -> None:
        assert process.stdout is not None
        self.process = process
        said = [process.stdout.readline().decode() for _ in range(lines)]
        self.said = {line[:18].strip(): line[19:].strip() for line in said}

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def served(bench) -> Iterator[Callable[..., Served]]:
    """Starts a hub; ends it with the test."""
    started: list[Served] = []

    def start(*options: str, lines: int = 5) -> Served:
        process = bench.start("hub", *options, stdout=subprocess.PIPE)
        started.append(Served(process, lines))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.mark.slow
def test_a_platform_key_starts_a_run_and_speaks_to_its_sidecar(
    bench, served, tmp_path: Path
) -> None:
    key, state = tmp_path / "platform.key", tmp_path / "platform.state"
    hub = served("--platform-key-file", str(key), "--platform-state", str(state))
    endpoint = hub.said["platform endpoint"]
    assert json.loads(key.read_text())["endpoint"] == endpoint
    assert stat.S_IMODE(key.stat().st_mode) == 0o600

    mint = ["token", "--platform-key-file", str(key), "--run", "demo"]
    run_token = bench(*mint, "--sidecar").stdout
    assert run_token.startswith(b"srt_")
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    (tmp_path / "run-token").write_bytes(run_token)
    (tmp_path / "me").write_bytes(bench(*mint, "--controller", "me").stdout)
    work = tmp_path / "work"
    work.mkdir()
    flags = ["--run", "demo", "--endpoint", endpoint]
    flags += ["--run-token-file", str(tmp_path / "run-token"), "--workspace", str(work)]
    sidecar = bench.start("run", *flags, stderr=subprocess.DEVNULL)
    try:
        who = ["--run", "demo", "--controller", "me", "--token-file", str(tmp_path / "me")]
        assert bench("exec", *who, "--", "echo", "hello").stdout == b"hello\n"
        info = json.loads(bench("info", *who, "--json").stdout)
        assert info["generation"] == 1
    finally:
        sidecar.send_signal(signal.SIGTERM)
        sidecar.wait(30)


@pytest.mark.slow
def test_a_hub_that_is_killed_and_started_again_knows_its_key_and_its_runs(
    bench, served, tmp_path: Path
) -> None:
    key, state = tmp_path / "platform.key", tmp_path / "platform.state"
    options = ["--key-file", str(tmp_path / "hub.key"), "--platform-key-file", str(key)]
    options += ["--platform-state", str(state), "--token-life", "7"]
    first = served(*options)
    mint = ["token", "--platform-key-file", str(key), "--run", "demo", "--sidecar"]
    bearer = {"Authorization": f"Bearer {bench(*mint).stdout.decode().strip()}"}
    first.end()

    port = first.said["hub"].rpartition(":")[2]
    second = served(*options, "--port", port)
    assert second.said == first.said
    body = {"run": "demo", "incarnation": "a", "reason": "start"}
    url = f"{second.said['platform endpoint']}/v1/token"
    answer = httpx.post(url, json=body, headers=bearer, trust_env=False)
    assert (answer.status_code, answer.json()["expires_in"]) == (200, 7.0)
    assert bench(*mint).returncode == 0


def test_without_a_key_file_the_key_lies_in_a_file_of_ours_and_goes_with_the_hub(
    bench, served
) -> None:
    hub = served("--platform")
    own = Path(hub.said["platform key"].removeprefix("in "))
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    hub.process.terminate()
    hub.process.wait(30)
    assert not own.exists()


def test_faults_are_asked_for_with_the_hub_key(bench, served) -> None:
    hub = served("--faults", "--show-key", lines=4)
    key = hub.said["connection string"].partition("AccessKey=")[2].partition(";")[0]
    bearer = {"Authorization": f"Bearer {key}"}
    answer = httpx.post(f"{hub.said['faults']}/enforce_expiry", headers=bearer, trust_env=False)
    assert answer.json()["enforce_expiry"] is True


@pytest.mark.parametrize(
    "content, sentence",
    [
        (None, "No such file"),
        ("Endpoint=http://h;AccessKey=k", 'JSON with "endpoint" and "key" expected'),
        ('{"endpoint": "http://example.com/p", "key": "k"}', "in plain text: use https://"),
        ('{"endpoint": "http://127.0.0.1:9/p", "key": "k"}', "no answer of an endpoint"),
    ],
)
def test_a_platform_key_that_is_of_no_use_is_told_so(
    bench, tmp_path: Path, content: str | None, sentence: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    done = bench("token", "--platform-key-file", str(path), "--run", "demo")
    assert done.returncode != 0
    assert sentence in done.stderr.decode()
    assert bench("token", "--platform-key-file", str(path)).returncode != 0


def test_a_key_that_was_retired_gets_no_token(bench, served, tmp_path: Path) -> None:
    key = tmp_path / "key"
    served("--platform-key-file", str(key))
    found = json.loads(key.read_text())
    key.write_text(json.dumps({**found, "key": found["key"][:-1] + "_"}))
    done = bench("token", "--platform-key-file", str(key), "--run", "demo", "--sidecar")
    assert done.returncode != 0
    assert b"HTTP 401, unauthorized" in done.stderr
    assert found["key"].encode()[-20:-1] not in done.stderr


@pytest.mark.slow
def test_an_answer_that_is_none_of_an_endpoint_is_no_token(bench, tmp_path: Path) -> None:
    class Portal(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"welcome": "to our network"}')

        def log_message(self, *arguments: object) -> None:
            """Silent."""

    with HTTPServer(("127.0.0.1", 0), Portal) as portal:
        Thread(target=portal.serve_forever, daemon=True).start()
        key = tmp_path / "key"
        url = f"http://127.0.0.1:{portal.server_port}/p"
        key.write_text(json.dumps({"endpoint": url, "key": "k"}))
        for options, missing in ((["--sidecar"], b"`run_token`"), ([], b"`url`")):
            command = ["token", "--platform-key-file", str(key), "--run", "demo", *options]
            done = bench(*command)
            assert (done.returncode, done.stdout) == (1, b"")
            assert b"no answer of an endpoint: " + missing + b" is missing" in done.stderr
        portal.shutdown()


@pytest.mark.parametrize("mode, warned", [(0o644, True), (0o600, False)])
def test_a_token_that_goes_where_others_may_read_it_is_warned_of(
    bench, served, tmp_path: Path, mode: int, warned: bool
) -> None:
    key, target = tmp_path / "key", tmp_path / "token"
    served("--key-file", str(key), lines=3)
    target.touch()
    target.chmod(mode)
    with target.open("wb") as file:
        command = ["token", "--key-file", str(key), "--run", "demo"]
        done = subprocess.run(
            [sys.executable, "-m", "sidecar", *command],
            stdout=file,
            stderr=subprocess.PIPE,
            env=bench.environ,
            check=True,
        )
    assert (b"others may read the file" in done.stderr) is warned
    assert target.read_bytes().startswith(b"ws://")
