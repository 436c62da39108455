"""The chaos suite passes, in small, and finds what is planted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def chaos(*arguments: str, timeout: float = 55) -> dict[str, Any]:
    """The report; who reads it in a failure finds the command that repeats the seed."""
    command = [sys.executable, "-m", "tests.chaos", "--json", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == report["status"]
    return report


def test_nothing_is_lost_or_doubled_when_core_is_killed() -> None:
    report = chaos("--seed", "2", "--rounds", "1", "--kinds", "core")
    assert report["violations"] == []
    assert report["missed"] == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_nothing_is_lost_or_doubled_by_any_kind_of_fault() -> None:
    report = chaos("--seeds", "1-14", timeout=230)
    assert report["violations"] == []
    assert report["missed"] == []


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "defect, kinds",
    [
        ("result-not-repeated", "core,controller,forget"),
        ("receipt-skipped", "core,both,half-open,stall,frame"),
        ("cursor-off-by-one", "forget,hub,cut,core,controller"),
        ("rewind-left-out", "forget,hub,cut,core,controller"),
        ("bytes-lost-on-kill", "core,both"),
    ],
)
def test_a_planted_defect_is_found(defect: str, kinds: str) -> None:
    report = chaos("--seeds", "1-50", "--kinds", kinds, "--defect", defect, timeout=230)
    assert report["found"]
