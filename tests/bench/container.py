"""A sidecar in a container against one beside it that is in none.

Containers are hardened as in tests/containers, and share our network, so that a network of their
own is not what is measured. Images are built first, which takes a minute or two; with
`TEST_PODMAN_DIR=DIR` they stay in DIR for the next time.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from sidecar.client import Controller, Run
from sidecar.protocol.names import controller_grant, sidecar_grant
from tests.bench.life import RUN, Ear, listening, started_sidecar
from tests.bench.measure import Scale, alternate, interleave, ms, ratio
from tests.bench.programs import TRUE
from tests.bench.report import Row
from tests.bench.stage import PATIENCE, HubAt, hub_process, stage

SUPPORT = Path(__file__).parents[1] / "support"
if str(SUPPORT) not in sys.path:  # pytest has it there (pyproject.toml)
    sys.path.append(str(SUPPORT))

from boxes import STATE, UID, build_agent_image  # noqa: E402
from images import Images, build_images  # noqa: E402
from podman import HARDENED, TOOLS, Engine  # noqa: E402

AGENT_UID = 10002  # where core and hands are apart
SIDECAR = "/opt/sidecar/bin/sidecar"
HANDS = "/run/hands/hands.sock"
WALK = (
    "import os; print(sum(os.lstat(os.path.join(at, name)).st_size"
    " for at, _, names in os.walk('/opt/sidecar') for name in names))"
)


async def container(scale: Scale) -> list[Row]:
    """Image size, start to `hello`, and `exec` across the border of a container."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0 or not scale.may_install:
        what = f"not installed: images, for want of {', '.join(missing) or 'root or time'}"
        return [Row("container", what, None)]
    kept = os.environ.get("TEST_PODMAN_DIR")
    engine = Engine(Path(kept or tempfile.mkdtemp(prefix="podman-")))
    try:
        with tempfile.TemporaryDirectory() as folder:
            images = build_images(engine, Path(folder))
            agent = build_agent_image(engine, images, Path(folder))
        return await in_containers(scale, engine, images, agent)
    finally:
        if not kept:
            engine.close()


async def in_containers(scale: Scale, engine: Engine, images: Images, agent: str) -> list[Row]:
    """The rows, of images that are there."""
    rows = [_size(engine, images, agent)]
    async with hub_process() as hub:
        rows += await _start(scale, engine, hub, agent)
        rows += await _exec(scale, engine, hub, images, agent)
    return rows


def _size(engine: Engine, images: Images, agent: str) -> Row:
    [all_of_it, debian, both] = [
        int(engine.inspect(name)["Size"]) / 1e6 for name in (images.sidecar, images.bare, agent)
    ]
    python = ("--entrypoint=/opt/sidecar/libexec/python3", images.sidecar, "-c", WALK)
    folder = int(engine.output("run", "--rm", "--network=none", *python)) / 1e6
    sides = {"its files": folder, "a bare Debian": debian, "that with the folder": both}
    behind = {name: f"{size:.1f} MB" for name, size in sides.items()}
    return Row("container", "image `sidecar`", all_of_it, unit="MB", sides=behind)


# start -------------------------------------------------------------------------------------


async def _start(scale: Scale, engine: Engine, hub: HubAt, agent: str) -> list[Row]:
    async with listening(hub) as ear:

        async def contained() -> float:
            with tempfile.TemporaryDirectory() as folder:
                words = _words(hub, Path(folder), RUN.run)
                return await _time_to_hello(engine, ear, [*words, agent])

        async def beside() -> float:
            began = time.perf_counter()
            with started_sidecar(hub):
                await ear.hear()
                return time.perf_counter() - began

        async def floor() -> float:
            began = time.perf_counter()
            words = ("run", "--rm", "--network=host", *HARDENED, "--entrypoint=/bin/true", agent)
            await anyio.to_thread.run_sync(engine.run, *words)
            return time.perf_counter() - began

        sides = {"container": contained, "process": beside, "podman run true": floor}
        for side in sides.values():
            await side()  # once, so that caches are as they will be
        found = await interleave(scale.starts, sides)
    behind = {name: ms(values) for name, values in found.items()}
    both = [a + b for a, b in zip(found["process"], found["podman run true"], strict=True)]
    what = "start of a container to hello / that of a process, and `podman run true`"
    value = ratio(found["container"], both)
    return [Row("container", what, value, sides=behind, rounds=scale.starts)]


async def _time_to_hello(engine: Engine, ear: Ear, words: Sequence[str]) -> float:
    """From the start of podman, which itself returns later than the sidecar says hello."""
    began = time.perf_counter()
    with _removed(engine) as name:
        async with anyio.create_task_group() as group:
            run = partial(engine.run, "run", "--detach", f"--name={name}", *words)
            group.start_soon(anyio.to_thread.run_sync, run)
            await ear.hear()
            took = time.perf_counter() - began
    return took


# exec --------------------------------------------------------------------------------------


async def _exec(scale: Scale, engine: Engine, hub: HubAt, images: Images, agent: str) -> list[Row]:
    async with (
        stage(hub) as bare,
        stage(hub, run="apart", is_apart=True) as apart,
        _contained(engine, hub, agent, "one") as one,
        _two_containers(engine, hub, images, agent, "two") as two,
    ):
        runs = {
            "process": bare.run,
            "container": one,
            "two processes": apart.run,
            "two containers": two,
        }
        works = {name: partial(run.exec, TRUE) for name, run in runs.items()}
        for work in works.values():
            (await work()).check()
        found = await alternate(scale, works)
    behind = {name: ms(values) for name, values in found.items()}
    rows = []
    for above, below in (
        ("container", "process"),
        ("two containers", "two processes"),
        ("two containers", "container"),
    ):
        value = ratio(found[above], found[below])
        what = f"exec.run true, {above} / {below}"
        rows.append(Row("container", what, value, sides=behind, rounds=scale.rounds))
    return rows


@asynccontextmanager
async def _contained(engine: Engine, hub: HubAt, agent: str, run: str) -> AsyncIterator[Run]:
    with tempfile.TemporaryDirectory() as folder, _removed(engine) as name:
        words = _words(hub, Path(folder), run)
        engine.run("run", "--detach", f"--name={name}", *words, agent)
        async with _attached(hub, run) as attached:
            yield attached


@asynccontextmanager
async def _two_containers(
    engine: Engine, hub: HubAt, images: Images, agent: str, run: str
) -> AsyncIterator[Run]:
    """Core in one, of the image that has nothing else; hands in the agent's. They share a folder
    for the socket."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as exits:
        folder = Path(name)
        shared = f"--volume={_owned(folder / 'hands', AGENT_UID)}:{Path(HANDS).parent}"
        core = [*_words(hub, folder, run, hands=HANDS), shared, images.sidecar]
        work = f"--volume={_owned(folder / 'agent', AGENT_UID)}:/workspace"
        user = f"--user={AGENT_UID}:{AGENT_UID}"
        command = ("hands", f"--socket={HANDS}", "--workspace=/workspace", f"--core-uid={UID}")
        hands = ["--network=none", *HARDENED, user, work, shared, agent, *command]
        for words in (hands, core):
            title = exits.enter_context(_removed(engine))
            engine.run("run", "--detach", f"--name={title}", *words)
        async with _attached(hub, run) as attached:
            yield attached


@asynccontextmanager
async def _attached(hub: HubAt, run: str) -> AsyncIterator[Run]:
    url = hub.client_url(controller_grant(run, [run]))
    async with Controller.connect(url, controller=run) as controller:
        yield await controller.attach(run, timeout=PATIENCE)


def _words(hub: HubAt, folder: Path, run: str, **settings: str) -> list[str]:
    """Of a container with a sidecar in it; `folder` is what it may write to."""
    known: Mapping[str, str] = {
        "run": run,
        "hub": hub.url,
        "token": hub.token(sidecar_grant(run)),
        "state": STATE,
        "log_level": "warning",
        **settings,
    }
    words = ["--network=host", *HARDENED, f"--user={UID}:{UID}"]
    words += [f"--volume={_owned(folder / 'work', UID)}:/workspace"]
    words += [f"--volume={_owned(folder / 'state', UID)}:{STATE}"]
    return words + [f"--env=SIDECAR_{name.upper()}={value}" for name, value in known.items()]


def _owned(folder: Path, uid: int) -> Path:
    folder.mkdir(mode=0o755)
    os.chown(folder, uid, uid)
    return folder


@contextmanager
def _removed(engine: Engine) -> Iterator[str]:
    """The name of a container that is gone after the block."""
    name = f"bench-{secrets.token_hex(4)}"
    try:
        yield name
    finally:
        engine.remove(name)
