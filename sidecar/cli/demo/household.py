"""A hub, a hands and a sidecar, each a process that can be killed with -9 and started again.

All that they have to remember lies in files: the hub its keys and the runs of its platform
endpoint, the sidecar its state folder. Killed, they are not asked to tidy up.
"""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from anyio.abc import Process

from sidecar.cli import childprocess
from sidecar.cli.demo.child import END, TAIL, DemoError
from sidecar.cli.keyfile import HubKey, read_key, read_platform_key
from sidecar.cli.platformkey import start_run
from sidecar.client import CallableProvider, Token
from sidecar.hub.tokens import Tokens
from sidecar.protocol.names import controller_grant

HOST = "127.0.0.1"
RUN = "lasting"
CONTROLLER = "witness"
READY = 15.0  # seconds that each may take to come up
LOOK = 0.02  # seconds between two looks whether it has
TOKEN_LIFE = 600.0  # seconds, of the controller's own token

# Dies with us, however we end, like the sidecar of `--with-parent`.
_BOUND = """
import runpy, sys
from sidecar.cli.bond import die_with
die_with(int(sys.argv.pop(1)))
runpy.run_module("sidecar", run_name="__main__", alter_sys=True)
"""


class Household:
    """Made by `open_household`. Each may be killed and started."""

    def __init__(self, folder: Path, token_life: float) -> None:
        self.workspace = folder / "workspace"
        self._folder = folder
        self._token_life = token_life
        self._port = 0
        self._processes: dict[str, Process] = {}

    @property
    def pid(self) -> int:
        """Of the sidecar."""
        return self._processes["sidecar"].pid

    async def start_hub(self) -> None:
        """At the port that it had, with the keys and the runs that it knew."""
        key, platform_key = self._folder / "hub.key", self._folder / "platform.key"
        is_first = self._port == 0
        await self._start(
            "hub",
            *("hub", "--port", str(self._port), "--token-life", str(self._token_life)),
            *("--key-file", str(key), "--platform-key-file", str(platform_key)),
            *("--platform-state", str(self._folder / "platform.state"), "--faults"),
        )
        if is_first:
            await self._until("hub", lambda: key.exists() and platform_key.exists())
            found = await anyio.to_thread.run_sync(read_platform_key, platform_key)
            self._port = urlsplit(found.endpoint).port or 0
        await self._until("hub", lambda: _is_listening(self._port))
        await anyio.to_thread.run_sync(_enforce_expiry, self._port, await self._key())

    async def start_hands(self) -> None:
        socket = self._folder / "hands.sock"
        where = ("--socket", str(socket), "--workspace", str(self.workspace))
        await self._start("hands", "hands", *where)
        await self._until("hands", socket.exists)

    async def start_sidecar(self) -> None:
        """With what is in its state folder."""
        first = self._folder / "run-token"
        if not first.exists():
            await anyio.to_thread.run_sync(self._ask_for_run_token, first)
        settings = {
            "run": RUN,
            "endpoint": f"http://{HOST}:{self._port}/platform",
            "run_token_file": str(first),
            "hands": str(self._folder / "hands.sock"),
            "state": str(self._folder / "state"),
        }
        await self._start("sidecar", "run", **settings)

    async def kill(self, name: str) -> None:
        """With -9: it gets no chance to write or say anything."""
        process = self._processes.pop(name)
        process.kill()
        await process.wait()
        await process.aclose()

    def provider(self) -> CallableProvider:
        """Tokens for the controller, signed with the hub's key."""

        async def sign() -> Token:
            key = await self._key()
            grant = controller_grant(CONTROLLER, [RUN])
            audience = f"{key.endpoint}/client/hubs/sidecar"
            tokens, now = Tokens(key.access_key), time.time()
            token = tokens.mint_access(grant, audience, lifetime=TOKEN_LIFE, now=now)
            return Token(f"ws{audience.removeprefix('http')}", token, now + TOKEN_LIFE)

        return CallableProvider(sign)

    async def end(self) -> None:
        """The sidecar first, which ends its programs and says goodbye to the others."""
        for name in ("sidecar", "hands", "hub"):
            if name in self._processes:
                await childprocess.end(self._processes.pop(name), grace=END)

    # making them --------------------------------------------------------------------------

    async def _start(self, name: str, *arguments: str, **settings: str) -> None:
        command = [*childprocess.interpreter(), "-c", _BOUND, str(os.getpid()), *arguments]
        with self._log(name).open("ab") as output:
            self._processes[name] = await childprocess.start(command, settings, output)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    async def _until(self, name: str, condition: Callable[[], bool]) -> None:
        """Look until it is so. Raises `DemoError` with the last words of who ended before."""
        with anyio.move_on_after(READY):
            while self._processes[name].returncode is None:
                if await anyio.to_thread.run_sync(condition):
                    return
                await anyio.sleep(LOOK)
        log = await anyio.Path(self._log(name)).read_bytes()
        words = log[-TAIL:].decode(errors="replace").strip()
        raise DemoError(f"the {name} did not come up: {words}")

    async def _key(self) -> HubKey:
        return await anyio.to_thread.run_sync(read_key, self._folder / "hub.key")

    def _ask_for_run_token(self, path: Path) -> None:
        answer = start_run(read_platform_key(self._folder / "platform.key"), RUN)
        path.touch(mode=0o600)
        path.write_text(answer["run_token"])


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _enforce_expiry(port: int, key: HubKey) -> None:
    """Have the hub end each connection when its token lapses, which not every hub does."""
    connection = http.client.HTTPConnection(HOST, port, timeout=READY)
    headers = {"Authorization": f"Bearer {key.access_key}"}
    connection.request("POST", "/faults/enforce_expiry", b'{"on": true}', headers)
    status = connection.getresponse().status
    connection.close()
    if status != 200:
        raise DemoError(f"the hub does not enforce the expiry of tokens: HTTP {status}")


@asynccontextmanager
async def open_household(folder: Path, *, token_life: float) -> AsyncIterator[Household]:
    """Start all three in `folder`; tokens of the sidecar live `token_life` seconds."""
    household = Household(folder, token_life)
    await anyio.to_thread.run_sync(_furnish, folder, household.workspace)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(household.end)
        await household.start_hub()
        await household.start_hands()
        await household.start_sidecar()
        yield household


def _furnish(folder: Path, workspace: Path) -> None:
    folder.mkdir(mode=0o700)
    workspace.mkdir()
