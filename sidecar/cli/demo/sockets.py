"""Who listens on a network port? The kernel's own tables say (proc(5)).

/proc/net/{tcp,udp}{,6} list the sockets of this network namespace with their inodes, and
/proc/PID/fd says who holds an inode. A sidecar is not dumpable, so that others of its user
cannot read its memory, and then only who may trace it (CAP_SYS_PTRACE) may look into its fd
folder. Anybody else goes by elimination: it holds those of our user's listening sockets that
were not there before it was started and that no process holds which we may look into.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
WAITING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}  # states: LISTEN, unconnected
_INODE = re.compile(r"socket:\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that others can reach."""

    table: str
    port: int
    uid: int
    inode: int

    def __str__(self) -> str:
        return f"{self.table} port {self.port}"


def listeners_of(pid: int, earlier: Collection[Listener] = ()) -> list[Listener]:
    """The listening sockets that process `pid` of our user holds; `earlier` ones were there
    before it was."""
    found = listening_sockets()
    try:
        held = _sockets_of(pid)
    except PermissionError:
        return _by_elimination(found, earlier)
    return [listener for listener in found if listener.inode in held]


def listening_sockets() -> list[Listener]:
    """Every listening socket of this network namespace."""
    found = []
    for table, state in WAITING.items():
        path = PROC / "net" / table
        if not path.exists():  # a kernel without IPv6
            continue
        for row in path.read_text().splitlines()[1:]:
            columns = row.split()
            if columns[3] == state:
                port = int(columns[1].rpartition(":")[2], 16)
                found.append(Listener(table, port, uid=int(columns[7]), inode=int(columns[9])))
    return found


def _by_elimination(found: list[Listener], earlier: Collection[Listener]) -> list[Listener]:
    accounted = {listener.inode for listener in earlier}
    accounted.update(*map(_sockets_if_allowed, _processes()))
    mine = [listener for listener in found if listener.uid == os.getuid()]
    return [listener for listener in mine if listener.inode not in accounted]


def _sockets_of(pid: int) -> set[int]:
    """Inodes of the sockets that a process holds."""
    inodes = set()
    for descriptor in (PROC / str(pid) / "fd").iterdir():
        try:
            match = _INODE.fullmatch(os.readlink(descriptor))
        except FileNotFoundError:
            continue  # closed meanwhile
        if match:
            inodes.add(int(match[1]))
    return inodes


def _sockets_if_allowed(pid: int) -> set[int]:
    try:
        return _sockets_of(pid)
    except OSError:
        return set()  # another user's, or gone


def _processes() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]
