"""What holds a program back: its resource limits, and its place before us when memory runs out.

Both are set from outside right after the start, because nothing may run between fork and exec.
So there is a window, of 0.1 ms on an idle machine and more on a busy one: memory that was mapped
and descriptors that were opened in it stay, and a process that was forked in it keeps our limits
and our score. What a program starts later inherits what was set.

The score must not be written any sooner: until it has called exec a child shares our memory, and
the kernel would set ours as well (proc(5), __set_oom_adj).
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from functools import cache

from sidecar.errors import Invalid, LimitExceeded
from sidecar.hands.interface import Limits
from sidecar.hardening import give_back_descriptor_limit

# Thousandths of all memory that a program seems to use beyond what it does (proc(5)). With half of
# all memory on top, the kernel takes the greediest of the programs long before it thinks of us.
OOM_RAISE = 500
_OOM_MAX = 1000
_AT_ONCE = os.O_NONBLOCK | os.O_CLOEXEC  # which procfs always is
_MAX = 1 << 63
_CPU_GRACE = 1  # seconds between SIGXCPU, which says why, and SIGKILL

Restraint = tuple[int, int, int]  # resource, soft limit, hard limit

_RESOURCES = {
    "memory": resource.RLIMIT_AS,
    "processes": resource.RLIMIT_NPROC,
    "files": resource.RLIMIT_NOFILE,
    "cpu": resource.RLIMIT_CPU,
}


def restraints_of(limits: Limits | None) -> tuple[Restraint, ...]:
    """`limits` for `restrain`. Raises `Invalid`, and `LimitExceeded` above our own hard limit.

    Root could go above; it does not, because what holds for us ought to hold for what we start.
    """
    if limits is None:
        return ()
    wanted = {name: getattr(limits, name) for name in _RESOURCES}
    return tuple(_restraint(name, value) for name, value in wanted.items() if value is not None)


def restrain(pid: int, restraints: tuple[Restraint, ...]) -> None:
    """Hold a child back that was just started. Raises `OSError` if a limit cannot be set, as of
    a program that runs as another user (set-user-ID)."""
    give_back_descriptor_limit(pid)
    for what, soft, hard in restraints:
        resource.prlimit(pid, what, (soft, hard))
    with suppress(OSError):  # no procfs, or another user's program: then it is only not preferred
        _raise_score(pid)


def _restraint(name: str, value: int) -> Restraint:
    if not 0 <= value < _MAX:
        raise Invalid(f"a limit of {name} of {value}: 0 to 2**63 - 1 expected")
    what = _RESOURCES[name]
    ceiling = resource.getrlimit(what)[1]
    if ceiling == resource.RLIM_INFINITY:
        ceiling = _MAX - 1
    if value > ceiling:
        raise LimitExceeded(f"limit of {name}", size=value, limit=ceiling)
    return what, value, min(value + _CPU_GRACE, ceiling) if name == "cpu" else value


@cache
def _program_score() -> int:
    descriptor = os.open("/proc/self/oom_score_adj", os.O_RDONLY | _AT_ONCE)
    try:
        return min(int(os.read(descriptor, 16)) + OOM_RAISE, _OOM_MAX)
    finally:
        os.close(descriptor)


def _raise_score(pid: int) -> None:
    score = b"%d" % _program_score()
    descriptor = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | _AT_ONCE)
    try:
        os.write(descriptor, score)
    finally:
        os.close(descriptor)
