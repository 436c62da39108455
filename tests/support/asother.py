"""`sidecar hands` as another user: `python asother.py UID FLAGS...`, started by root.

The interpreter and the package may lie where only root can go, so all that hands needs is used
once before the user is changed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import anyio

from sidecar.cli import hands as verb
from sidecar.hands.apart import listening, process
from sidecar.hands.apart.remote import SocketHands
from sidecar.hands.interface import Program, Terminal


async def warm_up(folder: Path) -> None:
    path = str(folder / "socket")
    with listening.listening(path, mode=0o600) as listener:
        async with anyio.create_task_group() as group:
            group.start_soon(process.run, process.Options(str(folder)), listener)
            async with SocketHands.open_socket(path) as hands:
                for terminal in (None, Terminal()):
                    program = Program(shell="true & true", stdin=True, terminal=terminal)
                    running = await hands.spawn(program, key=b"x")
                    await hands.wait(b"x")
                    await hands.kill(b"x", grace=1)
                    await hands.forget(b"x")
                    for fd in (running.stdin, running.stdout, running.stderr):
                        if fd is not None:
                            os.close(fd)
            group.cancel_scope.cancel()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="warm-") as name:
        anyio.run(warm_up, Path(name))
    uid = int(sys.argv[1])
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    sys.exit(verb.main(sys.argv[2:]))
