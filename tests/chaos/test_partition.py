"""Packets vanish for ten seconds, and for longer than a connection can be recovered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.partition import EX_NOPERM

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.optional
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(10, id="the connection outlives it"),
        pytest.param(45, id="the hub has forgotten the connection"),
    ],
)
def test_a_partition_costs_a_wait(seconds: int) -> None:
    command = [sys.executable, "-m", "tests.chaos.partition", "--seconds", str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170)
    if done.returncode == EX_NOPERM:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
