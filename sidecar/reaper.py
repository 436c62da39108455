"""As PID 1: reap strangers, and never a program of our own.

Orphans become children of PID 1, and stay as zombies until it waits for them (pid_namespaces(7)).
`waitpid(-1)` would also take the exit statuses that hands is waiting for. So: look at who has
ended without taking it (WNOWAIT, waitid(2)), and take it only if it is not one of ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def reap_strangers(is_ours: Callable[[int], bool]) -> int:
    """Reap every zombie child that is not ours; how many. Never waits."""
    reaped = 0
    for pid in _children():
        if is_ours(pid):
            continue
        try:
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None and not is_ours(pid):
                os.waitpid(pid, os.WNOHANG)
                reaped += 1
        except ChildProcessError:
            continue
    return reaped


def _children() -> list[int]:
    """Our children, from /proc (proc(5), task/TID/children)."""
    pids: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        try:
            pids += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return pids
