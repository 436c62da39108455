"""A cgroup for each program, where a part of the hierarchy was delegated to us (cgroups(7)).

Nothing leaves a cgroup by forking, so `kill` ends whatever is in it at once, also what has left
its session, lost its parents and wiped its environment (cgroup v2, "Core Interface Files",
cgroup.kill since Linux 5.14). Two ways out remain: who may write to the hierarchy moves itself,
and what a program forks in its first 100 µs, before it was moved, is not in; both are still found
as any tree is (`tree`).

Off unless a folder is given: it costs each program 85 µs (mkdir 29, move 33, rmdir 23; measured
on Linux 6.18, the 99th percentile of the move is 820), a tenth of a short one's time.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from sidecar.errors import CallError, Code
from sidecar.hands.local.syscalls import is_on_cgroup2

_SWEEP = 16  # cgroups of ended programs that are looked at when a new one is made


class Cgroup:
    """One program's. Its methods block for some 30 µs."""

    def __init__(self, path: str) -> None:
        self._path = path
        os.mkdir(path, 0o755)

    def adopt(self, pid: int) -> bool:
        """Move a process in; what it forks from then on is in as well."""
        return _write(f"{self._path}/cgroup.procs", b"%d" % pid)

    def pids(self) -> list[int]:
        """Who is in it, and in those that were made inside of it."""
        return [int(line) for path in self._paths() for line in _lines(f"{path}/cgroup.procs")]

    def kill(self) -> bool:
        """KILL to all, so that no fork can run away from it; False before Linux 5.14."""
        return _write(f"{self._path}/cgroup.kill", b"1")

    def remove(self) -> bool:
        """False if somebody is still in."""
        try:
            for path in reversed(list(self._paths())):
                os.rmdir(path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def _paths(self) -> Iterator[str]:
        return (path for path, _, _ in os.walk(self._path))


class Cgroups:
    """The folder that was delegated. Its methods block."""

    def __init__(self, folder: str) -> None:
        """Raises `CallError` (`unsupported`) if it is none or not ours to use."""
        self.folder = folder
        self._left: deque[Cgroup] = deque()
        try:
            descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                is_usable = is_on_cgroup2(descriptor)
            finally:
                os.close(descriptor)
            if is_usable:
                Cgroup(f"{folder}/probe-{os.getpid()}").remove()
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise CallError(
                Code.UNSUPPORTED, f"cgroup {folder!r} cannot be used: {reason}"
            ) from None
        if not is_usable:
            raise CallError(Code.UNSUPPORTED, f"{folder!r} is no cgroup of version 2")

    def make(self, key: bytes) -> Cgroup | None:
        """One more; None if the kernel refuses (cgroup.max.descendants), which ends no call."""
        self.sweep(_SWEEP)
        with suppress(OSError):
            return Cgroup(f"{self.folder}/exec-{os.getpid()}-{key.hex()}")
        return None

    def leave(self, cgroup: Cgroup) -> None:
        """Its program has ended: remove it once it is empty. Does not block."""
        self._left.append(cgroup)

    def sweep(self, most: int | None = None) -> None:
        """Remove those that are empty, of the `most` that were left first."""
        for _ in range(min(len(self._left), most or len(self._left))):
            cgroup = self._left.popleft()
            if not cgroup.remove():
                self._left.append(cgroup)


def _write(path: str, content: bytes) -> bool:
    """O_NONBLOCK says that this never waits for anybody; the kernel answers at once."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True


def _lines(path: str) -> list[bytes]:
    with suppress(OSError), open(path, "rb") as lines:
        return lines.readlines()
    return []
