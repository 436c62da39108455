"""Does the sidecar listen on a network port? The kernel's own tables say (proc(5)).

/proc/net/{tcp,udp}{,6} list the sockets of this network namespace with their inodes, and
/proc/PID/fd says who holds an inode. A sidecar is not dumpable, so that others of its user
cannot read its memory, and then only root may look into its fd folder. Anybody else goes by
elimination: a listening socket of our user that no process we may look into holds is its.
The same look has to find the hub's port in this process: otherwise it has seen nothing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from sidecar.cli.demo.report import Line, first_problem
from sidecar.cli.demo.stage import Stage

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


async def look_for_ports(stage: Stage) -> list[Line]:
    """Look at the sidecar, and at ourselves to know that looking works."""
    promise = "the sidecar listens on no port"
    ours = await anyio.to_thread.run_sync(listeners_of, os.getpid())
    theirs = await anyio.to_thread.run_sync(listeners_of, stage.child.pid)
    names = ", ".join(map(str, theirs)) or "none"
    stage.screen.say(f"listening sockets: sidecar {names}; hub {', '.join(map(str, ours))}")
    problem = first_problem(
        (stage.hub.port in [listener.port for listener in ours], "the hub's own port was not seen"),
        (not theirs, f"it listens on {names}"),
    )
    figure = f"{len(theirs)} listening sockets (the hub has {len(ours)})"
    return [Line("ports", promise, figure, problem)]


def listeners_of(pid: int) -> list[Listener]:
    """The listening sockets that process `pid` of our user holds."""
    found = _listeners()
    try:
        held = _sockets_of(pid)
    except PermissionError:
        others = set[int]().union(*map(_sockets_if_allowed, _processes()))
        mine = [listener for listener in found if listener.uid == os.getuid()]
        return [listener for listener in mine if listener.inode not in others]
    return [listener for listener in found if listener.inode in held]


def _listeners() -> list[Listener]:
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
