"""What a process does about itself at its start; Linux only, and harmless elsewhere.

Not dumpable (prctl(2), PR_SET_DUMPABLE): another process of the same user cannot read our
memory through ptrace or /proc, where the token is. No core files, for the same reason.
"""

from __future__ import annotations

import ctypes
import resource
import sys

PR_SET_DUMPABLE = 4


def protect_memory() -> bool:
    """Whether both could be set."""
    if sys.platform != "linux":
        return False
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
