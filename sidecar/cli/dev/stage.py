"""The task tree of `sidecar dev`: hub, platform endpoint, sidecar, and an eye on its events."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import anyio

from sidecar.cli.describe import describe_event
from sidecar.cli.dev.child import DRAIN, SidecarFailed, Supervisor
from sidecar.cli.dev.screen import Screen
from sidecar.cli.dev.tokens import Minter, write_first_run_token
from sidecar.cli.profiles import Claim, Profile
from sidecar.client import CallableProvider, CallError, Controller, Cursor, Event, Token
from sidecar.hub import Hub, HubSettings, serve
from sidecar.localsocket import LocalSocket

RUN_TOKEN_LIFE = 30 * 86400.0  # seconds; a laptop may sleep for days
WATCHER = "dev"  # our own controller id


async def serve_folder(
    folder: Path, run: str, claim: Claim, state: Path, port: int, roots: str
) -> int:
    """Until cancelled, or until the sidecar cannot be kept up (exit status 1)."""
    screen = Screen()
    hub = Hub(HubSettings(port=port, platform=True, run_token_life=RUN_TOKEN_LIFE))
    failure: SidecarFailed | None = None
    async with serve(hub) as address:
        minter = Minter(hub, run)
        run_token = await anyio.to_thread.run_sync(write_first_run_token, state, hub, run)
        settings = {
            "run": run,
            "endpoint": address.endpoint,
            "run_token_file": str(run_token),
            "workspace": str(folder),
            "roots": roots,
            "state": str(state),
            "environment": "inherited",
            "drain": str(DRAIN),
        }
        screen.title(f"sidecar dev: {folder} is run {run}, hub {address.client_url}")
        screen.hint("Try `sidecar exec -- ls` in another terminal. Ctrl-C ends this.")
        async with anyio.create_task_group() as group:
            group.start_soon(LocalSocket(claim.socket, {"token": minter.answer}, admin=True).run)
            await _until_there(claim.socket)
            claim.publish(_profile(folder, run, claim, state, address.client_url))
            group.start_soon(_show_events, minter, run, screen)
            try:
                await Supervisor(settings, screen).run()
            except SidecarFailed as error:
                failure = error
            group.cancel_scope.cancel()
    if failure is not None:
        screen.warn(f"{failure}: giving up")
        return 1
    return 0


def _profile(folder: Path, run: str, claim: Claim, state: Path, hub: str) -> Profile:
    return Profile(
        run=run,
        folder=str(folder),
        hub=hub,
        socket=str(claim.socket),
        state=str(state),
        pid=os.getpid(),
    )


async def _until_there(socket: Path) -> None:
    """If it cannot be made, its task fails and takes this one along."""
    while not await anyio.Path(socket).exists():  # noqa: ASYNC110 - bind tells nobody
        await anyio.sleep(0.01)


async def _show_events(minter: Minter, run: str, screen: Screen) -> None:
    """All of them, from the first; a sidecar that was started again begins a new series."""

    async def token() -> Token:
        answer = await minter.answer({"controller": WATCHER})
        return Token(answer["url"], answer["token"], answer["expires_at"])

    async with Controller.connect(CallableProvider(token), controller=WATCHER) as controller:
        with suppress(CallError):
            async with controller.events(run, after=Cursor(), reader=None) as events:
                async for item in events:
                    if isinstance(item, Event):
                        screen.event(item.name, describe_event(item), item.time)
