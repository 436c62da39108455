"""As much of a kubelet as it takes to run a pod of examples/kubernetes with podman.

What podman's own `kube play` does not know is here: native sidecars (init containers that are
restarted, and hold back what follows until their startup probe has passed), fsGroup, projected
volumes that are exchanged, hooks, and the order in which a pod ends. Each follows
kubernetes.io/docs/concepts: workloads/pods/sidecar-containers, workloads/pods/pod-lifecycle
("Pod termination with sidecar containers"), storage/projected-volumes,
configuration/secret ("Mounted Secrets are updated automatically").

All containers have the network of this machine, so that they reach a hub on its loopback.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from manifests import Document, containers
from podman import Engine

PAUSE = "pause"  # holds a PID namespace that is shared
SLEEP = ("sleep", "infinity")
STARTUP = 60.0  # seconds that a container may take for its startup probe
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}

Secrets = Mapping[str, Mapping[str, str]]


class Kubelet:
    """Runs one pod. Every method takes the time of a program: not for an event loop."""

    def __init__(self, engine: Engine, pod: Document, folder: Path, secrets: Secrets) -> None:
        self.engine = engine
        self.pod = pod
        self.folder = folder
        self._secrets = secrets
        self._spec = pod["spec"]
        self.group = self._spec["securityContext"]["fsGroup"]
        self.started: list[str] = []  # the containers that are to run, in this order
        self.hooks: dict[str, subprocess.CompletedProcess[str]] = {}  # how each preStop ended

    def name(self, container: str) -> str:
        return f"{self.pod['metadata']['name']}-{container}"

    def volume(self, name: str) -> Path:
        """Where a volume lies on this machine."""
        return self.folder / name

    # Starting -----------------------------------------------------------------------------

    def start(self) -> None:
        self.make_volumes()
        if self._spec["shareProcessNamespace"]:
            image = self._spec["containers"][-1]["image"]
            self.engine.run(
                "run", "-d", "--network=none", f"--name={self.name(PAUSE)}", image, *SLEEP
            )
        for one in self._spec.get("initContainers", ()):
            if one.get("restartPolicy") == "Always":
                self._start(one)
                self._await_startup(one)
            else:
                self.run_to_end(one["name"])
        for one in self._spec["containers"]:
            self._start(one)

    def run_to_end(self, name: str) -> None:
        self.engine.run("run", "--rm", *self._words(self._find(name)), timeout=STARTUP)

    def restart(self, name: str) -> None:
        """A new container in place of one that has ended; volumes stay."""
        self.engine.remove(self.name(name))
        self._start(self._find(name))

    def probe(self, container: str, kind: str) -> int:
        """What a probe's command ended with."""
        words = self._find(container)[kind]["exec"]["command"]
        return self.engine.run("exec", self.name(container), *words, check=False).returncode

    def logs(self, container: str) -> str:
        done = self.engine.run("logs", self.name(container))
        return done.stdout + done.stderr

    def _start(self, one: Document) -> None:
        self.engine.run("run", "-d", *self._words(one))
        if one["name"] not in self.started:
            self.started.append(one["name"])

    def _await_startup(self, one: Document) -> None:
        give_up = time.monotonic() + STARTUP
        while self.probe(one["name"], "startupProbe"):
            assert time.monotonic() < give_up, self.logs(one["name"])
            time.sleep(one["startupProbe"]["periodSeconds"] / 5)

    def _words(self, one: Document) -> list[str]:
        """The container as a command line of podman."""
        context = one["securityContext"]
        words = [f"--name={self.name(one['name'])}", "--network=host", "--image-volume=ignore"]
        words += [f"--user={context['runAsUser']}:{context['runAsGroup']}"]
        words += [f"--group-add={self.group}", "--read-only-tmpfs=false", "--no-healthcheck"]
        words += ["--read-only"] if context["readOnlyRootFilesystem"] else []
        words += [f"--cap-drop={name}" for name in context["capabilities"]["drop"]]
        words += [] if context["allowPrivilegeEscalation"] else ["--security-opt=no-new-privileges"]
        words += [f"--memory={_bytes(one['resources']['limits']['memory'])}"]
        words += [f"--env={each['name']}={each['value']}" for each in one.get("env", ())]
        words += [f"--workdir={one['workingDir']}"] if "workingDir" in one else []
        for mount in one["volumeMounts"]:
            source = self.volume(mount["name"])
            mode = "ro" if mount.get("readOnly") else "rw"
            words.append(f"--volume={source}:{mount['mountPath']}:{mode}")
        if self._spec["shareProcessNamespace"]:
            words.append(f"--pid=container:{self.name(PAUSE)}")
        command = one.get("command", [])
        words += [f"--entrypoint={json.dumps(command)}"] if command else []
        return [*words, one["image"], *one.get("args", ())]

    def _find(self, name: str) -> Document:
        [found] = [one for one in containers(self.pod) if one["name"] == name]
        return found

    # Volumes ------------------------------------------------------------------------------

    def make_volumes(self) -> None:
        """An emptyDir is root's, writable by all, and with fsGroup that group's."""
        for volume in self._spec["volumes"]:
            path = self.volume(volume["name"])
            path.mkdir()
            os.chown(path, 0, self.group)
            path.chmod(0o2777 if "emptyDir" in volume else 0o2755)
            if "projected" in volume:
                self.exchange(volume["name"], self._secrets)

    def exchange(self, volume: str, secrets: Secrets) -> None:
        """Write all files of a projected volume anew, as the kubelet does when a Secret changed:
        into a folder of their own, to which the link `..data` is turned by rename(2)."""
        path = self.volume(volume)
        [projected] = [one["projected"] for one in self._spec["volumes"] if one["name"] == volume]
        fresh = path / f"..{time.time_ns()}"
        fresh.mkdir()
        for source in projected["sources"]:
            for item in source["secret"]["items"]:
                file = fresh / item["path"]
                file.write_text(secrets[source["secret"]["name"]][item["key"]])
                os.chown(file, 0, self.group)
                file.chmod(projected["defaultMode"] | 0o040)
                if not (path / item["path"]).is_symlink():
                    (path / item["path"]).symlink_to(f"..data/{item['path']}")
        before = path / os.readlink(path / "..data") if (path / "..data").is_symlink() else None
        (path / "..data_tmp").symlink_to(fresh.name)
        (path / "..data_tmp").rename(path / "..data")
        if before is not None:
            shutil.rmtree(before)

    # Ending -------------------------------------------------------------------------------

    def terminate(self) -> dict[str, int]:
        """As when the pod is deleted; what each container ended with. All hooks run at once, and
        then SIGTERM goes to each, to native sidecars once all others have ended."""
        deadline = time.monotonic() + self._spec["terminationGracePeriodSeconds"]
        sidecars = {one["name"] for one in self._spec.get("initContainers", ())}
        ended = {name: Event() for name in self.started}

        def end(name: str) -> int:
            self._run_hook(name, deadline)
            if name in sidecars:
                for other in ended.keys() - sidecars:
                    ended[other].wait(max(0.0, deadline - time.monotonic()))
            left = max(2.0, deadline - time.monotonic())
            self.engine.run("stop", "-t", str(int(left)), self.name(name), timeout=left + 30)
            ended[name].set()
            return int(self.engine.inspect(self.name(name))["State"]["ExitCode"])

        with ThreadPoolExecutor() as pool:
            return dict(zip(self.started, pool.map(end, self.started), strict=True))

    def _run_hook(self, name: str, deadline: float) -> None:
        hook = self._find(name).get("lifecycle", {}).get("preStop")
        if hook is not None:
            left = max(1.0, deadline - time.monotonic())
            words = ("exec", self.name(name), *hook["exec"]["command"])
            self.hooks[name] = self.engine.run(*words, check=False, timeout=left)

    def remove(self) -> None:
        """All of it, whatever its state."""
        names = [one["name"] for one in containers(self.pod)]
        self.engine.remove(*(self.name(name) for name in [*names, PAUSE]))


def _bytes(size: str) -> int:
    return int(size[:-2]) * UNITS[size[-2:]]
