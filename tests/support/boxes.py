"""A sidecar in a container, hardened as a security team asks, and the hub outside of it.

The image is of the kind that a user has: a bare Debian into which the folder /opt/sidecar was
copied. Everything of a `Box` ends with the block that opened it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from images import Images
from podman import HARDENED, Engine

from sidecar.client import Controller, Run
from sidecar.hub import Hub, HubSettings, serve
from sidecar.protocol.names import controller_grant, sidecar_grant

RUN = "demo"
UID = 10001
PATIENCE = 20.0  # seconds until what is waited for has failed
STATE = "/var/lib/sidecar"
AGENT_IMAGE = "localhost/agent:test"

CONTAINERFILE = f"""\
FROM {{bare}}
COPY --from={{sidecar}} /opt/sidecar /opt/sidecar
RUN install -d -m 0700 -o {UID} -g {UID} {STATE} && install -d -o {UID} -g {UID} /workspace
ENV SIDECAR_STATE={STATE}
USER {UID}:{UID}
WORKDIR /workspace
HEALTHCHECK --interval=1h CMD ["/opt/sidecar/bin/sidecar", "health"]
ENTRYPOINT ["/opt/sidecar/bin/sidecar"]
CMD ["run"]
"""


def build_agent_image(engine: Engine, images: Images, folder: Path) -> str:
    """Its name."""
    words = CONTAINERFILE.format(bare=images.bare, sidecar=images.sidecar)
    (folder / "Containerfile").write_text(words)
    engine.build(AGENT_IMAGE, folder, network=False)
    return AGENT_IMAGE


class Box:
    """Made by `open_box`. `flags` are podman's, of each container that is started."""

    def __init__(
        self, engine: Engine, image: str, folder: Path, hub: Hub, exits: AsyncExitStack
    ) -> None:
        self.name = f"box-{secrets.token_hex(4)}"
        self.hub = hub
        self.network = "host"
        self.workspace = _owned(folder / "workspace")
        self.flags = [
            *HARDENED,
            f"--volume={self.workspace}:/workspace",
            f"--volume={self.name}:{STATE}",
            f"--volume={folder / 'secret'}:/run/secret:ro",
        ]
        self.settings = {
            "SIDECAR_RUN": RUN,
            "SIDECAR_HUB": hub.address.client_url,
            "SIDECAR_TOKEN_FILE": "/run/secret/token",
        }
        self._engine = engine
        self._image = image
        self._exits = exits
        token = _owned(folder / "secret") / "token"
        token.touch(mode=0o600)
        token.write_text(hub.mint(sidecar_grant(RUN)))
        os.chown(token, UID, UID)

    async def podman(self, *words: str, check: bool = True) -> str:
        """What it printed on standard output."""
        run = partial(self._engine.run, *words, check=check)
        return (await anyio.to_thread.run_sync(run)).stdout.strip()

    async def start(self) -> None:
        """A new container, on the state of the one before it."""
        settings = [f"--env={name}={value}" for name, value in self.settings.items()]
        flags = (f"--name={self.name}", f"--network={self.network}", *self.flags, *settings)
        await self.podman("run", "--detach", *flags, self._image)

    async def remove(self) -> None:
        """The container, and not its state."""
        await self.podman("kill", "--signal=KILL", self.name, check=False)
        await self.podman("rm", "--force", self.name, check=False)

    async def close(self) -> None:
        await self.remove()
        await self.podman("volume", "rm", "--force", self.name, check=False)

    async def attach(self, name: str = "me") -> Run:
        """A controller of its own, attached to the sidecar in here."""
        token = self.hub.mint(controller_grant(name, [RUN]))
        where = f"{self.hub.address.client_url}?access_token={token}"
        connection = Controller.connect(where, controller=name, allow_plain=True)
        controller = await self._exits.enter_async_context(connection)
        return await controller.attach(RUN, timeout=PATIENCE)

    async def state(self) -> dict[str, Any]:
        """What podman says of the container."""
        inspected = await anyio.to_thread.run_sync(self._engine.inspect, self.name)
        state: dict[str, Any] = inspected["State"]
        return state

    async def ended(self) -> int:
        """Its exit status, once it has one."""
        with anyio.fail_after(PATIENCE):
            return int(await self.podman("wait", self.name))

    async def log(self) -> list[str]:
        """The lines that it printed."""
        run = partial(self._engine.run, "logs", self.name)
        done = await anyio.to_thread.run_sync(run)
        return (done.stdout + done.stderr).splitlines()

    async def health(self, *flags: str) -> int:
        """The exit status of `sidecar health`, run in the container."""
        words = ("exec", self.name, "/opt/sidecar/bin/sidecar", "health", *flags)
        run = partial(self._engine.run, *words, check=False)
        return (await anyio.to_thread.run_sync(run)).returncode


def _owned(folder: Path) -> Path:
    folder.mkdir()
    os.chown(folder, UID, UID)
    return folder


@asynccontextmanager
async def open_box(
    engine: Engine,
    image: str,
    folder: Path,
    *flags: str,
    hub: Hub | None = None,
    network: str = "host",
    **settings: str,
) -> AsyncIterator[Box]:
    """A sidecar that runs, with these `SIDECAR_*` besides what it needs, and the hub it is at."""
    hub = hub or Hub(HubSettings())
    async with serve(hub), AsyncExitStack() as exits:
        box = Box(engine, image, folder, hub, exits)
        box.flags += flags
        box.network = network
        box.settings |= {f"SIDECAR_{name.upper()}": value for name, value in settings.items()}
        try:
            await box.start()
            yield box
        finally:
            await exits.aclose()
            with anyio.CancelScope(shield=True):
                await box.close()


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait for a condition that nobody announces."""
    with anyio.fail_after(PATIENCE):
        while not await condition():  # noqa: ASYNC110
            await anyio.sleep(0.05)


async def names_of_processes(run: Run) -> dict[int, str]:
    """What runs and what is a zombie in the container, but who looks, by process id."""
    script = 'for p in [0-9]*; do read -r n <$p/comm && echo "$p $n"; done 2>/dev/null'
    listed = (await run.exec(["bash", "-c", f"cd /proc; {script}"])).check().stdout.decode()
    found = [line.split(maxsplit=1) for line in listed.splitlines()]
    return {int(pid): name for pid, name in found if name != "bash"}


async def events_of(run: Run) -> list[tuple[int, str]]:
    """All that there are: number and name."""
    found = []
    last = (await run.info())["events"]["last"]
    async for event in run.events():
        found.append((event.seq, event.name))
        if event.seq >= last:
            break
    return found
