"""What `sidecar health` says in its one line."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.health import _describe, main

WELL: dict[str, Any] = {
    "healthy": True,
    "run": "demo",
    "version": "1",
    "pid": 7,
    "state": "running",
    "channel": {"state": "open", "reason": None, "message": None},
    "hands": {"state": "connected"},
    "token": {"state": "ok", "failure": None},
    "events": {"degraded": None},
}
DOWN = {"state": "waiting", "reason": "network", "message": "no way"}


@pytest.mark.parametrize(
    "changes, line",
    [
        ({}, "healthy: run demo, sidecar 1, process 7, channel open"),
        (
            {"healthy": False, "channel": DOWN},
            "not healthy: run demo, sidecar 1, process 7, channel waiting, network: no way",
        ),
        (
            {"state": "draining", "waits_for": {"calls": 2, "events": 0, "messages": 1}},
            "healthy: run demo, sidecar 1, process 7, channel open, draining (waits for 2 calls,"
            " 1 messages)",
        ),
        (
            {"healthy": False, "state": "superseded"},
            "not healthy: run demo, sidecar 1, process 7, channel open, superseded: another"
            " sidecar of this run has taken over",
        ),
        (
            {"token": {"state": "refused", "failure": "HTTP 401", "way_out": "repoint it"}},
            "healthy: run demo, sidecar 1, process 7, channel open, token refused: HTTP 401;"
            " repoint it",
        ),
        (
            {"receipts": {"durable": False}},
            "healthy: run demo, sidecar 1, process 7, channel open, receipts in memory only (its"
            " log says why)",
        ),
        (
            {"events": {"degraded": "No space left on device"}, "receipts": {"durable": False}},
            "healthy: run demo, sidecar 1, process 7, channel open, events and receipts in memory"
            " only (No space left on device)",
        ),
    ],
)
def test_one_line_says_what_is_wrong(changes: dict[str, Any], line: str) -> None:
    assert _describe(WELL | changes) == line


@contextmanager
def answering(state: Path, answer: dict[str, Any]) -> Iterator[None]:
    """Somebody at `agent.sock` who gives one answer."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(state / "agent.sock"))
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as one:
                one.recv(1024)
                one.sendall(json.dumps(answer).encode() + b"\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


@pytest.mark.parametrize("flags, status", [([], 1), (["--live"], 0)])
def test_one_that_cannot_reach_its_hub_is_alive_and_not_ready(
    flags: list[str], status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(tmp_path, WELL | {"healthy": False, "channel": DOWN}):
        assert main([*flags, "--state", str(tmp_path)]) == status
    assert capsys.readouterr().out.endswith("channel waiting, network: no way\n")


def test_where_nobody_answers_nobody_is_alive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--live", "--state", str(tmp_path)]) == 2
    assert f"no sidecar answers in {tmp_path}" in capsys.readouterr().err
