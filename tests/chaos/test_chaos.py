"""The chaos suite passes, in small: what it found is printed, with the command to repeat it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def chaos(*arguments: str, timeout: float = 55) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.chaos", "--json", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == report["status"]
    return report


def test_nothing_is_lost_or_doubled_when_connections_break() -> None:
    report = chaos("--seed", "7", "--kinds", "cut,frame,half-open")
    assert report["violations"] == []
    assert report["missed"] == []
