"""Who takes part: a hub and a sidecar, each in its own process; the controller is in ours.

Everything is on loopback, and everything that was started is ended with the block that started
it, whatever happened in between.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from sidecar.client import Controller, Run
from sidecar.hub.tokens import Tokens, client_audiences
from sidecar.protocol.names import Grant, controller_grant, sidecar_grant
from tests.bench import hubprocess

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0  # seconds for a process to come up or to end
LIFETIME = 3600.0  # seconds; no token is refreshed during a measurement
RUN = "bench"
SIDECAR = ("-m", "sidecar", "run")


@contextmanager
def process(
    *arguments: str,
    environment: dict[str, str] | None = None,
    python: str = sys.executable,
    quiet: bool = False,
) -> Iterator[subprocess.Popen[str]]:
    """`python ARGUMENTS` with pipes for standard input and output; ended with the block.

    What a `quiet` one prints goes nowhere."""
    child = subprocess.Popen(
        [python, *arguments],
        cwd=ROOT,
        env={**_inherited(), "PYTHONPATH": str(ROOT), **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL if quiet else subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
    )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


def _inherited() -> dict[str, str]:
    """Without what would keep modules from being compiled: a start would take four times as long,
    on either side."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


async def first_line(child: subprocess.Popen[str]) -> str:
    """What a process says when it is ready. Raises `RuntimeError` if it ends instead."""
    assert child.stdout is not None
    with anyio.fail_after(PATIENCE):
        line = await anyio.to_thread.run_sync(child.stdout.readline, abandon_on_cancel=True)
    if not line:
        raise RuntimeError(f"process {child.pid} ended before it was ready")
    return line.strip()


@dataclass(frozen=True, slots=True)
class HubAt:
    """A hub process: where it is, and who may connect."""

    url: str
    key: str
    pid: int

    def token(self, grant: Grant) -> str:
        host = self.url.removeprefix("ws://").partition("/")[0]
        (audience, _) = client_audiences([host], self.url.rpartition("/")[2])
        return Tokens(self.key).mint_access(grant, audience, lifetime=LIFETIME, now=time.time())

    def client_url(self, grant: Grant) -> str:
        """With the token in it, as Azure's SDKs hand it out."""
        return f"{self.url}?access_token={self.token(grant)}"


@asynccontextmanager
async def hub_process() -> AsyncIterator[HubAt]:
    key = secrets.token_urlsafe(32)
    with process("-m", "tests.bench.hubprocess", environment={hubprocess.KEY: key}) as child:
        yield HubAt(await first_line(child), key, child.pid)


@dataclass(frozen=True, slots=True)
class Stage:
    """One hub, one sidecar, one attached controller."""

    hub: HubAt
    sidecar_pid: int
    workspace: Path
    controller: Controller
    run: Run
    hands_pid: int | None = None  # of hands that are apart


def sidecar_environment(hub: HubAt, folder: Path, run: str, codec: str) -> dict[str, str]:
    """What `sidecar run` is told. It makes its state folder itself."""
    workspace = folder / "workspace"
    workspace.mkdir(exist_ok=True)
    return {
        "SIDECAR_RUN": run,
        "SIDECAR_HUB": hub.url,
        "SIDECAR_TOKEN": hub.token(sidecar_grant(run)),
        "SIDECAR_WORKSPACE": str(workspace),
        "SIDECAR_STATE": str(folder / "state"),
        "SIDECAR_SUBPROTOCOL": codec,
        "SIDECAR_LOG_LEVEL": "warning",
    }


@contextmanager
def hands_process(workspace: Path, socket: Path) -> Iterator[int]:
    """`sidecar hands` at `socket`, as soon as it listens; its process id."""
    arguments = ("--socket", str(socket), "--workspace", str(workspace))
    with process("-m", "sidecar", "hands", *arguments, "--log-level", "warning") as child:
        end = time.monotonic() + PATIENCE
        while not socket.exists():
            if child.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"process {child.pid} does not listen at {socket}")
            time.sleep(0.01)
        yield child.pid


@asynccontextmanager
async def stage(
    hub: HubAt,
    *,
    codec: str = "protobuf",
    run: str = RUN,
    program: tuple[str, ...] = SIDECAR,
    is_apart: bool = False,
) -> AsyncIterator[Stage]:
    """A sidecar process on `hub`, and a controller in this process that is attached to it. If it
    `is_apart`, its hands are a process of their own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as exits:
        folder = Path(name)
        environment = sidecar_environment(hub, folder, run, codec)
        hands_pid = None
        if is_apart:
            environment["SIDECAR_HANDS"] = str(folder / "hands.sock")
            hands = hands_process(folder / "workspace", folder / "hands.sock")
            hands_pid = exits.enter_context(hands)
        url = hub.client_url(controller_grant(run, [run]))
        with process(*program, environment=environment) as child:
            async with Controller.connect(url, controller=run, json=codec == "json") as controller:
                attached = await controller.attach(run, timeout=PATIENCE)
                workspace = folder / "workspace"
                yield Stage(hub, child.pid, workspace, controller, attached, hands_pid)
