"""Every way in which one process gets at another one's memory, descriptors and files, tried.

    python attacks.py '{"pid": 12, "uid": 10001, "folders": ["/state"], "files": ["/run/token"],
                        "sockets": ["/state/admin.sock"], "as": 10002}'

Run as the agent, against core. It prints, as one JSON object, what became of each way and what
has to: the name of the error with which the kernel refuses it. `breaches` tells where the two
differ. What a target does not name is not tried; `as` is for root, who becomes that user first.
Only the standard library is used, so any Python in any container can run it, also from standard
input. tests/test_attacks.py shows that each way works where it may.

Sources: proc(5); ptrace(2), "Ptrace access mode checking"; process_vm_readv(2), pidfd_getfd(2),
kcmp(2), kill(2), prlimit(2), setresuid(2), unix(7), path_resolution(7).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

DONE = "done"
EACCES, EPERM = "EACCES", "EPERM"

_libc = ctypes.CDLL(None, use_errno=True)
_PTRACE_ATTACH, _PTRACE_DETACH, _PTRACE_SEIZE = 16, 17, 0x4206
_PIDFD_GETFD = 438
_KCMP = {"x86_64": 312, "aarch64": 272}


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


# The ways -----------------------------------------------------------------------------------


def _call(function: Any, *arguments: object) -> int:
    """A system call; raises `OSError` as the functions of `os` do."""
    wide = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = int(function(*wide))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def read(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if path.endswith("/mem"):  # where nothing is mapped, reading fails for everybody
            return
        os.read(fd, 64)
    finally:
        os.close(fd)


def write(path: str) -> None:
    """Opened only: what is in it is needed by the next way."""
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def rename(path: str) -> None:
    os.rename(path, f"{path}.taken")
    os.rename(f"{path}.taken", path)


def make_in(folder: str) -> None:
    path = f"{folder}/made"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    os.unlink(path)


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)


def show_addresses(pid: int) -> None:
    """/proc/PID/stat is for all; where its stack lies is 0 in it for who may not trace."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        fields = stat.read().rpartition(b")")[2].split()
    if fields[28 - 3] == b"0":  # the 28th is startstack; the name in parentheses is the 2nd
        raise PermissionError(errno.EACCES, "it is not shown")


def trace(pid: int, request: int) -> None:
    _call(_libc.ptrace, request, pid, 0, 0)
    with suppress(ChildProcessError):
        if request == _PTRACE_ATTACH:
            os.waitpid(pid, 0x40000000)  # __WALL: until it has stopped
    _libc.ptrace(_PTRACE_DETACH, pid, 0, 0)


def move_memory(function: Any, pid: int) -> None:
    """From or to an address where nothing is: EFAULT says that we would have been let in."""
    here = ctypes.create_string_buffer(8)
    ours = _Vector(ctypes.addressof(here), 8)
    theirs = _Vector(8, 8)
    try:
        _call(function, pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise


def take_descriptor(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        os.close(_call(_libc.syscall, _PIDFD_GETFD, pidfd, 0, 0))
    finally:
        os.close(pidfd)


def compare(pid: int) -> None:
    _call(_libc.syscall, _KCMP[platform.machine()], os.getpid(), pid, 0, 0, 0)


def signal_by_descriptor(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGURG)
    finally:
        os.close(pidfd)


# The table ----------------------------------------------------------------------------------

Way = tuple[str, str, Callable[[], object]]  # its name, how it has to be refused, itself

# /proc/PID/...: refused at open(2), readdir(3) or readlink(2).
READ = ("auxv", "environ", "io", "maps", "mem", "pagemap", "personality", "smaps", "syscall")
LISTED = ("fd", "fdinfo", "map_files", "root/etc", "cwd/.")
LINKS = ("cwd", "root", "exe", "fd/0", "ns/net", "ns/mnt", "ns/user")
WRITTEN = ("mem", "clear_refs", "coredump_filter", "oom_score_adj")
CHANGES = ("rename /", "make in /", "chmod /")
SIGNALS = (0, signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL)


def ways(target: Mapping[str, Any]) -> Iterator[Way]:
    """All to a target; the last ones end it."""
    for path in target.get("folders", ()):
        yield from ways_to_folder(path)
    for path in target.get("files", ()):
        yield f"read {path}", EACCES, partial(read, path)
        yield f"write {path}", EACCES, partial(write, path)
        yield f"rename {path}", EACCES, partial(rename, path)
    for path in target.get("sockets", ()):
        yield f"connect {path}", EACCES, partial(connect, path)
    if "uid" in target:
        yield "setgroups", EPERM, partial(os.setgroups, [target["uid"]])
        yield "setresgid", EPERM, partial(os.setresgid, *[target["uid"]] * 3)
        yield "setresuid", EPERM, partial(os.setresuid, *[target["uid"]] * 3)
    if "pid" in target:
        yield from ways_to_process(target["pid"])


def ways_to_folder(path: str) -> Iterator[Way]:
    yield f"list {path}", EACCES, partial(os.listdir, path)
    yield f"make in {path}", EACCES, partial(make_in, path)
    yield f"rename {path}", EACCES, partial(rename, path)
    yield f"chmod {path}", EPERM, partial(os.chmod, path, 0o700)


def ways_to_process(pid: int) -> Iterator[Way]:
    at = f"/proc/{pid}"
    for name in READ:
        yield f"read {name}", EACCES, partial(read, f"{at}/{name}")
    for name in LISTED:
        yield f"list {name}", EACCES, partial(os.listdir, f"{at}/{name}")
    for name in LINKS:
        yield f"link {name}", EACCES, partial(os.readlink, f"{at}/{name}")
    for name in WRITTEN:
        yield f"write {name}", EACCES, partial(write, f"{at}/{name}")
    yield "open fd/0", EACCES, partial(read, f"{at}/fd/0")
    yield "addresses in stat", EACCES, partial(show_addresses, pid)
    yield "ptrace attach", EPERM, partial(trace, pid, _PTRACE_ATTACH)
    yield "ptrace seize", EPERM, partial(trace, pid, _PTRACE_SEIZE)
    yield "process_vm_readv", EPERM, partial(move_memory, _libc.process_vm_readv, pid)
    yield "process_vm_writev", EPERM, partial(move_memory, _libc.process_vm_writev, pid)
    yield "pidfd_getfd", EPERM, partial(take_descriptor, pid)
    yield "kcmp", EPERM, partial(compare, pid)
    yield "prlimit", EPERM, partial(resource.prlimit, pid, resource.RLIMIT_CORE)
    yield "sched_setaffinity", EPERM, partial(os.sched_setaffinity, pid, os.sched_getaffinity(0))
    yield "setpriority", EPERM, partial(os.setpriority, os.PRIO_PROCESS, pid, 19)
    yield "pidfd_send_signal", EPERM, partial(signal_by_descriptor, pid)
    for number in SIGNALS:
        yield f"kill {int(number)}", EPERM, partial(os.kill, pid, number)


def attack(target: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """What became of each way, and what has to."""
    if "as" in target:
        os.setgroups([])
        os.setresgid(*[target["as"]] * 3)
        os.setresuid(*[target["as"]] * 3)
    found = {}
    for name, refusal, way in ways(target):
        try:
            way()
        except OSError as error:
            found[name] = (errno.errorcode.get(error.errno or 0, str(error)), refusal)
        else:
            found[name] = (DONE, refusal)
    return found


def targets(core: int, uid: int, state: str, tokens: list[str]) -> list[dict[str, Any]]:
    """What an agent below `sidecar supervise` may not have: core with all its files, and PID 1.
    `core` is its pid in the agent's namespace, `uid` its user, `state` its folder."""
    kept = ("state.json", "lock", "journal", "receipts", "spools", "uploads")
    return [
        {
            "pid": core,
            "uid": uid,
            "folders": [state],
            "files": [*tokens, *(f"{state}/{name}" for name in kept)],
            "sockets": [f"{state}/admin.sock", f"{state}/agent.sock"],
        },
        {"pid": 1, "uid": 0},
    ]


def breaches(answer: str | bytes) -> dict[str, str]:
    """Of what the program printed: the ways that were not refused as they have to be. A file
    system that is mounted for reading only refuses changes before it asks who we are."""
    return {
        name: became
        for name, (became, refusal) in json.loads(answer).items()
        if became != refusal and not (became == "EROFS" and name.startswith(CHANGES))
    }


if __name__ == "__main__":
    print(json.dumps(attack(json.loads(sys.argv[1]))))
