"""`sidecar install` from a place that cannot be copied; from one that can: tests/containers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_what_runs_from_no_folder_has_nothing_to_install(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sidecar", "install", str(tmp_path / "volume")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 78
    assert "is no self-contained folder" in done.stderr
    assert not (tmp_path / "volume").exists()
