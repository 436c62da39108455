"""The child's part of `sidecar dev`: not to outlive its parent, however that one ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with(parent: int) -> None:
    """From now on, get SIGTERM when `parent` is gone (prctl(2), PR_SET_PDEATHSIG); Linux only.

    The kernel watches from this call on, so a parent that ended before is looked for.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
