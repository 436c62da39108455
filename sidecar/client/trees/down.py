"""A tree out of the sandbox."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from anyio.to_thread import run_sync as in_thread

from sidecar.client.downloading import Downloading
from sidecar.client.downloads import ReadFile, read_many
from sidecar.client.trees import there
from sidecar.client.trees.comparing import Pair
from sidecar.client.trees.entries import (
    PACK_BYTES,
    Node,
    Plan,
    Problem,
    TreeCopied,
    TreeOptions,
)
from sidecar.client.trees.here import OWNER, Folder
from sidecar.client.trees.telling import Task, Teller
from sidecar.client.trees.working import LOOKS, Job, Told, attempt, in_parallel, problem_of
from sidecar.client.uploading import AGAIN, Patience
from sidecar.errors import CallError, Code

if TYPE_CHECKING:
    from sidecar.client.run import Run


async def download_tree(
    run: Run, source: bytes, target: bytes, options: TreeOptions, teller: Teller
) -> TreeCopied:
    """The directory `source` of the sandbox becomes the directory `target` here, which is made if
    it is missing. Raises `CallError` and `OSError` for what concerns the whole."""
    top = await run.files.stat(there.wire(source), follow=True)
    token = _token(run, source)
    folder = await in_thread(_open, target, token)
    told = Told(teller)
    try:
        plan = await Pair(run, source, target, is_upload=False).plan(folder, options)
        teller.planned(plan)
        told.problems_of(plan.problems)
        await _Down(run, source, folder, told).carry_out(plan)
        if await in_thread(folder.is_marked, token):
            await in_thread(folder.unmark, token)
            settle = partial(folder.settle, is_ours=True)
            await in_thread(settle, b"", top.mode, top.mtime_ns)
    finally:
        folder.close()
    return TreeCopied(told.files, told.bytes, plan.same, told.problems)


async def is_unfinished_here(run: Run, source: bytes, target: bytes) -> bool:
    """Whether an earlier copy of `source` has made the directory `target`, and not finished."""
    with await in_thread(Folder, target) as folder:
        return await in_thread(folder.is_marked, _token(run, source))


def _token(run: Run, source: bytes) -> bytes:
    return hashlib.sha256(b"%s:%s" % (run.id.encode(), source)).digest()[:16]


def _open(target: bytes, token: bytes) -> Folder:
    try:
        os.mkdir(target, OWNER)
    except FileExistsError:
        return Folder(target)
    folder = Folder(target)
    folder.mark(token)
    return folder


class _Down:
    def __init__(self, run: Run, top: bytes, folder: Folder, told: Told) -> None:
        self._run = run
        self._top = top
        self._folder = folder
        self._told = told

    async def carry_out(self, plan: Plan) -> None:
        make = self._folder.make_directory
        await self._each(plan.directories, lambda node: make(node.path, node.mode))
        await self._each(plan.links, self._link, is_told=True)
        await self._each(plan.modes, lambda node: self._folder.chmod(node.path, node.mode))
        await in_parallel(self._jobs(plan))
        settle = self._folder.settle
        await self._each(
            plan.directories[::-1], lambda node: settle(node.path, node.mode, node.mtime_ns)
        )

    def _link(self, node: Node) -> None:
        self._folder.link(node.path, node.target or b"", node.mtime_ns)

    def _jobs(self, plan: Plan) -> Iterator[Job]:
        for node in plan.large:
            yield partial(self._large, node)
        for pack in plan.packs():
            yield partial(self._pack, pack)

    # here ---------------------------------------------------------------------------------

    async def _each(
        self, nodes: Sequence[Node], work: Callable[[Node], None], *, is_told: bool = False
    ) -> None:
        """Do something to each entry, in threads."""

        def some(part: Sequence[Node]) -> list[Problem | Node]:
            return [attempt(node, work) for node in part]

        for begin in range(0, len(nodes), LOOKS):
            for outcome in await in_thread(some, nodes[begin : begin + LOOKS]):
                if isinstance(outcome, Problem):
                    self._told.problem(outcome)
                elif is_told:
                    self._told.teller.copied(outcome.path)

    # files --------------------------------------------------------------------------------

    async def _large(self, node: Node) -> None:
        task = self._told.teller.began(node.path, 1, node.size)
        try:
            *way, name = node.path.split(b"/")
            directory = await in_thread(self._folder.enter, way)
            try:
                path = there.below(self._top, node.path)
                download = Downloading(self._run, path, directory, name, task.at)
                done = await download.carry_out()
            finally:
                os.close(directory)
            self._told.copied(node.path, done.size)
        except (CallError, OSError) as error:
            self._told.problem(problem_of(node.path, error))
        finally:
            task.end()

    async def _pack(self, pack: list[Node]) -> None:
        """Small files, in one call. If one of them changes meanwhile, or has become large, each
        goes by itself."""
        task = self._told.teller.began(pack[0].path, len(pack), sum(node.size for node in pack))
        try:
            files = await self._receive(pack)
        except CallError as error:
            if error.code not in (Code.SOURCE_CHANGED, Code.LIMIT):
                raise
        else:
            await self._write(pack, files, task)
            return
        finally:
            task.end()
        for node in pack:
            await self._large(node)

    async def _receive(self, pack: list[Node]) -> list[ReadFile]:
        paths = [there.below(self._top, node.path) for node in pack]
        patience = Patience()
        while True:
            try:
                rows = read_many(self._run, paths, allow_change=False, most=2 * PACK_BYTES)
                return [file async for file in rows]
            except CallError as error:
                if error.code not in AGAIN:
                    raise
                await patience.wait(0, error)

    async def _write(self, pack: list[Node], files: list[ReadFile], task: Task) -> None:
        """In threads. Only our own paths are used, not those of the answer."""

        def some(begin: int) -> list[Problem | Node]:
            pairs = zip(pack[begin : begin + LOOKS], files[begin : begin + LOOKS], strict=True)
            return [attempt(node, partial(self._write_one, file)) for node, file in pairs]

        done = 0
        for begin in range(0, len(pack), LOOKS):
            for outcome, file in zip(await in_thread(some, begin), files[begin:], strict=False):
                done += len(file.content)
                if isinstance(outcome, Problem):
                    self._told.problem(outcome)
                else:
                    self._told.copied(outcome.path, len(file.content))
            task.at(done)

    def _write_one(self, file: ReadFile, node: Node) -> None:
        file.check()
        self._folder.write(node.path, file.content, file.mode, file.mtime_ns)
