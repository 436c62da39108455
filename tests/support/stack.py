"""A whole system in one process: hub on a loopback port, sidecars, controllers.

Sockets, programs and files are real. `Stack.hub` has the faults (`drop`, `forget`, `close`,
`ack_delay`), `Stack.sidecars` the parts of each sidecar, to look into.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup
from relay import Relay, open_relay

import sidecar
from sidecar import runtime, serving
from sidecar.client import Controller, Run
from sidecar.clock import Clock, SystemClock
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.rootlist import parse_roots
from sidecar.hub import Hub, HubSettings, serve
from sidecar.parts import Parts
from sidecar.protocol.names import Scope, controller_grant, sidecar_grant
from sidecar.settings import Settings, variable

RUN = "demo"
PATIENCE = 10.0  # seconds until a test that waits for something has failed
ROOT = Path(sidecar.__path__[0]).parent
HANDS = ("-m", "sidecar", "hands")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that nobody announces."""
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.005)


class Stack:
    """Made by `open_stack`."""

    def __init__(
        self,
        hub: Hub,
        folder: Path,
        group: TaskGroup,
        exits: AsyncExitStack,
        states: AsyncExitStack,
    ) -> None:
        self.hub = hub
        self.workspace = folder / "workspace"
        self.sidecars: list[Parts] = []
        self._folder = folder
        self._group = group
        self._exits = exits
        self._states = states  # closed when all tasks have ended

    @property
    def sidecar(self) -> Parts:
        return self.sidecars[0]

    def settings(self, *, run: str = RUN, **options: Any) -> Settings:
        number = len(self.sidecars)
        self.workspace.mkdir(exist_ok=True)
        common = {
            "hub": self.hub.address.client_url,
            "token": self.hub.mint(sidecar_grant(run)),
            "workspace": str(self.workspace),
            "state": str(self._folder / f"state-{number}"),
        }
        return Settings(run=run, **(common | options))

    async def lose(self, *who: str) -> None:
        """Drop the connections of these user ids; the hub then has forgotten them (1008)."""
        for name in who:
            self.hub.forget(name)
        for name in who:
            await self.hub.drop(name)

    async def relay(self) -> Relay:
        """A way to the hub that can be cut. Lives as long as the stack."""
        return await self._exits.enter_async_context(open_relay(self.hub.port))

    async def start_sidecar(
        self, *, clock: Clock | None = None, hold_time: float | None = None, **options: Any
    ) -> Parts:
        """One more sidecar, which has said hello."""
        settings = self.settings(**options)
        folder = settings.state_folder
        folder.mkdir(mode=0o700)
        opened = LocalHands.open_root(settings.workspace, roots=parse_roots(settings.roots))
        hands = await self._exits.enter_async_context(opened)
        parts = runtime.assemble(settings, folder, clock or SystemClock())
        receipts = await serving.open_state(parts, self._states)
        serving.complete(parts, hands, receipts)
        if hold_time is not None:
            parts.means.processes.hold_time = hold_time
        self.sidecars.append(parts)
        self._group.start_soon(serving.take_calls, parts)
        self._group.start_soon(runtime.connect, parts)
        with anyio.fail_after(PATIENCE):
            await parts.exchange.first_hello.wait()
        return parts

    def url(self, controller: str, *, run: str = RUN, scope: Scope = Scope.FULL) -> str:
        """A client URL with the token of a controller."""
        token = self.hub.mint(controller_grant(controller, [run], scope))
        return f"{self.hub.address.client_url}?access_token={token}"

    async def controller(self, name: str = "me", **options: Any) -> Controller:
        """A controller that lives as long as the stack."""
        return await self._exits.enter_async_context(
            Controller.connect(self.url(name), controller=name, **options)
        )

    async def attach(self, name: str = "me", **options: Any) -> Run:
        """A controller of its own, attached."""
        controller = await self.controller(name, **options)
        return await controller.attach(RUN, timeout=PATIENCE)

    def start_child(
        self, *arguments: str, prefix: Sequence[str] = (), **environ: str
    ) -> subprocess.Popen[bytes]:
        """A Python program that finds the package; killed at the end if it still runs.

        `prefix`: the program that starts it in its own place, with its arguments."""
        child = subprocess.Popen(
            [*prefix, sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._exits.callback(_end_child, child)
        return child

    def start_sidecar_process(
        self, *, prefix: Sequence[str] = (), **options: Any
    ) -> subprocess.Popen[bytes]:
        """`sidecar run` as a program."""
        settings = self.settings(**options)
        self.sidecars.append(None)  # type: ignore[arg-type]  # nothing of it can be looked into
        environ = {
            variable(item.name): str(value)
            for item in fields(settings)
            if (value := getattr(settings, item.name)) != item.default
        }
        return self.start_child("-m", "sidecar", "run", prefix=prefix, **environ)

    def endpoint(self, *, run: str = RUN) -> dict[str, str]:
        """Settings of a sidecar that gets its tokens at the hub's platform endpoint."""
        first = self._folder / f"first-run-token-{len(self.sidecars)}"
        first.touch(mode=0o600)
        first.write_text(self.hub.mint_run_token(run))
        return {
            "hub": "",
            "token": "",
            "endpoint": self.hub.address.endpoint,
            "run_token_file": str(first),
        }

    async def start_hands_process(
        self, path: Path, *, prefix: Sequence[str] = (), program: Sequence[str] = HANDS
    ) -> subprocess.Popen[bytes]:
        """`sidecar hands` as a program, which listens."""
        self.workspace.mkdir(exist_ok=True)
        where = ("--socket", str(path), "--workspace", str(self.workspace))
        child = self.start_child(*program, *where, prefix=prefix)
        await until(lambda: is_listening(path) or child.poll() is not None)
        assert child.returncode is None
        return child


def is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        return probe.connect_ex(str(path)) == 0


def _end_child(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        pipe.close()
    child.wait()


@asynccontextmanager
async def open_stack(
    folder: Path, *, sidecars: int = 1, hub: Hub | None = None, **options: Any
) -> AsyncIterator[Stack]:
    """A hub and its sidecars; everything ends with the block."""
    hub = hub or Hub(HubSettings())
    failure: Exception | None = None
    async with serve(hub), AsyncExitStack() as states, anyio.create_task_group() as group:
        async with AsyncExitStack() as exits:
            stack = Stack(hub, folder, group, exits, states)
            try:
                for _ in range(sidecars):
                    await stack.start_sidecar(**options)
                yield stack
            except Exception as error:
                failure = error  # raised below, so that no task group wraps it
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
