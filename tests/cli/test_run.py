"""`sidecar run` as a sandbox starts it, and `sidecar health` as its health check."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.settings import Settings, variable


@pytest.fixture
def running(bench, dev_on, wait_for, tmp_path) -> Iterator[subprocess.Popen[bytes]]:
    """A `sidecar run` beside a dev whose hub it uses; state in `runtime/state`."""
    dev = dev_on("work")
    token = bench("token", "--sidecar").stdout
    (bench.runtime / "token").write_bytes(token)
    state = bench.runtime / "state"
    settings = {
        "SIDECAR_RUN": dev.profile["run"],
        "SIDECAR_TOKEN_FILE": str(bench.runtime / "token"),
        "SIDECAR_STATE": str(state),
        "SIDECAR_WORKSPACE": str(dev.folder),
    }
    with (bench.runtime / "run.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sidecar", "run"], env=bench.environ | settings, stderr=log
        )
    wait_for(lambda: b"channel open" in (bench.runtime / "run.log").read_bytes(), "the channel")
    wait_for(lambda: answers(state / "agent.sock"), "the sockets, the last of which is the agent's")
    yield process
    process.kill()
    process.wait()


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex(str(path)) == 0


def sockets_of(pid: int) -> set[str]:
    """The inodes of the sockets that a process holds."""
    links = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(path))
        except FileNotFoundError:
            continue
    return {match[1] for link in links if (match := re.match(r"socket:\[(\d+)\]", link))}


def tcp_sockets(pid: int) -> dict[str, str]:
    """The state (proc_net_tcp: 01 established, 0A listening) of its TCP sockets by inode."""
    found = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            found[fields[9]] = fields[3]
    return {inode: found[inode] for inode in sockets_of(pid) & found.keys()}


def test_it_listens_on_no_network_port(running) -> None:
    assert list(tcp_sockets(running.pid).values()) == ["01"], "one connection, out"


def test_the_check_finds_a_process_that_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)):
        assert "0A" in tcp_sockets(os.getpid()).values()


def test_a_term_ends_it_with_0_and_no_process_stays(running, bench, wait_for) -> None:
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text()
    running.terminate()
    assert running.wait(10) == 0
    assert children == ""
    assert list((bench.runtime / "state").glob("*.sock")) == []


def test_its_log_has_time_level_name_and_no_token(running, bench) -> None:
    lines = (bench.runtime / "run.log").read_text().splitlines()
    assert [line for line in lines if "channel open" in line]
    for line in lines:
        assert re.match(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z (info|warning) [\w.]+: ", line), line
        assert "eyJ" not in line
    assert b"eyJ" not in Path(f"/proc/{running.pid}/cmdline").read_bytes()


def test_it_loads_nothing_before_hello_that_it_does_not_need(bench) -> None:
    flags = ["--run", "a", "--token-file", "/none", "--drain", "0"]
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "sidecar", "run", *flags],
        env=bench.environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    loaded = set()
    for line in process.stderr:
        if "no_token" in line:  # it has tried to dial, and hello comes later
            break
        loaded.add(line.rpartition("|")[2].strip())
    process.terminate()
    process.communicate()
    assert process.returncode == 69, "it never reached a hub"
    assert {"sidecar.runtime", "websockets.asyncio.client"} <= loaded
    unwanted = (
        r"(click|rich|pydantic|starlette|uvicorn|jwt|sidecar\.(hub|client|serving|catalogue))\b"
    )
    assert [name for name in loaded if re.match(unwanted, name)] == []


def test_without_settings_each_missing_one_is_a_line_and_the_status_78(bench) -> None:
    done = bench("run")
    assert (done.returncode, done.stdout) == (78, b"")
    lines = done.stderr.decode().splitlines()
    assert [line.split(":")[0] for line in lines] == ["sidecar run"] * 2
    assert "SIDECAR_RUN is missing" in lines[0]
    assert "SIDECAR_TOKEN_FILE" in lines[1]


@pytest.mark.parametrize(
    "flags, environ, words",
    [
        pytest.param(["--run", "A.b"], {}, "is not an id", id="bad id"),
        pytest.param(["--drain", "x"], {}, "SIDECAR_DRAIN: 'x' is not a number", id="no number"),
        pytest.param([], {"SIDECAR_TOKENFILE": "x"}, "SIDECAR_TOKENFILE is not a", id="misspelt"),
        pytest.param(["--workspace", "/none"], {}, "not a folder", id="no workspace"),
        pytest.param(["--workspace", "x" * 256], {}, "not a folder", id="no such name can be"),
        pytest.param(["--hub", "http://x"], {}, "is not a hub", id="bad hub"),
        pytest.param(
            ["--token-file", "", "--endpoint", "http://x.example", "--run-token-file", "r"],
            {},
            "would carry the run token in plain text",
            id="an endpoint without TLS",
        ),
    ],
)
def test_wrong_settings_are_78(bench, flags, environ, words) -> None:
    given = ["--run", "a", "--token-file", "t"]
    done = bench("run", *given, *flags, env=environ)
    assert done.returncode == 78
    assert words in done.stderr.decode()


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--tokenfile", "x"], "did you mean --token-file?"),
        (["--token", "eyJ"], "everybody may read a command line"),
        (["--run"], "--run needs a value"),
        (["demo"], "takes flags only"),
        (["--insecure=yes"], "takes no value"),
    ],
)
def test_a_bad_command_line_is_2(bench, flags, words) -> None:
    done = bench("run", *flags)
    assert done.returncode == 2
    assert words in done.stderr.decode()
    assert b"sidecar run --help" in done.stderr


def test_a_state_folder_that_cannot_be_made_is_77(bench) -> None:
    done = bench("run", "--run", "a", "--token-file", "t", "--state", "/proc/state")
    assert done.returncode == 77
    assert b"sidecar run: the state folder cannot be used: /proc/state: " in done.stderr
    assert b"set SIDECAR_STATE" in done.stderr


def test_a_state_folder_too_deep_for_a_socket_is_77(bench) -> None:
    done = bench("run", "--run", "a", "--token-file", "t", "--state", f"/tmp/{'x' * 92}")
    assert done.returncode == 77
    assert b"too long for the sockets in it" in done.stderr


def test_help_lists_every_setting_with_its_variable(bench) -> None:
    done = bench("run", "--help")
    assert done.returncode == 0
    text = done.stdout.decode()
    for name in Settings.__dataclass_fields__:
        assert variable(name) in text
        assert (f"--{name.replace('_', '-')} " in text.replace(",", " ")) is (
            name not in ("token", "run_token")
        )


def test_a_parent_that_is_gone_already_ends_it_at_once(bench) -> None:
    done = bench("run", "--with-parent", "1", "--run", "a", "--token-file", "t")
    assert done.returncode == -signal.SIGTERM


def test_health_asks_the_socket_in_the_state_folder(running, bench) -> None:
    state = str(bench.runtime / "state")
    for options, environ in ((["--state", state], {}), ([], {"SIDECAR_STATE": state})):
        done = bench("health", *options, env=environ)
        assert done.returncode == 0
        assert done.stdout.startswith(b"healthy: run work-")
    answer = json.loads(bench("health", f"--state={state}", "--json").stdout)
    assert answer["pid"] == running.pid


def test_health_is_1_with_the_reason_while_the_hub_is_away(bench, tmp_path, wait_for) -> None:
    state = bench.runtime / "state"
    arguments = ["--run", "a", "--token-file", str(tmp_path / "t"), "--state", str(state)]
    process = bench.start("run", *arguments, "--drain", "0", stderr=subprocess.DEVNULL)
    try:
        wait_for((state / "admin.sock").exists, "its socket")
        done = wait_for(
            lambda: (found := bench("health", "--state", str(state))).stdout and found, "an answer"
        )
        assert done.returncode == 1
        assert done.stdout.startswith(b"not healthy: run a, ")
        assert b"no_token: token file" in done.stdout
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize(
    "arguments, environ, words",
    [
        (["--state", "/none"], {}, b"no sidecar answers in /none: No such file"),
        ([], {"SIDECAR_RUN": "gone"}, b"/sidecar/gone: No such file"),
        ([], {}, b"No `sidecar dev` is running"),
        (["--stat"], {}, b"sidecar health --help"),
    ],
)
def test_health_is_2_when_nobody_answers(bench, arguments, environ, words) -> None:
    done = bench("health", *arguments, env=environ)
    assert (done.returncode, done.stdout) == (2, b"")
    assert words in done.stderr


def test_health_starts_without_an_event_loop(bench) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sidecar", "health", "--state", "/none"],
        env=bench.environ,
        capture_output=True,
        text=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "sidecar.cli.health" in loaded
    assert loaded & {"asyncio", "anyio", "click", "rich", "sidecar.runtime"} == set()


def test_closed_standard_files_are_not_taken_for_ours(running, bench) -> None:
    """Else the first socket would get number 1, and the answer would go into it."""
    state = str(bench.runtime / "state")
    command = f"exec {sys.executable} -m sidecar health --state {state} >&- 2>&- <&-"
    done = subprocess.run(["sh", "-c", command], env=bench.environ)
    assert done.returncode == 0
