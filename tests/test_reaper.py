"""As PID 1: strangers are reaped, and never a program whose status somebody waits for."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from sidecar.reaper import reap_strangers


def has_ended(pid: int) -> None:
    """Wait until `pid` is a zombie, without taking its status."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_a_stranger_is_reaped_and_ours_keeps_its_status() -> None:
    ours = subprocess.Popen(["sh", "-c", "exit 7"])
    stranger = os.posix_spawn("/bin/true", ["true"], {})
    has_ended(ours.pid)
    has_ended(stranger)
    reap_strangers({ours.pid}.__contains__)
    assert not Path(f"/proc/{stranger}").exists()
    assert ours.wait() == 7


def test_what_still_runs_is_left_alone() -> None:
    child = subprocess.Popen(["sleep", "600"])
    began = time.monotonic()
    reap_strangers(lambda pid: False)
    assert time.monotonic() - began < 5
    assert child.poll() is None
    child.kill()
    assert child.wait() == -9
