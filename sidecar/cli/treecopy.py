"""What `sidecar cp -r` does: where a folder goes, as cp(1) decides it, and what is said at the end.

An existing folder is copied into, a missing one is made and becomes the copy. One that an earlier,
unfinished copy of the same source has made counts as missing: so the same command goes on.
"""

from __future__ import annotations

import os
import stat

from anyio.to_thread import run_sync as in_thread

from sidecar.cli.output import FAILED, complain
from sidecar.cli.progress import tree_progress
from sidecar.client import CallError, Code, Run
from sidecar.client.trees import (
    TreeCopied,
    TreeOptions,
    download_tree,
    is_unfinished_here,
    is_unfinished_there,
    upload_tree,
)
from sidecar.client.trees.there import wire


def options(
    exclude: tuple[str, ...], git_ignore: bool, checksum: bool, all_links: bool
) -> TreeOptions:
    """What the options of the verb say. Patterns may hold bytes that are not UTF-8."""
    patterns = tuple(wire(os.fsencode(pattern)) for pattern in exclude)
    return TreeOptions(patterns, git_ignore, checksum, all_links)


class TreeCopy:
    """One folder, in or out: `here` is the path of this machine, `there` that of the sandbox."""

    def __init__(
        self, run: Run, here: str, there: str | bytes, options: TreeOptions, verbose: bool
    ) -> None:
        self._run = run
        self._here = os.fsencode(here)
        self._there = os.fsencode(there)
        self._options = options
        self._verbose = verbose

    async def upload(self, parents: bool) -> int | None:
        """The exit status; None if the source is no folder."""
        mode = (await in_thread(os.lstat, self._here)).st_mode
        if stat.S_ISLNK(mode):
            raise OSError(0, _A_LINK, os.fsdecode(self._here))
        if not stat.S_ISDIR(mode):
            return None
        target = await self._target_there()
        if parents:
            above = os.path.dirname(target.rstrip(b"/"))
            if above:
                await self._run.files.mkdir(wire(above), parents=True, exist_ok=True)
        with tree_progress(verbose=self._verbose) as teller:
            done = await upload_tree(self._run, self._here, target, self._options, teller)
        return self._end(done, f":{os.fsdecode(target)}")

    async def download(self) -> int | None:
        """The exit status; None if the source is no folder."""
        found = await self._run.files.stat(wire(self._there), follow=self._there.endswith(b"/"))
        if found.type == "symlink":
            raise OSError(0, _A_LINK, f":{os.fsdecode(self._there)}")
        if not found.is_directory:
            return None
        target = await self._target_here()
        with tree_progress(verbose=self._verbose) as teller:
            done = await download_tree(self._run, self._there, target, self._options, teller)
        return self._end(done, os.fsdecode(target))

    async def _target_there(self) -> bytes:
        target = self._there
        name = own_name(self._here)
        if not name:
            return target
        try:
            found = await self._run.files.stat(wire(target), follow=True)
        except CallError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            return target
        if not found.is_directory:
            raise CallError(Code.NOT_DIRECTORY, f":{os.fsdecode(target)} is a {found.type}")
        if await is_unfinished_there(self._run, self._here, target):
            return target
        return os.path.join(target, name)

    async def _target_here(self) -> bytes:
        name = own_name(self._there)
        if not name or not await in_thread(os.path.exists, self._here):
            return self._here
        if await is_unfinished_here(self._run, self._there, self._here):
            return self._here
        return os.path.join(self._here, name)

    def _end(self, done: TreeCopied, where: str) -> int:
        if self._verbose:
            complain(
                f"{done.files} files, {done.bytes} bytes -> {where}; {done.same} were there already"
            )
        if done.problems:
            entries = "entry was" if done.problems == 1 else "entries were"
            complain(f"{done.problems} {entries} not copied")
            return FAILED
        return 0


def own_name(source: bytes) -> bytes:
    """The name that the copy of a folder has in another one; none for `SRC/.`, `..` and the like,
    of which only what is in them is copied."""
    name = os.path.basename(source.rstrip(b"/"))
    return b"" if name in (b".", b"..") else name


_A_LINK = "is a link, which -r does not follow: with a slash at its end it is what it leads to"
