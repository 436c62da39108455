"""A tree into the sandbox."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from anyio.to_thread import run_sync as in_thread

from sidecar.client.localfile import LocalFile
from sidecar.client.trees import there
from sidecar.client.trees.comparing import Pair
from sidecar.client.trees.entries import (
    Node,
    Plan,
    Problem,
    TreeCopied,
    TreeOptions,
    packs_of,
)
from sidecar.client.trees.here import OWNER, Folder, marker_name
from sidecar.client.trees.packing import Pack
from sidecar.client.trees.telling import Task, Teller
from sidecar.client.trees.working import Job, Told, in_parallel, problem_of
from sidecar.client.uploading import AGAIN, Counted, Patience, Uploading, upload_id
from sidecar.errors import CallError, Code
from sidecar.protocol.streams import CONTENT
from sidecar.streaming import BytesSource, Source

if TYPE_CHECKING:
    from sidecar.client.run import Run


async def upload_tree(
    run: Run, source: bytes, target: bytes, options: TreeOptions, teller: Teller
) -> TreeCopied:
    """The directory `source` here becomes the directory `target` of the sandbox, which is made if
    it is missing. Raises `CallError` and `OSError` for what concerns the whole."""
    folder = await in_thread(Folder, source)
    told = Told(teller)
    try:
        marker = await _marker(folder, target)
        await _make(run, target, marker)
        plan = await Pair(run, target, source, is_upload=True).plan(folder, options)
        teller.planned(plan)
        told.problems_of(plan.problems)
        await _Up(run, folder, target, options, told).carry_out(plan)
        if await _is_there(run, marker):
            await run.files.remove(marker)
            await _settle(run, folder, target)
    finally:
        folder.close()
    return TreeCopied(told.files, told.bytes, plan.same, told.problems)


async def is_unfinished_there(run: Run, source: bytes, target: bytes) -> bool:
    """Whether an earlier copy of `source` has made the directory `target`, and not finished."""
    with await in_thread(Folder, source) as folder:
        return await _is_there(run, await _marker(folder, target))


async def _settle(run: Run, folder: Folder, target: bytes) -> None:
    """Mode and time of the top itself: as of a directory in the one above."""
    above, name = os.path.split(target.rstrip(b"/"))
    mode, mtime_ns = await in_thread(folder.mode_and_time)
    pack = Pack(folder).add_bare([Node(name, "directory", 0, mode, mtime_ns)])
    tar = await in_thread(pack.tar)
    arguments = {"path": there.wire(above), "links": "inside"}
    async with run.open("files.extract", arguments) as call:
        run.send(call, CONTENT, BytesSource(tar))
        await call.wait()


async def _make(run: Run, target: bytes, marker: str | bytes) -> None:
    try:
        await run.call("files.mkdir", {"path": there.wire(target), "mode": OWNER})
    except CallError as error:
        if error.code is not Code.EXISTS:
            raise
    else:
        await run.files.write(marker, b"")


async def _marker(folder: Folder, target: bytes) -> str | bytes:
    """The path of the marker of this copy; see `marker_name`."""
    identity = await in_thread(folder.identity)
    token = hashlib.sha256(identity).digest()[:16]
    return there.below(target, marker_name(token))


async def _is_there(run: Run, path: str | bytes) -> bool:
    try:
        await run.files.stat(path)
    except CallError as error:
        if error.code is not Code.NOT_FOUND:
            raise
        return False
    return True


class _Up:
    def __init__(
        self, run: Run, folder: Folder, top: bytes, options: TreeOptions, told: Told
    ) -> None:
        self._run = run
        self._folder = folder
        self._top = top
        self._links = "all" if options.all_links else "inside"
        self._told = told

    async def carry_out(self, plan: Plan) -> None:
        for nodes in packs_of(plan.directories):
            await self._bare(nodes, are_open=True)
        await in_parallel(self._jobs(plan))
        for nodes in packs_of(plan.directories[::-1]):  # last, for each file changes their times
            await self._bare(nodes)

    def _jobs(self, plan: Plan) -> Iterator[Job]:
        for node in plan.large:
            yield partial(self._large, node)
        for nodes in packs_of(plan.links):
            yield partial(self._bare, nodes, are_told=True)
        for nodes in plan.packs():
            yield partial(self._pack, nodes)
        for node in plan.modes:
            yield partial(self._mode, node)

    # packs --------------------------------------------------------------------------------

    async def _bare(
        self, nodes: Sequence[Node], *, are_open: bool = False, are_told: bool = False
    ) -> None:
        """Directories and links."""
        pack = Pack(self._folder)
        await in_thread(partial(pack.add_bare, nodes, are_open=are_open))
        refused = await self._extract(pack, Task())
        for node, _ in pack.packed:
            if are_told and node.path not in refused:
                self._told.teller.copied(node.path)

    async def _pack(self, nodes: list[Node]) -> None:
        """Small files."""
        size = sum(node.size for node in nodes)
        task = self._told.teller.began(nodes[0].path, len(nodes), size)
        try:
            pack = await in_thread(Pack(self._folder).add_files, nodes)
            self._told.problems_of(pack.problems)
            refused = await self._extract(pack, task)
            for node, size in pack.packed:
                if node.path not in refused:
                    self._told.copied(node.path, size)
        finally:
            task.end()

    async def _extract(self, pack: Pack, task: Task) -> set[bytes]:
        """Which members were refused; that they were is told."""
        tar = await in_thread(pack.tar)
        whole = sum(size for _, size in pack.packed)

        def arrived(done: int) -> None:
            task.at(whole * done // len(tar))

        patience = Patience()
        while True:
            try:
                answer = await self._send(Counted(BytesSource(tar), arrived))
                break
            except CallError as error:
                if error.code not in AGAIN:
                    raise
                await patience.wait(0, error)
        refused = {os.fsencode(path): str(why) for path, why in answer["refused"]}
        for path, why in refused.items():
            self._told.problem(Problem(path, why))
        return set(refused)

    async def _send(self, source: Source) -> dict[str, Any]:
        arguments = {"path": there.wire(self._top), "links": self._links}
        async with self._run.open("files.extract", arguments) as call:
            self._run.send(call, CONTENT, source)
            answer: dict[str, Any] = await call.wait()
        return answer

    # one by one ---------------------------------------------------------------------------

    async def _large(self, node: Node) -> None:
        task = self._told.teller.began(node.path, 1, node.size)
        try:
            await self._upload(node, task)
            self._told.copied(node.path, node.size)
        except (CallError, OSError) as error:
            self._told.problem(problem_of(node.path, error))
        finally:
            task.end()

    async def _upload(self, node: Node, task: Task) -> None:
        fd = await in_thread(self._folder.open, node.path)
        path = there.below(self._top, node.path)
        with LocalFile(fd, node.path) as file:
            options = {"mode": file.mode & 0o777, "mtime_ns": file.mtime_ns}
            upload = upload_id(path, file)
            await Uploading(self._run, path, file, upload, options, task.at).carry_out()

    async def _mode(self, node: Node) -> None:
        arguments = {"path": there.below(self._top, node.path), "mode": node.mode & 0o777}
        try:
            await self._run.call("files.chmod", arguments)
        except CallError as error:
            self._told.problem(problem_of(node.path, error))
