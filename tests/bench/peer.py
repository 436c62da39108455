"""A peer to measure beside: SWE-ReX, which runs programs in a sandbox and moves files over HTTP,
from PyPI.

It takes part with its own server and its own client, each a process, in an environment of its
own below the user's cache folder, where it is installed once. Its base install forgets aiohttp,
without which its client cannot be imported.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread

from tests.bench.stage import PATIENCE, first_line, process

NAME = "SWE-ReX"
PACKAGES = ("swe-rex==1.4.0", "aiohttp")
CLIENT = Path(__file__).with_name("peerclient.py")
INSTALL_TIME = 300.0  # seconds


def place() -> Path:
    """Where its environment is, or would be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "sidecar-bench" / PACKAGES[0].replace("==", "-")


async def installed(*, may_install: bool) -> str | None:
    """The interpreter that has the peer; None without it, as on a machine without network."""
    python = place() / "bin" / "python"
    if not await _works(python) and may_install:
        await anyio.to_thread.run_sync(_install)
    return str(python) if await _works(python) else None


async def _works(python: Path) -> bool:
    if not python.exists():
        return False
    look = await anyio.run_process([python, "-c", "import swerex.runtime.remote"], check=False)
    return look.returncode == 0


def _install() -> None:
    print(f"installing {' '.join(PACKAGES)} into {place()} ...", file=sys.stderr, flush=True)
    for command in (
        [sys.executable, "-m", "venv", "--clear", place()],
        [place() / "bin" / "python", "-m", "pip", "install", "-q", *PACKAGES],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIME)
        if done.returncode != 0:
            print(done.stderr, file=sys.stderr)
            return


class Peer:
    """The client process, at our orders."""

    def __init__(self, client: subprocess.Popen[str], server_pid: int) -> None:
        self._client = client
        self.client_pid = client.pid
        self.server_pid = server_pid

    async def seconds(self, argv: list[str], *, printed: int, times: int = 1) -> float:
        """How long `times` programs at once took, each of which prints that many bytes."""
        found = await anyio.to_thread.run_sync(self._order, {"argv": argv, "times": times})
        assert found["printed"] == printed, f"{found['printed']} came, {printed} were printed"
        taken: float = found["seconds"]
        return taken

    async def read(self, paths: list[str], size: int) -> float:
        """How long it took to read these files, one after the other, each of so many bytes. It
        answers text in JSON."""
        return await self._move({"read": paths}, size)

    async def upload(self, source: str, targets: list[str], size: int) -> float:
        """How long it took to send a file to these places, one after the other."""
        return await self._move({"upload": source, "targets": targets}, size)

    async def _move(self, order: dict[str, object], size: int) -> float:
        found = await anyio.to_thread.run_sync(self._order, order)
        assert found["size"] == size, f"{found['size']} came, the files have {size}"
        taken: float = found["seconds"]
        return taken

    def _order(self, order: dict[str, object]) -> dict[str, float]:
        stdin, stdout = self._client.stdin, self._client.stdout
        assert stdin is not None and stdout is not None
        stdin.write(json.dumps(order) + "\n")
        stdin.flush()
        answer: dict[str, float] = json.loads(stdout.readline())
        return answer


@asynccontextmanager
async def peer(python: str) -> AsyncIterator[Peer]:
    """The peer's server on a loopback port, and its client."""
    token, port = secrets.token_hex(16), str(_free_port())
    server = ("-m", "swerex.server", "--host", "127.0.0.1", "--port", port, "--auth-token", token)
    with (
        process(*server, python=python, quiet=True) as served,
        process(str(CLIENT), port, token, python=python) as client,
    ):
        with anyio.fail_after(PATIENCE):
            await first_line(client)
        yield Peer(client, served.pid)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
