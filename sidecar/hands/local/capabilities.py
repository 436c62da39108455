"""What this kernel and our identity allow, found out by trying."""

from __future__ import annotations

import os
import platform

from sidecar.hands.local.proc import has_pidfds
from sidecar.hands.local.syscalls import landlock_abi


def of_kernel() -> dict[str, str | bool]:
    """Blocks for some 50 µs."""
    abi = landlock_abi()
    return {
        "pidfd": has_pidfds(),
        "pty": _has_terminals(),
        "landlock": False if abi is None else str(abi),
        "uid": str(os.getuid()),
        "gid": str(os.getgid()),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _has_terminals() -> bool:
    """Whether a pseudoterminal can be made (pts(4)): devpts may be missing or not for us."""
    try:
        os.close(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
