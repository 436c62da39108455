"""The stage: a hub in this process, a sidecar in another, a controller attached to it.

All of it lies in one temporary folder, and all of it is gone when the block ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from sidecar.cli.demo.child import DRAIN, Child, DemoError, sidecar_child
from sidecar.cli.demo.faults import sidecar_command
from sidecar.cli.demo.follower import Follower
from sidecar.cli.demo.screen import Screen
from sidecar.cli.demo.sockets import Listener, listening_sockets
from sidecar.client import CallError, Controller, Run
from sidecar.hub import Address, Hub, serve
from sidecar.protocol.names import Subject, controller_grant, sidecar_grant

SUBJECT = Subject("demo")
CONTROLLER = "tour"
TOKEN_LIFE = 600.0  # seconds; longer than the demo may take
ATTACH_TRIES = 10
ATTACH_TIME = 2.0  # seconds of one try


@dataclass(frozen=True, slots=True)
class Stage:
    """What the steps of the tour work with."""

    screen: Screen
    hub: Hub
    child: Child
    controller: Controller
    run: Run
    follower: Follower
    workspace: Path
    scratch: Path  # a folder for this side's own files
    earlier: list[Listener]  # what listened on this machine before the sidecar was started
    broken: str | None = None  # the line whose promise is to be broken

    def breaks(self, name: str) -> bool:
        return self.broken == name

    async def cut(self, *, forget: bool) -> None:
        """Cut both connections; with `forget` the hub then refuses to take them up again."""
        for user in (SUBJECT.user_id, f"control:{CONTROLLER}"):
            if forget:
                self.hub.forget(user)
            await self.hub.drop(user)


@asynccontextmanager
async def open_stage(folder: Path, screen: Screen, broken: str | None) -> AsyncIterator[Stage]:
    """Start everything in `folder`. Raises `DemoError` if the sidecar does not come up."""
    workspace, scratch, token = folder / "workspace", folder / "scratch", folder / "token"
    hub = Hub()
    async with serve(hub) as address:
        secret = hub.mint(sidecar_grant(SUBJECT.run), lifetime=TOKEN_LIFE)
        earlier = await anyio.to_thread.run_sync(listening_sockets)
        await anyio.to_thread.run_sync(_furnish, workspace, scratch, token, secret)
        settings = {
            "run": SUBJECT.run,
            "hub": address.client_url,
            "token_file": str(token),
            "workspace": str(workspace),
            "state": str(folder / "state"),
            "drain": str(DRAIN),
        }
        async with (
            sidecar_child(sidecar_command(broken), settings, folder / "sidecar.log") as child,
            Controller.connect(_controller_url(address, hub), controller=CONTROLLER) as controller,
        ):
            run = await _attach(controller, child)
            screen.say(f"hub at {address.client_url}, sidecar in process {child.pid}")
            async with Follower.follow(run, skip_one=broken == "events") as follower:
                yield Stage(
                    screen=screen,
                    hub=hub,
                    child=child,
                    controller=controller,
                    run=run,
                    follower=follower,
                    workspace=workspace,
                    scratch=scratch,
                    earlier=earlier,
                    broken=broken,
                )


def _furnish(workspace: Path, scratch: Path, token: Path, secret: str) -> None:
    workspace.mkdir()
    scratch.mkdir()
    token.touch(mode=0o600)
    token.write_text(secret)


def _controller_url(address: Address, hub: Hub) -> str:
    grant = controller_grant(CONTROLLER, [SUBJECT.run])
    return f"{address.client_url}?access_token={hub.mint(grant, lifetime=TOKEN_LIFE)}"


async def _attach(controller: Controller, child: Child) -> Run:
    """Attach once the sidecar is there; look between two tries whether it still lives."""
    why = "it ended"
    for _ in range(ATTACH_TRIES):
        if child.has_ended:
            break
        try:
            return await controller.attach(SUBJECT.run, timeout=ATTACH_TIME)
        except CallError as error:
            why = error.message
    raise DemoError(f"the sidecar did not come up: {why}\n{await child.last_words()}")
