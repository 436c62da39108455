"""What this process may do, and how a child of it gives all of that up for good.

A user who is not root has no capability after setresuid(2), but for those in the inheritable set,
which is emptied, too. What it could get back by execve(2), from set-user-ID files and files with
capabilities, PR_SET_NO_NEW_PRIVS takes away, and the empty bounding set once more.

Sources: capabilities(7), capget(2), prctl(2); linux/capability.h, linux/prctl.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Callable
from functools import partial

from sidecar.supervisor.accounts import Account

CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
}

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_LINUX_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class Denied(Exception):
    """`step` on the way to another identity failed with `number`, an errno."""

    def __init__(self, step: str, number: int) -> None:
        super().__init__(step, number)
        self.step = step
        self.number = number


def missing(*names: str) -> list[str]:
    """Which of these capabilities we do not have."""
    effective = _effective()
    return [name for name in names if not effective >> CAPABILITIES[name] & 1]


def adopt_orphans() -> None:
    """What loses its parent below us becomes our child, also where we are not PID 1."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def become(account: Account, *, new_privileges: bool = False) -> None:
    """This process is of `account` from now on, and cannot go back. Raises `Denied`."""
    for step, take in _steps(account, new_privileges):
        try:
            take()
        except OSError as error:
            raise Denied(step, error.errno or 0) from None
    if os.getresuid() != (account.uid,) * 3 or os.getresgid() != (account.gid,) * 3:
        raise Denied("check who we are", errno.EPERM)


def end_with(parent: int) -> None:
    """SIGTERM when `parent` ends, who may be killed like everybody but PID 1. After `become`,
    which would undo it."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before
        os.kill(os.getpid(), signal.SIGTERM)


def _steps(account: Account, new_privileges: bool) -> list[tuple[str, Callable[[], object]]]:
    """In this order: the first three need what the third takes away."""
    uid, gid = account.uid, account.gid
    steps: list[tuple[str, Callable[[], object]]] = [
        ("setgroups", partial(os.setgroups, account.groups)),
        ("setresgid", partial(os.setresgid, gid, gid, gid)),
        ("setresuid", partial(os.setresuid, uid, uid, uid)),
        ("capset", _drop_all),
    ]
    if not missing("CAP_SETPCAP"):
        steps.insert(0, ("empty the bounding set", _empty_bounding_set))
    if not new_privileges:
        steps.append(("no_new_privs", partial(_prctl, _PR_SET_NO_NEW_PRIVS, 1)))
    return steps


def _effective() -> int:
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"CapEff:"):
                return int(line.split()[1], 16)
    return 0


def _empty_bounding_set() -> None:
    for capability in range(64):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == errno.EINVAL:  # this kernel has no more
                return
            raise


def _drop_all() -> None:
    """Effective, permitted and inheritable; the ambient set follows."""
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if _libc.capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _prctl(option: int, value: int) -> None:
    arguments = [ctypes.c_ulong(word) for word in (value, 0, 0, 0)]
    if _libc.prctl(ctypes.c_int(option), *arguments) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
