"""The same hardened container on a real Docker Engine, where there is one."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from boxes import names_of_processes, open_box, until
from dockerengine import TOOLS, DockerEngine, open_docker
from podman import Engine

from sidecar.hub import Hub, HubSettings

pytestmark = pytest.mark.optional  # who tests with podman need not have Docker as well


@pytest.fixture(scope="module")
def docker(engine: Engine, agent_image: str) -> Iterator[DockerEngine]:
    """With the image in it that podman built."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    folder = Path(tempfile.mkdtemp(prefix="docker-"))
    archive = folder / "image.tar"
    with open_docker(folder) as docker:
        engine.run("save", "--format=docker-archive", f"--output={archive}", agent_image)
        docker.run("load", f"--input={archive}")
        yield docker


async def test_it_serves_and_reaps_and_ends_as_told(
    docker: DockerEngine, agent_image: str, tmp_path: Path
) -> None:
    async with open_box(docker, agent_image, tmp_path) as box:
        run = await box.attach()
        ended = await run.exec(["sh", "-c", "(setsid sleep 0.1 &); echo out; exit 7"])
        assert (ended.status, ended.stdout) == (7, b"out\n")
        eaten = await run.exec(["sh", "-c", "a=x; while :; do a=$a$a; done"])
        assert (eaten.status, eaten.signal) == (None, signal.SIGKILL)

        async def is_alone() -> bool:
            return await names_of_processes(run) == {1: "sidecar"}

        await until(is_alone)
        await box.podman("stop", "--time=20", box.name)
        assert await box.ended() == 0


async def test_the_engine_follows_its_health(
    docker: DockerEngine, agent_image: str, tmp_path: Path
) -> None:
    hub = Hub(HubSettings())
    flags = ("--health-interval=1s", "--health-retries=1")

    async with open_box(docker, agent_image, tmp_path, *flags, hub=hub) as box:
        await box.attach()

        async def is_healthy() -> bool:
            return bool((await box.state())["Health"]["Status"] == "healthy")

        async def is_unhealthy() -> bool:
            return bool((await box.state())["Health"]["Status"] == "unhealthy")

        await until(is_healthy)
        async with anyio.create_task_group() as group:
            group.start_soon(hub.leave, 600)
            await until(is_unhealthy)
            group.cancel_scope.cancel()
        assert (await box.state())["Running"]
