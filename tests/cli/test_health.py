"""What `sidecar health` says in its one line."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.cli.health import _describe

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
