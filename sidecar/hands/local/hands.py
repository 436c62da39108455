"""`LocalHands`: the in-process form of hands.

For a sidecar that runs as the agent's user in the agent's container: `dev`, and a plain
container. Linux only, with /proc mounted; openat2 and pidfds are used where they are.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

import anyio

from sidecar.errors import CallError, Code
from sidecar.hands.interface import (
    Base,
    Exit,
    Known,
    Path,
    Program,
    Running,
    Survivor,
    Target,
)
from sidecar.hands.local.capabilities import of_kernel
from sidecar.hands.local.cgroup import Cgroups
from sidecar.hands.local.environment import Environment, base_environments
from sidecar.hands.local.files import LocalFiles
from sidecar.hands.local.programs import Programs
from sidecar.hands.local.roots import Roots, open_roots
from sidecar.hands.local.threads import Threads
from sidecar.hands.pipeio import DIRECT
from sidecar.hands.rootlist import ListedRoot

T = TypeVar("T")


class LocalHands(LocalFiles):
    """See `interface.Hands`. Made by `open_root`."""

    form = "in-process"
    keeps_programs = False
    trust = "shared"
    pipe_io = DIRECT

    def __init__(
        self,
        roots: Roots,
        environments: Mapping[Base, dict[bytes, bytes]],
        umask: int,
        *,
        cgroups: Cgroups | None = None,
        adopt: bool = False,
    ) -> None:
        super().__init__(roots, Threads(), umask)
        self._cgroups = cgroups
        self._programs = Programs(
            self._paths,
            self._threads,
            roots.workspace.root,
            environments,
            cgroups=cgroups,
            adopt=adopt,
        )
        self._since = anyio.current_time()
        self._is_closed = False

    @classmethod
    @asynccontextmanager
    async def open_root(
        cls,
        root: Path,
        *,
        roots: Sequence[ListedRoot] = (),
        environment: Environment = "clean",
        openat2: bool | None = None,
        cgroup: str | None = None,
        adopt: bool = False,
    ) -> AsyncIterator[LocalHands]:
        """Hands for the tree below `root`, closed at the end of the block.

        `roots`: further folders that may be touched (see `rootlist`). `environment`: what programs
        start from (see `environment`). `openat2`: None asks the kernel, True requires it, False
        does without. `cgroup`: a folder of a cgroup 2 hierarchy that is ours to use; each program
        gets one in it, which takes 85 µs (see `cgroup`).
        `adopt`: what programs leave behind becomes ours, and every child of this process that is
        no program is reaped, so nothing else in it may start children (`hands.local.orphans`).
        """
        threads = Threads(1)
        bases = await threads.run(base_environments, environment, os.environb)
        umask = await threads.run(_read_umask)
        open_all = partial(open_roots, root, roots, use_openat2=openat2)
        cgroups = await threads.run(Cgroups, cgroup) if cgroup is not None else None
        opened = await threads.make(Roots.close, open_all)
        hands = cls(opened, bases, umask, cgroups=cgroups, adopt=adopt)
        try:
            yield hands
        finally:
            await hands.aclose()

    def status(self) -> Mapping[str, str | float]:
        return {"state": "connected", "since": anyio.current_time() - self._since}

    async def capabilities(self) -> Mapping[str, str | bool]:
        return {
            "form": self.form,
            "root": os.fsdecode(self._roots.workspace.path),
            "roots": self._roots.describe(),
            "openat2": self._roots.workspace.has_openat2,
            "cgroup": self._cgroups.folder if self._cgroups else False,
            "subreaper": self._programs.adopts,
            **await self._call(of_kernel),
        }

    # Programs ----------------------------------------------------------------------------

    async def spawn(self, program: Program, *, key: bytes) -> Running:
        return await self._programs.spawn(program, key=key)

    def adopt(self, key: bytes, pid: int, start_time: int) -> bool:
        """See `Hands.adopt`. `wait` will raise `outcome_unknown`."""
        try:
            return self._programs.adopt(key, pid, start_time)
        except CallError:  # no room
            return False

    async def take(self, key: bytes) -> Running:
        raise CallError(Code.UNSUPPORTED, "hands in the process of core ends with it")

    async def end_input(self, key: bytes) -> None:
        """Nothing to do: core has the only copy."""

    async def resize(self, key: bytes, *, rows: int, cols: int) -> None:
        self._programs.resize(key, rows, cols)

    async def signal(self, key: bytes, number: int, to: Target = Target.GROUP) -> None:
        await self._programs.signal(key, number, to)

    async def kill(self, key: bytes, *, grace: float, since: int | None = None) -> None:
        await self._programs.kill(key, grace=grace, since=since)

    async def wait(self, key: bytes) -> Exit:
        return await self._programs.wait(key)

    async def known(self) -> Sequence[Known]:
        return self._programs.known()

    async def survivors(self) -> Mapping[bytes, Sequence[Survivor]]:
        return await self._programs.survivors()

    async def forget(self, key: bytes) -> None:
        self._programs.forget(key)

    async def end_programs(self) -> None:
        """All of them, with what they started; nothing is started any more. Within seconds."""
        await self._programs.end_all()

    async def aclose(self) -> None:
        """See `Hands.aclose`. A second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._programs.aclose()
        await self.close_files()


def _read_umask() -> int:
    """Our umask. umask(2) can only swap it, under the feet of other threads, so ask proc(5)."""
    with suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    mask = os.umask(0o077)  # Linux before 4.7
    os.umask(mask)
    return mask
