"""`examples/docker`: what its files say is typed here, and a program is run in what comes of it.

The public names of base images stand for images made on the spot, in the storage of these tests.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import yaml
from images import Images
from podman import Engine

from sidecar.client import Controller, Run
from sidecar.hub import Hub, serve
from sidecar.protocol.names import controller_grant, sidecar_grant

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples/docker"
RUN = "demo-1"
CORE, NODE = 10001, 1000  # users
TIME = 60  # seconds

NODE_BASE = """\
FROM {bare}
RUN apt-get update -q && apt-get install -q -y --no-install-recommends nodejs \\
    && rm -rf /var/lib/apt/lists/* && useradd --create-home --uid 1000 node
"""


def stand_in(engine: Engine, folder: Path, *, build: Sequence[str], run: Sequence[str]) -> Path:
    """A program `podman` that works in the storage of these tests; `build` and `run` are flags
    that are not in the examples, because most people have a network and registries."""
    program = shlex.join([str(shutil.which("podman")), *engine.command()[1:]])
    script = folder / "podman"
    script.write_text(
        "#!/bin/sh\nverb=$1\n[ $# -eq 0 ] || shift\ncase $verb in\n"
        f'build) set -- {shlex.join(build)} "$@" ;;\nrun) set -- {shlex.join(run)} "$@" ;;\n'
        f'esac\nexec {program} "$verb" "$@"\n'
    )
    script.chmod(0o755)
    return script


@pytest.fixture(scope="module")
def bases(engine: Engine, images: Images, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The images that the examples stand on, by the names that they have there."""
    folder = tmp_path_factory.mktemp("node")
    (folder / "Containerfile").write_text(NODE_BASE.format(bare=images.bare))
    engine.build("docker.io/library/node:22-slim", folder)
    engine.run("tag", images.bare, "docker.io/library/debian:12-slim")
    engine.run("tag", images.sidecar, "localhost/sidecar:latest")


def told(path: Path, beginning: str) -> str:
    """The one command in a comment or a block of `path` that begins so, over all of its lines."""
    lines = [line.removeprefix("#").strip() for line in path.read_text().splitlines()]
    [first] = [n for n, line in enumerate(lines) if line.startswith(beginning)]
    last = first
    while lines[last].endswith("\\"):
        last += 1
    return " ".join(line.removesuffix("\\") for line in lines[first : last + 1])


@dataclass(frozen=True, slots=True)
class Desk:
    """Where the commands are typed: a folder with a token, and a hub to dial."""

    folder: Path
    hub: Hub
    environ: dict[str, str]

    def give_token(self, uid: int) -> None:
        token = self.folder / "token"
        token.touch(mode=0o400)
        token.write_text(
            f"{self.hub.address.client_url}?access_token={self.hub.mint(sidecar_grant(RUN))}"
        )
        os.chown(token, uid, uid)

    async def build(self, path: Path, name: str) -> None:
        """As the head of `path` says, in the root of the repository."""
        command = told(path, f"podman build -t {name} ")
        work = partial(
            subprocess.run,
            ["bash", "-ec", command],
            cwd=ROOT,
            env=self.environ,
            check=True,
            capture_output=True,
            timeout=300,
        )
        await anyio.to_thread.run_sync(work)

    @contextmanager
    def running(self, path: Path) -> Iterator[subprocess.Popen[str]]:
        """As the head of `path` says; ended by SIGTERM if it has not ended before."""
        command = ["bash", "-c", "exec " + told(path, "podman run ")]
        pipe = subprocess.PIPE
        with (
            (self.folder / "log").open("w") as log,
            subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environ,
                stdin=pipe,
                stdout=pipe,
                stderr=log,
                text=True,
            ) as process,
        ):
            try:
                yield process
            finally:
                process.terminate()

    @asynccontextmanager
    async def attached(self) -> AsyncIterator[Run]:
        url = f"{self.hub.address.client_url}?access_token={self._mint()}"
        async with Controller.connect(url, controller="me") as controller:
            yield await controller.attach(RUN, timeout=TIME)

    def _mint(self) -> str:
        return self.hub.mint(controller_grant("me", [RUN]))

    async def ended(self, process: subprocess.Popen[str]) -> int:
        return await anyio.to_thread.run_sync(partial(process.wait, TIME))


@pytest.fixture
async def desk(engine: Engine, bases: None, tmp_path: Path) -> AsyncIterator[Desk]:
    name = f"example-{os.getpid()}"
    stand_in(
        engine,
        tmp_path,
        build=["--network=none", "--pull=never", "--format=docker"],
        run=["--network=host", f"--name={name}"],
    )
    environ = {**engine.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    hub = Hub()
    async with serve(hub):
        yield Desk(tmp_path, hub, environ)
    engine.remove(name)


async def trust_of(run: Run) -> str:
    return str((await run.info())["trust"])


async def test_a_bare_debian_with_a_sidecar_in_two_lines(desk: Desk) -> None:
    path = EXAMPLES / "debian/Containerfile"
    assert told(path, "podman run ") == told(EXAMPLES / "README.md", "podman run ")
    await desk.build(path, "sandbox")
    desk.give_token(CORE)
    with desk.running(path) as process:
        async with desk.attached() as run:
            assert (await run.exec("id -u; pwd")).stdout == b"10001\n/workspace\n"
            assert (await run.exec("python3 -V")).status == 127
            assert b"Read-only" in (await run.exec("touch /etc/x")).stderr
            await run.files.write("notes.txt", b"words")
            assert (await run.exec(["cat", "/workspace/notes.txt"])).stdout == b"words"
            assert await trust_of(run) == "shared"
        process.terminate()
        assert await desk.ended(process) == 0


async def test_a_node_image_whose_agent_the_platform_starts(desk: Desk) -> None:
    path = EXAMPLES / "node/Containerfile"
    await desk.build(path, "agent")
    desk.give_token(NODE)
    with desk.running(path) as process:
        async with desk.attached() as run:
            done = await run.exec(["node", "/opt/agent/agent.mjs"], input=b"hello\n")
            assert b'"uid":1000,"heard":"hello"' in done.stdout, done.stderr
        process.terminate()
        assert await desk.ended(process) == 0


async def test_an_image_that_starts_as_root_keeps_the_token_from_its_agent(desk: Desk) -> None:
    path = EXAMPLES / "supervised/Containerfile"
    await desk.build(path, "supervised")
    desk.give_token(CORE)
    with desk.running(path) as process:
        async with desk.attached() as run:
            done = await run.exec("id -u; cat /run/secrets/token; ls /var/lib/sidecar")
            assert done.stdout == b"1000\n"
            assert done.stderr.count(b"Permission denied") == 2
            assert await trust_of(run) == "isolated"
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("typed\n")
        process.stdin.close()  # the end of its input is the end of the agent, and of all
        assert await desk.ended(process) == 0
        assert '"uid":1000,"heard":"typed"' in process.stdout.read()


class Compose:
    """podman-compose on our compose.yaml, with networks for which no bridge is needed."""

    def __init__(self, engine: Engine, desk: Desk) -> None:
        folder = desk.folder / "compose"
        folder.mkdir()
        podman = stand_in(engine, folder, build=["--network=none", "--pull=never"], run=[])
        networks = folder / "networks.yaml"
        modes = {"core": "host", "hands": "none"}
        networks.write_text(
            yaml.dump({"services": {name: {"network_mode": mode} for name, mode in modes.items()}})
        )
        self._words = [sys.executable, "-m", "podman_compose", "--in-pod=false"]
        self._words += ["--podman-path", str(podman)]
        self._words += ["-f", str(EXAMPLES / "compose.yaml"), "-f", str(networks)]
        self._environ = {
            **engine.environ,
            "SIDECAR_RUN": RUN,
            "SIDECAR_TOKEN": str(desk.folder / "token"),
        }

    async def __call__(self, *words: str) -> str:
        work = partial(
            subprocess.run,
            [*self._words, *words],
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=TIME * 2,
        )
        done = await anyio.to_thread.run_sync(work)
        assert done.returncode == 0, done.stderr
        return done.stdout


async def test_core_and_hands_in_two_containers(engine: Engine, desk: Desk) -> None:
    desk.give_token(CORE)
    compose = Compose(engine, desk)
    try:
        await compose("up", "--build", "--detach")
        async with desk.attached() as run:
            done = await run.exec(["node", "/opt/agent/agent.mjs"], input=b"hello\n")
            assert b'"uid":1000,"heard":"hello"' in done.stdout, done.stderr
            assert await trust_of(run) == "isolated"
            await run.files.write("notes.txt", b"words")
            done = await run.exec(
                "cat /workspace/notes.txt; ls /run/secrets /run/sidecar; ls /proc"
            )
            assert done.stdout.startswith(b"words/run/sidecar:\nhands.sock\n1\n")
            assert done.stderr == b"ls: cannot access '/run/secrets': No such file or directory\n"
        drain = re.search(r"`docker compose (exec core .+)`", (EXAMPLES / "README.md").read_text())
        assert drain is not None
        words = drain[1].split()
        assert "nothing left over" in await compose("exec", "-T", *words[1:])
        assert engine.output("wait", "sandbox_core_1") == "0"
    finally:
        await compose("down", "--volumes")
    assert engine.output("ps", "--all", "--quiet", "--filter=name=sandbox_") == ""


def test_each_service_is_hardened() -> None:
    services: dict[str, Any] = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())["services"]
    assert set(services) == {"core", "hands"}
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["pids_limit"] > 0
        assert service["mem_limit"]
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
        assert not set(service) & {"privileged", "cap_add", "pid", "ipc", "ports", "devices"}
    assert services["core"]["secrets"] == ["token"]
    assert "secrets" not in services["hands"]
    assert [
        name for name in services if any("workspace:" in v for v in services[name]["volumes"])
    ] == ["hands"]


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.rglob("Containerfile")), ids=lambda p: p.parent.name
)
def test_the_two_lines_are_the_same_everywhere(path: Path) -> None:
    text = path.read_text()
    assert "\nCOPY --from=sidecar /opt/sidecar /opt/sidecar\nENTRYPOINT [" in text
    assert "\nFROM ${SIDECAR_IMAGE} AS sidecar\n" in text
