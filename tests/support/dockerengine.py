"""A Docker Engine of its own for tests, without a network: storage and sockets in one folder.

Limits are no higher than ours, for root without CAP_SYS_RESOURCE may not raise them. What the
engine makes elsewhere (cgroups, /run/docker, a mount) is removed when it ends, unless it was
there before.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from podman import Engine, EngineError

TOOLS = ("dockerd", "docker", "containerd")
START = 30.0  # seconds
OUTSIDE = (Path("/run/docker"), Path("/etc/docker"))


class DockerEngine(Engine):
    """`docker` in place of `podman`. Made by `open_docker`."""

    def __init__(self, folder: Path) -> None:
        self.environ = {**os.environ, "DOCKER_CONFIG": str(folder / "config")}
        self._words = ["docker", "-H", f"unix://{folder}/docker.sock"]
        self._folder = folder

    def close(self) -> None:
        for name in self.output("ps", "--all", "--quiet").split():
            self.run("rm", "--force", "--volumes", name, check=False)


@contextmanager
def open_docker(folder: Path) -> Iterator[DockerEngine]:
    """A dockerd that answers. `folder` needs a short path: a socket lies in it."""
    were_there = {path for path in OUTSIDE if path.exists()}
    words = [
        "dockerd",
        f"--host=unix://{folder}/docker.sock",
        f"--data-root={folder}/data",
        f"--exec-root={folder}/exec",
        f"--pidfile={folder}/docker.pid",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        "--default-ulimit=nofile=4096:4096",
    ]
    with (folder / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    engine = DockerEngine(folder)
    try:
        _wait_for(engine, daemon, folder / "dockerd.log")
        yield engine
        engine.close()
    finally:
        daemon.terminate()
        try:
            daemon.wait(START)
        finally:
            daemon.kill()
            daemon.wait()
            _clean_up(folder, were_there)


def _wait_for(engine: DockerEngine, daemon: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START
    while engine.run("version", check=False).returncode:
        if daemon.poll() is not None or time.monotonic() > end:
            raise EngineError(f"dockerd does not answer:\n{log.read_text()[-4000:]}")
        time.sleep(0.1)


def _clean_up(folder: Path, were_there: set[Path]) -> None:
    subprocess.run(["umount", folder / "exec/netns/default"], capture_output=True)
    for cgroup in Path("/sys/fs/cgroup").glob("*/docker"):
        with suppress(OSError):  # another engine uses it
            cgroup.rmdir()
    for path in set(OUTSIDE) - were_there:
        shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
