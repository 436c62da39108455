"""`sidecar repoint` as a real program, at the sidecar of a real `sidecar dev`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def healthy(sidecar, wait_for) -> None:
    """It may still be starting."""
    wait_for(lambda: sidecar("health").returncode == 0, "a sidecar that is well")


@pytest.fixture
def token(sidecar) -> bytes:
    """A client URL with a good token for the sidecar."""
    done = sidecar("token", "--sidecar")
    assert done.returncode == 0, done.stderr
    return done.stdout


def channel(sidecar) -> dict[str, object]:
    found = json.loads(sidecar("health", "--json").stdout)["channel"]
    assert isinstance(found, dict)
    return found


def test_a_token_from_standard_input_is_used_at_once_and_without_a_drop(sidecar, token) -> None:
    before = channel(sidecar)
    done = sidecar("repoint", "-", input=token)
    assert done.returncode == 0, done.stderr
    assert b"repointed to the hub ws://127.0.0.1" in done.stdout
    assert b"channel open" in done.stdout
    assert token.strip().partition(b"access_token=")[2] not in done.stdout + done.stderr
    after = channel(sidecar)
    assert after["handovers"] == before["handovers"] + 1  # type: ignore[operator]
    assert after["recoveries"] == before["recoveries"]


def test_a_token_from_a_file_and_the_answer_as_json(sidecar, token, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(token)
    done = sidecar("repoint", "--token-file", str(tmp_path / "token"), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["source"], found["state"]) == ("repointed to hub", "ok")


def test_what_the_hub_refuses_is_told_and_undone(sidecar, token) -> None:
    head, _, signature = token.strip().rpartition(b".")
    before = channel(sidecar)["connection_id"]
    done = sidecar("repoint", "-", input=head + b"." + signature[::-1])
    assert done.returncode == 1
    assert b"refused, and back to what the settings name" in done.stdout
    assert channel(sidecar)["connection_id"] == before
    assert channel(sidecar)["state"] == "open"


def test_a_foreign_host_is_denied(sidecar, token) -> None:
    evil = token.replace(b"127.0.0.1", b"evil.example").replace(b"ws://", b"wss://")
    done = sidecar("repoint", "-", input=evil)
    assert done.returncode == 1
    assert b"denied: 'evil.example:" in done.stderr


@pytest.mark.parametrize(
    "arguments, input, complaint",
    [
        ([], b"", b"say where the token is"),
        (["-", "--token-file", "t"], b"", b"say where the token is"),
        (["eyJhbGciOi.secret.token"], b"", b"never an argument"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_2(sidecar, arguments, input, complaint) -> None:
    done = sidecar("repoint", *arguments, input=input)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert b"secret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "input, complaint",
    [
        (b"", b"needs a token"),
        (b"hunter2", b"not a JWT"),
        (b"x" * 100_000, b"more than"),
        (b"\xff\xfe", b"not a JWT"),
    ],
)
def test_what_is_no_token_is_1_and_changes_nothing(sidecar, input, complaint) -> None:
    before = channel(sidecar)["connection_id"]
    done = sidecar("repoint", "--hub", "ws://127.0.0.1:1/client/hubs/sidecar", "-", input=input)
    assert done.returncode == 1
    assert complaint in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"hunter2" not in done.stderr
    assert channel(sidecar)["connection_id"] == before


def test_without_a_sidecar_it_is_2(bench) -> None:
    done = bench("repoint", "--state", "/nowhere", "-", input=b"t")
    assert done.returncode == 2
    assert b"no sidecar answers" in done.stderr
