"""The story of `sidecar hands`: listen, act for core, run the container's command, end.

It holds no token: what is in its environment by mistake is removed. It does not end with core,
which may be restarted and comes back to its programs.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import anyio
from anyio.abc import TaskStatus

from sidecar.hands.apart.maincommand import FORWARDED, MainCommand
from sidecar.hands.apart.server import Server
from sidecar.hands.local.environment import Environment
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.rootlist import ListedRoot

log = logging.getLogger(__name__)

TOKENS = ("SIDECAR_TOKEN", "SIDECAR_TOKEN_FILE", "SIDECAR_RUN_TOKEN", "SIDECAR_RUN_TOKEN_FILE")
NOT_EXECUTABLE = 126  # as a shell has it
NOT_FOUND = 127


@dataclass(frozen=True, slots=True)
class Options:
    """What `sidecar hands` goes by."""

    workspace: str
    roots: Sequence[ListedRoot] = ()
    environment: Environment = "clean"
    core_uids: Sequence[int] = ()
    cgroup: str | None = None
    command: Sequence[str] = ()


def drop_tokens() -> None:
    """Hands acts as the agent, who may read what it can read."""
    for name in TOKENS:
        if os.environ.pop(name, None) is not None:
            log.warning("%s is set here, where nobody needs it: removed", name)


async def run(options: Options, listener: socket.socket) -> int:
    """Until the command ends, or without one until SIGTERM or SIGINT; the exit status. Raises
    `CallError` for a workspace, a root or a cgroup that is none."""
    opened = LocalHands.open_root(
        options.workspace,
        roots=options.roots,
        environment=options.environment,
        cgroup=options.cgroup,
        adopt=True,
    )
    async with opened as hands, anyio.create_task_group() as group:
        server = Server(hands, core_uids=options.core_uids)
        end = _run_command if options.command else _until_told
        await group.start(partial(_serve, server, listener))
        status = await end(options.command)
        await hands.end_programs()  # as long as core is there to hear how each of them ended
        await server.answered()
        group.cancel_scope.cancel()
    return status


async def _serve(server: Server, listener: socket.socket, *, task_status: TaskStatus[None]) -> None:
    log.info("hands listens at %s", listener.getsockname())
    task_status.started()
    await server.serve(listener)


async def _until_told(_: Sequence[str]) -> int:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("%s: ending", number.name)
            break
    return 0


async def _run_command(argv: Sequence[str]) -> int:
    with anyio.open_signal_receiver(*FORWARDED) as signals:  # first: none shall end us alone
        try:
            command = MainCommand(argv)
        except OSError as error:
            log.error("%s: %s", argv[0], error.strerror)
            return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE

        async def forward() -> None:
            async for number in signals:
                command.signal(number)

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(forward)
                status = await command.wait()
                group.cancel_scope.cancel()
        finally:
            command.close()
    log.info("%s ended with status %d", argv[0], status)
    return status
