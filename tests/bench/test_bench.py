"""The benchmarks run, each with tiny sizes, and what they write can be read. No time is judged."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = {
    "exec",
    "spawn",
    "output",
    "programs",
    "files",
    "transfers",
    "memory",
    "codecs",
    "events",
    "journal",
    "beside",
    "pauses",
    "heal",
    "start",
    "idle",
    "container",
}


def bench(*arguments: str) -> str:
    command = [sys.executable, "-m", "tests.bench", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_benchmarks_are_listed() -> None:
    assert {line.split()[0] for line in bench("--list").splitlines()} == NAMES


@pytest.mark.slow
@pytest.mark.alone  # it takes all the processors that there are
@pytest.mark.timeout(180)
def test_every_benchmark_runs_and_its_rows_can_be_read(tmp_path: Path) -> None:
    target = tmp_path / "rows.json"
    printed = bench("--tiny", "--json", str(target))
    report = json.loads(target.read_text())
    assert set(report["machine"]) == {"python", "kernel", "cores", "load"}
    assert {row["bench"] for row in report["rows"]} == NAMES
    for row in report["rows"]:
        if row["value"] is None:
            assert "not installed" in row["what"], row
            continue
        assert math.isfinite(row["value"]) and row["value"] >= 0, row
        assert row["verdict"] in ({"holds", "MISSED"} if row["goal"] else {""}), row
        assert row["what"] in printed
