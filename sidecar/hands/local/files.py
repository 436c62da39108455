"""What the in-process form of hands does to paths, in threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio import from_thread

from sidecar.errors import CallError, Code
from sidecar.hands.fileinterface import (
    ALL,
    FileStat,
    Listing,
    OpenMode,
    Path,
    Selection,
    ToolName,
)
from sidecar.hands.local.appending import make_end, open_end
from sidecar.hands.local.linking import hard_link, symbolic_link
from sidecar.hands.local.paths import Paths
from sidecar.hands.local.removal import remove
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.threads import Threads
from sidecar.hands.local.tools import LocalTool, Toolbox, Work
from sidecar.hands.local.turns import Turns
from sidecar.hands.local.upload import LocalUpload, Replacement, begin, discard, look

if TYPE_CHECKING:
    from sidecar.hands.local.walk.listing import Lister

CLOSE_UPLOADS = 1.0  # seconds for removing the parts of uploads nobody ended
PART_WAIT = 2.0  # seconds for whoever wrote a part before us to let go of it
PART_STEP = 0.05  # seconds between tries; flock(2) could only wait where nobody can end that

T = TypeVar("T")


class LocalFiles:
    """See `fileinterface.FileHands`."""

    def __init__(self, roots: Roots, threads: Threads, umask: int) -> None:
        self._roots = roots
        self._threads = threads
        self._umask = umask
        self._paths = Paths(roots)
        self._turns = Turns()
        self._uploads: set[LocalUpload] = set()
        self._tools = Toolbox(roots)
        self._lister: Lister | None = None

    async def close_files(self) -> None:
        """End tools, remove what uploads left that nobody ended, and release the roots."""
        if self._lister is not None:
            self._lister.close()
        await self._tools.aclose()
        with anyio.move_on_after(CLOSE_UPLOADS, shield=True):
            for upload in list(self._uploads):
                await upload.abort()
        self._roots.close()

    async def open(self, path: Path, mode: OpenMode = OpenMode.READ) -> int:
        return await self._threads.make(os.close, self._paths.open_file, path)

    async def append(
        self, path: Path, *, create: bool = True, parents: bool = False, mode: int | None = None
    ) -> int:
        return await self._threads.make(os.close, self._append, path, create, parents, mode)

    async def replace(
        self, path: Path, *, parents: bool = False, upload: bytes | None = None
    ) -> LocalUpload:
        """See `FileHands.replace`. Who had the part may just be gone: a few tries."""
        give_up_at = anyio.current_time() + PART_WAIT
        while True:
            try:
                made = await self._threads.make(
                    Replacement.abort, self._begin, path, parents, upload
                )
                break
            except CallError as error:
                if error.code is not Code.CONFLICT or anyio.current_time() >= give_up_at:
                    raise
            await anyio.sleep(PART_STEP)
        begun = LocalUpload(made, self._threads, self._uploads.discard)
        self._uploads.add(begun)
        return begun

    async def part(self, path: Path, upload: bytes) -> FileStat | None:
        return await self._call(look, self._roots.of(path), path, upload)

    async def discard(self, path: Path, upload: bytes, *, older_than: float = 0.0) -> bool:
        root = self._roots.of(path, write=True)
        return await self._call(discard, root, path, upload, older_than)

    async def stat(self, path: Path, *, follow: bool = False) -> FileStat:
        return await self._call(self._paths.stat, path, follow=follow)

    async def walk(
        self,
        path: Path,
        selection: Selection = ALL,
        *,
        after: bytes | None = None,
        limit: int = 1000,
    ) -> Listing:
        if self._lister is None:
            from sidecar.hands.local.walk.listing import Lister  # 5 ms, which no start waits for

            self._lister = Lister(self._roots, self._threads)
        return await self._lister.page(path, selection, after, limit)

    async def mkdir(
        self, path: Path, *, parents: bool = False, exist_ok: bool = False, mode: int = 0o777
    ) -> None:
        await self._call(self._paths.mkdir, path, parents=parents, exist_ok=exist_ok, mode=mode)

    async def rename(self, source: Path, target: Path, *, replace: bool = True) -> None:
        await self._call(self._paths.rename, source, target, replace=replace)

    async def link(self, source: Path, target: Path) -> None:
        await self._call(hard_link, self._roots, source, target)

    async def symlink(self, path: Path, text: Path, *, anywhere: bool = False) -> None:
        await self._call(symbolic_link, self._roots, path, text, anywhere=anywhere)

    async def remove(self, path: Path, *, recursive: bool = False) -> int:
        """See `Hands.remove`. Cancelling stops it after the entry at hand."""
        check = from_thread.check_cancelled
        return await self._call(remove, self._roots, path, recursive=recursive, check=check)

    async def chmod(self, path: Path, mode: int) -> None:
        await self._call(self._paths.chmod, path, mode)

    async def utimes(self, path: Path, *, atime_ns: int, mtime_ns: int) -> None:
        await self._call(self._paths.utimes, path, atime_ns=atime_ns, mtime_ns=mtime_ns)

    async def tool(self, name: ToolName, path: Path, options: Mapping[str, Any]) -> LocalTool:
        return self._tools.begin(Work(name, path, options))

    def _begin(self, path: Path, parents: bool, upload: bytes | None) -> Replacement:
        root = self._roots.of(path, write=True)
        if parents:
            self._paths.make_parents(path)
        return begin(root, path, upload, 0o666 & ~self._umask, self._turns)

    def _append(self, path: Path, create: bool, parents: bool, mode: int | None) -> int:
        root = self._roots.of(path, write=True)
        if not create:
            return open_end(root, path)
        if parents:
            self._paths.make_parents(path)
        return make_end(root, path, 0o666 & ~self._umask if mode is None else mode)

    async def _call(self, function: Callable[..., T], *args: object, **options: object) -> T:
        return await self._threads.run(partial(function, *args, **options))
