"""A sidecar in a process of its own, its hub on this event loop, and URLs for controllers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from sidecar.hub import Hub, serve
from sidecar.protocol.names import Scope, controller_grant, sidecar_grant

TIME = 30  # seconds
RUN = "demo"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sidecar that serves `workspace`, and the URL for a controller `me`."""

    workspace: Path
    hub: Hub
    url: str

    def watch_url(self, controller: str) -> str:
        """For one that may look and change nothing."""
        access = self.hub.mint(controller_grant(controller, [RUN], Scope.WATCH))
        return f"{self.hub.address.client_url}?access_token={access}"

    async def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python to its end, off the loop, on which the hub is served."""

        def work() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, *arguments],
                env={**os.environ, "CLIENT_URL": self.url},
                capture_output=True,
                text=True,
                timeout=TIME,
            )

        return await anyio.to_thread.run_sync(work)


@asynccontextmanager
async def open_sandbox(folder: Path) -> AsyncIterator[Sandbox]:
    """What it leaves lies in `folder`; the sidecar has ended afterwards."""
    workspace = folder / "workspace"
    workspace.mkdir()
    hub = Hub()
    async with serve(hub) as address:
        token = folder / "token"
        token.write_text(hub.mint(sidecar_grant(RUN)))
        environ = {
            "SIDECAR_RUN": RUN,
            "SIDECAR_HUB": address.client_url,
            "SIDECAR_TOKEN_FILE": str(token),
            "SIDECAR_WORKSPACE": str(workspace),
            "SIDECAR_STATE": str(folder / "state"),
        }
        with (folder / "log").open("wb") as log:
            command = [sys.executable, "-m", "sidecar", "run"]
            process = await anyio.open_process(
                command, env={**os.environ, **environ}, stdout=log, stderr=log
            )
        access = hub.mint(controller_grant("me", [RUN]))
        yield Sandbox(workspace, hub, f"{address.client_url}?access_token={access}")
        process.terminate()
        with anyio.fail_after(TIME):
            await process.wait()
        await process.aclose()
