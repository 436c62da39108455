"""What is missing: both trees are looked through at once, and if asked for, read through.

Of the target everything is looked at: also what would not be copied may be in the way.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from anyio.to_thread import run_sync as in_thread

from sidecar.client.localfile import sha256_of
from sidecar.client.trees import there
from sidecar.client.trees.entries import EVERYTHING, Node, Plan, Problem, TreeOptions, plan_of
from sidecar.client.trees.here import Folder, Look
from sidecar.client.trees.working import in_parallel

if TYPE_CHECKING:
    from sidecar.client.run import Run


class Pair:
    """The tree here and the one in the sandbox; `source` is the one that is copied."""

    def __init__(self, run: Run, top: bytes, local: bytes, *, is_upload: bool) -> None:
        self._run = run
        self._top = top
        self._local = local
        self._is_upload = is_upload
        self._here: dict[bytes, Node] = {}
        self._there: dict[bytes, Node] = {}
        self._problems: list[Problem] = []

    async def plan(self, folder: Folder, options: TreeOptions) -> Plan:
        """What is to be done, with the problems of the source. Raises `CallError`."""

        async def look_here() -> None:
            self._here = await self._look_here(options if self._is_upload else EVERYTHING)

        async def look_there() -> None:
            await self._look_there(EVERYTHING if self._is_upload else options)

        await in_parallel([look_here, look_there])
        source, target = self._here, self._there
        if not self._is_upload:
            source, target = target, source
        equal = await self._equal(folder) if options.checksum else None
        all_links = self._is_upload or options.all_links  # the sandbox refuses on its own
        plan = plan_of(source.values(), target, equal=equal, all_links=all_links)
        plan.problems[:0] = self._problems
        return plan

    async def _look_here(self, options: TreeOptions) -> dict[bytes, Node]:
        look = Look(self._local, options)
        try:
            await in_thread(look.run, abandon_on_cancel=True)
        finally:
            look.cancelled = True  # nobody waits for the thread any more
        if self._is_upload:
            self._problems = look.problems
        return {node.path: node for node in look.nodes}

    async def _look_there(self, options: TreeOptions) -> None:
        self._there, problems = await there.look(self._run, self._top, options)
        if not self._is_upload:
            self._problems = problems

    async def _equal(self, folder: Folder) -> frozenset[bytes]:
        """The files that are the same in every byte; only those of one size are read."""
        alike = [
            node
            for path, node in self._here.items()
            if (other := self._there.get(path)) is not None
            and node.kind == other.kind == "file"
            and node.size == other.size
        ]
        remote = await there.digests(self._run, self._top, alike)
        equal = set()
        for node in alike:
            if node.path in remote and await _digest(folder, node) == remote[node.path]:
                equal.add(node.path)
        return frozenset(equal)


async def _digest(folder: Folder, node: Node) -> bytes | None:
    try:
        fd = await in_thread(folder.open, node.path)
    except OSError:
        return None
    try:
        return await sha256_of(fd, 0, node.size)
    finally:
        os.close(fd)
