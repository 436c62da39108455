"""The processes of one seed: hub, hands, core and controller, with a proxy before the hub.

Each writes its log to a file of its own in the seed's folder. All of them die with us; in good
order they are ended by their process ids, and by nothing broader.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio

import sidecar
from sidecar.cli.keyfile import write_key
from sidecar.hub.tokens import Tokens
from sidecar.protocol.names import Grant, controller_grant, sidecar_grant
from tests.chaos.proxy import Link
from tests.chaos.workload import SOURCES, content, source_sizes

ROOT = Path(sidecar.__path__[0]).parent
RUN, CONTROLLER = "chaos", "judge"
PATIENCE = 20.0  # seconds for a process to come up or to end
LIFETIME = 600.0  # seconds that a good token lasts
DRAIN = 0.3  # seconds; nobody reads any more when core is told to end
WORKERS = 4
OPERATIONS = 100_000  # more than a seed gets to


class Child:
    """A process of ours."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.process = process
        self.killed = False

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """As the kernel does it when memory is short: without a word."""
        self.killed = True
        self.process.kill()
        self.process.wait()

    async def end(self, *, patience: float = PATIENCE) -> int | None:
        """SIGTERM; the exit status, or None if it had to be killed."""
        if self.is_alive:
            self.process.terminate()
        if not await self.ended(patience):
            self.kill()
            return None
        return self.process.returncode

    async def ended(self, patience: float) -> bool:
        with anyio.move_on_after(patience):
            while self.is_alive:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        return not self.is_alive


class Stage:
    """Where one seed plays. Start what is needed in the order of `start_all`."""

    host = "127.0.0.1"  # at which the hub listens
    core_prefix: tuple[str, ...] = ()  # the program that starts core in its own place
    core_settings: Mapping[str, str] = {}

    def __init__(self, folder: Path, seed: int, *, is_apart: bool, defect: str = "none") -> None:
        self.folder = folder
        self.seed = seed
        self.is_apart = is_apart
        self.workspace = folder / "workspace"
        self.state = folder / "state"
        self.books = folder / "books"
        self.logs = folder / "logs"
        self.twin = folder / "twin"
        self.children: dict[str, Child] = {}
        self.starts: dict[str, list[float]] = {}
        self._defect = defect
        self._key = secrets.token_urlsafe(32)
        self.hub_port = free_port()
        target = (self.host, self.hub_port)
        self.links = {name: Link(name, target) for name in ("core", "controller")}

    def furnish(self) -> None:
        """Folders, the hub's key, files to be read, tokens."""
        for path in (self.workspace, self.state, self.books, self.logs):
            path.mkdir(mode=0o700, exist_ok=True)
        write_key(self.folder / "hub.key", f"Endpoint={self._endpoint};AccessKey={self._key};")
        for n, size in zip(range(SOURCES), source_sizes(self.seed), strict=True):
            name = f"source-{n}"
            (self.workspace / name).write_bytes(content(self.seed, name, size))
        self.write_tokens()

    @property
    def _endpoint(self) -> str:
        return f"http://{self.host}:{self.hub_port}"

    def url(self, name: str) -> str:
        """Where a program dials: its link."""
        return f"ws://127.0.0.1:{self.links[name].port}/client/hubs/sidecar"

    def write_tokens(self, *, lifetime: float = LIFETIME) -> None:
        """Tokens in the files that are read at every dial; a negative lifetime has lapsed."""
        grants = {"core": sidecar_grant(RUN), "controller": controller_grant(CONTROLLER, [RUN])}
        for name, grant in grants.items():
            path = self.folder / f"token-{name}"
            beside = path.with_suffix(".new")
            beside.write_text(self._mint(grant, name, lifetime))
            beside.chmod(0o600)
            beside.replace(path)

    def _mint(self, grant: Grant, name: str, lifetime: float) -> str:
        audience = f"http{self.url(name).removeprefix('ws')}"
        now = time.time() + min(lifetime, 0.0)
        return Tokens(self._key).mint_access(grant, audience, lifetime=abs(lifetime), now=now)

    # processes ----------------------------------------------------------------------------

    async def start_all(self) -> None:
        self.start_hub()
        if self.is_apart:
            self.start_hands()
        self.start_core()
        self.start_controller()

    def start_hub(self) -> None:
        port, key = str(self.hub_port), str(self.folder / "hub.key")
        where = ("--host", self.host, "--port", port)
        self._start("hub", "hub", *where, "--key-file", key, "--faults")

    def tell_hub(self, fault: str, **body: Any) -> None:
        """Have the hub do it: see `sidecar.hub.faultrest`. Harmless if there is no hub."""
        connection = http.client.HTTPConnection(self.host, self.hub_port, timeout=2.0)
        headers = {"Authorization": f"Bearer {self._key}"}
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("POST", f"/faults/{fault}", json.dumps(body), headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"{fault}: {answer.status} {answer.read()!r}")

    def start_hands(self) -> None:
        options = ("--socket", str(self.folder / "hands.sock"), "--workspace", str(self.workspace))
        self._start("hands", "hands", *options, defect=self._defect)

    def start_core(self) -> Child:
        """`sidecar run`, with the hands that there are."""
        hands = {"SIDECAR_HANDS": str(self.folder / "hands.sock")} if self.is_apart else {}
        return self._start_core("core", self.workspace, self.state, hands)

    def start_twin(self) -> Child:
        """A sidecar of the same run that is older, in a place of its own."""
        for path in (self.twin, self.twin / "workspace"):
            path.mkdir(mode=0o700, exist_ok=True)
        older = {"SIDECAR_GENERATION": "1"}
        return self._start_core("twin", self.twin / "workspace", self.twin / "state", older)

    def start_intruder(self) -> Child:
        """One that wants the same state folder."""
        return self._start_core("twin", self.workspace, self.state, {})

    def _start_core(
        self, name: str, workspace: Path, state: Path, others: Mapping[str, str]
    ) -> Child:
        environment = {
            "SIDECAR_RUN": RUN,
            "SIDECAR_HUB": self.url("core"),
            "SIDECAR_TOKEN_FILE": str(self.folder / "token-core"),
            "SIDECAR_WORKSPACE": str(workspace),
            "SIDECAR_STATE": str(state),
            "SIDECAR_GENERATION": "2",
            "SIDECAR_DRAIN": str(DRAIN),
            **self.core_settings,
            **others,
        }
        return self._start(
            name, "run", environment=environment, defect=self._defect, prefix=self.core_prefix
        )

    def start_controller(self) -> Child:
        settings = {
            "folder": str(self.books),
            "seed": self.seed,
            "workers": WORKERS,
            "operations": OPERATIONS,
            "run": RUN,
            "controller": CONTROLLER,
            "token_file": str(self.folder / "token-controller"),
            "url": self.url("controller"),
        }
        path = self.folder / "controller.json"
        path.write_text(json.dumps(settings))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return self._start("controller", "controller", str(path), defect=self._defect, **pipes)

    def _start(
        self,
        name: str,
        *arguments: str,
        environment: dict[str, str] | None = None,
        defect: str = "none",
        prefix: Sequence[str] = (),
        **pipes: Any,
    ) -> Child:
        starts = self.starts.setdefault(name, [])
        starts.append(time.monotonic())
        pipes.setdefault("stdin", subprocess.DEVNULL)
        with (self.logs / f"{name}.{len(starts)}.log").open("wb") as log:
            pipes.setdefault("stdout", log)
            launch = [sys.executable, "-m", "tests.chaos.launch", str(os.getpid()), defect]
            process = subprocess.Popen(
                [*prefix, *launch, *arguments],
                cwd=ROOT,
                env={**_inherited(), **(environment or {})},
                stderr=log,
                **pipes,
            )
        self.children[name] = Child(name, process)
        return self.children[name]

    async def end_all(self) -> dict[str, int | None]:
        """Exit statuses by name, in good order."""
        statuses = {}
        for name in ("controller", "twin", "core", "hands", "hub"):
            if name in self.children:
                statuses[name] = await self.children[name].end()
        return statuses

    def kill_all(self) -> None:
        """Whatever still runs, at once."""
        for child in self.children.values():
            child.kill()
            for pipe in (child.process.stdin, child.process.stdout):
                if pipe is not None:
                    pipe.close()

    def leftovers(self) -> list[int]:
        """Living processes of the workspace: programs that were started here and left behind."""
        return [pid for pid in _processes() if _folder_of(pid) == str(self.workspace)]

    def peak_memory(self) -> int:
        """The most bytes of memory that this core ever had (proc(5), VmHWM)."""
        status = Path(f"/proc/{self.children['core'].process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _inherited() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SIDECAR_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}


def _processes() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _folder_of(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


@contextmanager
def ending(stage: Stage) -> Iterator[Stage]:
    """Nothing of the stage outlives the block."""
    try:
        yield stage
    finally:
        stage.kill_all()
        for pid in stage.leftovers():
            os.kill(pid, signal.SIGKILL)
