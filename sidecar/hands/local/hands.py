"""`LocalHands`: the in-process form of hands.

For a sidecar that runs as the agent's user in the agent's container: `dev`, and a plain
container. Linux only, with /proc mounted; openat2 and pidfds are used where they are.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

import anyio
from anyio import from_thread

from sidecar.errors import CallError, Code
from sidecar.hands.interface import (
    Base,
    Exit,
    FileStat,
    Known,
    Listing,
    OpenMode,
    Path,
    Program,
    Running,
    Survivor,
    Target,
)
from sidecar.hands.local.beneath import Beneath
from sidecar.hands.local.capabilities import of_kernel
from sidecar.hands.local.cgroup import Cgroups
from sidecar.hands.local.environment import Environment, base_environments
from sidecar.hands.local.paths import Paths
from sidecar.hands.local.programs import Programs
from sidecar.hands.local.removal import remove
from sidecar.hands.local.threads import Threads
from sidecar.hands.local.upload import LocalUpload, Part, begin
from sidecar.hands.pipeio import DIRECT

T = TypeVar("T")

CLOSE_UPLOADS = 1.0  # seconds for removing the temporary files of uploads nobody ended


class LocalHands:
    """See `interface.Hands`. Made by `open_root`."""

    form = "in-process"
    keeps_programs = False
    trust = "shared"
    pipe_io = DIRECT

    def __init__(
        self,
        beneath: Beneath,
        environments: Mapping[Base, dict[bytes, bytes]],
        umask: int,
        *,
        cgroups: Cgroups | None = None,
        adopt: bool = False,
    ) -> None:
        self._beneath = beneath
        self._cgroups = cgroups
        self._umask = umask
        self._threads = Threads()
        self._paths = Paths(beneath)
        self._programs = Programs(
            self._paths,
            self._threads,
            beneath.root,
            environments,
            cgroups=cgroups,
            adopt=adopt,
        )
        self._uploads: set[LocalUpload] = set()
        self._since = anyio.current_time()
        self._is_closed = False

    @classmethod
    @asynccontextmanager
    async def open_root(
        cls,
        root: Path,
        *,
        environment: Environment = "clean",
        openat2: bool | None = None,
        cgroup: str | None = None,
        adopt: bool = False,
    ) -> AsyncIterator[LocalHands]:
        """Hands for the tree below `root`, closed at the end of the block.

        `environment`: what programs start from (see `environment`). `openat2`: None asks the
        kernel, True requires it, False does without. `cgroup`: a folder of a cgroup 2 hierarchy
        that is ours to use; each program gets one in it, which takes 85 µs (see `cgroup`).
        `adopt`: what programs leave behind becomes ours, and every child of this process that is
        no program is reaped, so nothing else in it may start children (`hands.local.orphans`).
        """
        threads = Threads(1)
        bases = await threads.run(base_environments, environment, os.environb)
        umask = await threads.run(_read_umask)
        open_beneath = partial(Beneath, root, use_openat2=openat2)
        cgroups = await threads.run(Cgroups, cgroup) if cgroup is not None else None
        beneath = await threads.make(Beneath.close, open_beneath)
        hands = cls(beneath, bases, umask, cgroups=cgroups, adopt=adopt)
        try:
            yield hands
        finally:
            await hands.aclose()

    def status(self) -> Mapping[str, str | float]:
        return {"state": "connected", "since": anyio.current_time() - self._since}

    async def capabilities(self) -> Mapping[str, str | bool]:
        return {
            "form": self.form,
            "root": os.fsdecode(self._beneath.path),
            "openat2": self._beneath.has_openat2,
            "cgroup": self._cgroups.folder if self._cgroups else False,
            "subreaper": self._programs.adopts,
            **await self._call(of_kernel),
        }

    # Paths -------------------------------------------------------------------------------

    async def open(self, path: Path, mode: OpenMode = OpenMode.READ) -> int:
        return await self._threads.make(os.close, self._paths.open_file, path)

    async def replace(self, path: Path, *, parents: bool = False) -> LocalUpload:
        part = await self._threads.make(Part.abort, self._begin, path, parents)
        upload = LocalUpload(part, self._threads, self._uploads.discard)
        self._uploads.add(upload)
        return upload

    async def stat(self, path: Path, *, follow: bool = False) -> FileStat:
        return await self._call(self._paths.stat, path, follow=follow)

    async def list(self, path: Path, *, after: bytes | None = None, limit: int = 1000) -> Listing:
        return await self._call(self._paths.list, path, after=after, limit=limit)

    async def mkdir(
        self, path: Path, *, parents: bool = False, exist_ok: bool = False, mode: int = 0o777
    ) -> None:
        await self._call(self._paths.mkdir, path, parents=parents, exist_ok=exist_ok, mode=mode)

    async def rename(self, source: Path, target: Path, *, replace: bool = True) -> None:
        await self._call(self._paths.rename, source, target, replace=replace)

    async def link(self, source: Path, target: Path) -> None:
        await self._call(self._paths.link, source, target)

    async def remove(self, path: Path, *, recursive: bool = False) -> int:
        """See `Hands.remove`. Cancelling stops it after the entry at hand."""
        check = from_thread.check_cancelled
        return await self._call(remove, self._beneath, path, recursive=recursive, check=check)

    async def chmod(self, path: Path, mode: int) -> None:
        await self._call(self._paths.chmod, path, mode)

    async def utimes(self, path: Path, *, atime_ns: int, mtime_ns: int) -> None:
        await self._call(self._paths.utimes, path, atime_ns=atime_ns, mtime_ns=mtime_ns)

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

    async def aclose(self) -> None:
        """See `Hands.aclose`. A second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._programs.aclose()
        with anyio.move_on_after(CLOSE_UPLOADS, shield=True):
            for upload in list(self._uploads):
                await upload.abort()
        self._beneath.close()

    async def _call(self, function: Callable[..., T], *args: object, **options: object) -> T:
        return await self._threads.run(partial(function, *args, **options))

    def _begin(self, path: Path, parents: bool) -> Part:
        if parents:
            self._paths.make_parents(path)
        return begin(self._beneath, path, 0o666 & ~self._umask)


def _read_umask() -> int:
    """Our umask. umask(2) can only swap it, under the feet of other threads, so ask proc(5)."""
    with suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    mask = os.umask(0o077)  # Linux before 4.7
    os.umask(mask)
    return mask
