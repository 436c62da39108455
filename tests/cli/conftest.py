"""A real `sidecar dev` for the tests of the verbs, and a way to call them as a shell would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import sidecar

PROGRAM = [sys.executable, "-m", "sidecar"]
TIME = 30.0  # seconds for anything


def until(condition: Callable[[], Any], what: str) -> Any:
    """What `condition` says once that is true; real processes tell nobody when."""
    end = time.monotonic() + TIME
    while not (found := condition()):
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.02)
    return found


@dataclass
class Bench:
    """A folder for everything that sidecars of one test keep, and the verbs with it."""

    runtime: Path
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        dropped = ("SIDECAR_", "XDG_", "PYTHONUNBUFFERED")  # the last would hide a missing flush
        kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        here = str(Path(sidecar.__path__[0]).parent)  # the one that is tested, wherever we stand
        self.environ = {**kept, "XDG_RUNTIME_DIR": str(self.runtime), "PYTHONPATH": here}

    def __call__(
        self,
        *arguments: str | bytes,
        input: bytes | None = None,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        **options: Any,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `sidecar ARGUMENTS` to its end."""
        if input is None:
            options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(
            [*PROGRAM, *arguments],
            input=input,
            env={**self.environ, **(env or {})},
            cwd=cwd,
            timeout=TIME,
            capture_output=True,
            **options,
        )

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start `sidecar ARGUMENTS`; the test has to end it."""
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen([*PROGRAM, *arguments], env=self.environ, **options)


@dataclass
class Dev:
    """A `sidecar dev` that runs, on its own folder."""

    bench: Bench
    folder: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def profile(self) -> dict[str, Any]:
        for path in (self.bench.runtime / "sidecar").glob("*.json"):
            content = path.read_text()
            if content and json.loads(content)["folder"] == str(self.folder):
                return json.loads(content)
        return {}

    def child(self) -> int:
        """The process id of its `sidecar run`, or 0."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int((children.read_text().split() or ["0"])[0])


def start_dev(bench: Bench, folder: Path, log: Path, *options: str) -> Dev:
    folder.mkdir(exist_ok=True)
    with log.open("wb") as output:
        process = bench.start("dev", str(folder), *options, stdout=output, stderr=output)
    dev = Dev(bench, folder, process, log)
    until(lambda: dev.profile or process.poll() is not None, "a profile")
    assert process.poll() is None, log.read_text()
    return dev


def end(process: subprocess.Popen[bytes]) -> int:
    """SIGTERM, and its exit status."""
    process.terminate()
    try:
        return process.wait(TIME)
    finally:
        process.kill()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Nothing runs here yet. A short path, because sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        yield Bench(Path(folder))


@pytest.fixture(scope="module")
def dev() -> Iterator[Dev]:
    """One for all tests of a module."""
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        found = start_dev(Bench(Path(folder)), Path(folder) / "work", Path(folder) / "log")
        try:
            yield found
        finally:
            assert end(found.process) == 0, found.log.read_text()


@pytest.fixture(name="sidecar")
def verbs(dev: Dev) -> Bench:
    """The verbs, with a `sidecar dev` to speak to."""
    return dev.bench


@pytest.fixture
def dev_on(bench: Bench) -> Iterator[Callable[..., Dev]]:
    """Starts further ones, each on a folder of that name."""
    started: list[Dev] = []

    def start(name: str, *options: str) -> Dev:
        log = bench.runtime / f"{name}.log"
        started.append(start_dev(bench, bench.runtime / name, log, *options))
        return started[-1]

    yield start
    for one in started:
        end(one.process)


@pytest.fixture
def wait_for() -> Callable[[Callable[[], Any], str], Any]:
    return until
