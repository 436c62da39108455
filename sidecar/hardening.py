"""What a process does about itself at its start; Linux only, and harmless elsewhere.

Not dumpable (prctl(2), PR_SET_DUMPABLE): another process of the same user cannot read our
memory through ptrace or /proc, where the token is. No core files, for the same reason.

As many descriptors as it may have (RLIMIT_NOFILE, getrlimit(2)). The usual 1,024 are for the sake
of select(2), which nothing here uses and programs may: they get back what we were given.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from contextlib import suppress

PR_SET_DUMPABLE = 4


def protect_memory() -> bool:
    """Whether both could be set."""
    if sys.platform != "linux":
        return False
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)


DESCRIPTORS = 65_536  # are enough for all bounds of ours together
_given: int | None = None


def raise_descriptor_limit() -> None:
    """Of this process, from the soft limit towards the hard one. Harmless when repeated."""
    global _given
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        _given = soft


def give_back_descriptor_limit(pid: int) -> None:
    """A child that was just started has the soft limit that we were given."""
    if _given is not None:
        with suppress(OSError):  # it has ended, or runs as another user
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (_given, hard))
