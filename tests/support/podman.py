"""A podman of its own for tests: its storage, settings and sockets lie in one folder.

All of it is given on the command line. conmon's cleanup process does not inherit the environment:
with the paths in a storage.conf each `run` would wait 20 s for it. runc, because crun refuses
machines where cgroups v1 and v2 are mixed. Limits are no higher than ours, for root without
CAP_SYS_RESOURCE may not raise them.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

TOOLS = ("podman", "runc", "conmon", "mmdebstrap")

HARDENED = (
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--pids-limit=64",
    "--memory=256m",
)


class EngineError(Exception):
    """podman said no; the message holds what it printed."""


class Engine:
    """Builds images and runs containers. `close` ends and removes all of them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        config = folder / "containers.conf"
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        config.write_text(
            "[containers]\n"
            f'default_ulimits = ["nofile={files}:{files}", "nproc=32768:32768"]\n'
            '[network]\nnetwork_backend = "netavark"\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n'
        )
        self.environ = {**os.environ, "CONTAINERS_CONF": str(config)}
        self.environ.pop("NOTIFY_SOCKET", None)
        self._words = ["podman"]
        for flag, name in (
            ("root", "root"),
            ("runroot", "run"),
            ("tmpdir", "tmp"),
            ("network-config-dir", "net"),
            ("volumepath", "volumes"),
        ):
            self._words += [f"--{flag}", str(folder / name)]

    def command(self, *words: str | Path) -> list[str]:
        """The whole command line, for who starts it himself (with `environ`)."""
        return [*self._words, *map(str, words)]

    def run(
        self,
        *words: str | Path,
        timeout: float = 60,
        check: bool = True,
        input: str | None = None,
        netns: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs podman to its end; raises `EngineError` unless it ends with 0 or `check` is no.

        In the network namespace `netns` if one is named: `--network=host` is that one then.
        """
        command = self.command(*words)
        if netns is not None:
            command = ["nsenter", f"--net=/run/netns/{netns}", *command]
        # conmon leaves a file `oom` where it works, once the kernel has killed for memory.
        done = subprocess.run(
            command,
            cwd=self._folder if words[0] in ("run", "start", "restart") else None,
            env=self.environ,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            raise EngineError(
                f"podman {' '.join(map(str, words))}: {done.returncode}\n"
                f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
            )
        return done

    def output(self, *words: str | Path, timeout: float = 60) -> str:
        return self.run(*words, timeout=timeout).stdout.strip()

    def inspect(self, name: str) -> dict[str, Any]:
        """Of a container or an image."""
        [found] = json.loads(self.output("inspect", name))
        assert isinstance(found, dict)
        return found

    def build(
        self,
        tag: str,
        context: Path,
        *,
        file: Path | None = None,
        target: str | None = None,
        arguments: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
        network: bool = True,
        timeout: float = 600,
    ) -> None:
        """Builds `tag` as Docker has it (HEALTHCHECK is kept); pip and apt find what they need."""
        words: list[str | Path] = ["build", "--format=docker", "--pull=never", "-t", tag]
        words += ["--network=host", *self._trust()] if network else ["--network=none"]
        words += ["-f", file] if file else []
        words += [f"--target={target}"] if target else []
        for name, value in (arguments or {}).items():
            words.append(f"--build-arg={name}={value}")
        self.run(*words, *flags, context, timeout=timeout)

    def _trust(self) -> list[str]:
        """Certificates of this machine for pip, while it builds. Nothing of it stays in an image,
        as `--env` would."""
        bundle = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
        if not bundle:
            return []
        inside, config = "/run/build-certificates.crt", self._folder / "pip.conf"
        config.write_text(f"[global]\ncert = {inside}\n")
        return ["-v", f"{bundle}:{inside}:ro", "-v", f"{config}:/etc/pip.conf:ro"]

    def has(self, image: str) -> bool:
        return self.run("image", "exists", image, check=False).returncode == 0

    def remove(self, *names: str) -> None:
        """Containers, running or not; those that are not there are not missed."""
        self.run("rm", "-f", "-i", "-v", "-t", "0", *names, check=False)

    def close(self) -> None:
        """Ends all containers, and removes the storage with all that it left on the machine."""
        with suppress(EngineError, subprocess.TimeoutExpired):
            self.run("system", "reset", "-f", timeout=120)
        shutil.rmtree(self._folder, ignore_errors=True)
        for cgroup in Path("/sys/fs/cgroup").glob("*/libpod_parent"):
            with suppress(OSError):  # another podman uses it
                cgroup.rmdir()
