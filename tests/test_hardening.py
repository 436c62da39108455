"""What a process does about itself, looked at in one that has done it."""

from __future__ import annotations

import subprocess
import sys

PROTECTED = """
import ctypes, resource
from sidecar.hardening import protect_memory

PR_GET_DUMPABLE = 3
libc = ctypes.CDLL(None)
print(libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), end=" ")
print(protect_memory(), libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), end=" ")
print(resource.getrlimit(resource.RLIMIT_CORE)[0])
"""


def test_a_protected_process_is_not_dumpable_and_writes_no_core_file() -> None:
    done = subprocess.run([sys.executable, "-c", PROTECTED], capture_output=True, text=True)
    assert done.stdout == "1 True 0 0\n", done.stderr
