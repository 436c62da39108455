"""The tree in the sandbox, as it says it is. Nothing of it is believed that would matter here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sidecar.client.listing import FileEntry, scan, stat_many
from sidecar.client.trees.entries import Node, Problem, TreeOptions, check_count, check_path
from sidecar.errors import CallError, Code

if TYPE_CHECKING:
    from sidecar.client.run import Run

PAGE = 5000  # entries


def wire(path: bytes) -> str | bytes:
    """A path as it travels: text where it is UTF-8."""
    try:
        return path.decode()
    except UnicodeDecodeError:
        return path


def below(top: bytes, path: bytes) -> str | bytes:
    """An entry of the tree at `top`, as a path of the sandbox."""
    return wire(os.path.join(top, path) if path else top)


async def look(
    run: Run, top: bytes, options: TreeOptions
) -> tuple[dict[bytes, Node], list[Problem]]:
    """All entries of the directory `top`, in the order of a walk: a directory stands before what
    is in it. None if there is no such directory."""
    found: dict[bytes, Node] = {}
    problems: list[Problem] = []
    arguments: dict[str, Any] = {"path": wire(top), "recursive": True, "limit": PAGE}
    arguments |= {"exclude": list(options.exclude)} if options.exclude else {}
    arguments |= {"ignore": "git"} if options.git_ignore else {}
    try:
        async for entry in scan(run, "files.list", arguments):
            _take(entry, found, problems)
            check_count(len(found) + len(problems))
    except CallError as error:
        if error.code is not Code.NOT_FOUND or found:
            raise
    return found, problems


def _take(entry: FileEntry, found: dict[bytes, Node], problems: list[Problem]) -> None:
    path = os.fsencode(entry.name)
    why = check_path(path)
    if why is None and entry.error is not None:
        why = entry.error.message
    if why is not None:
        problems.append(Problem(path, why))
        return
    target = None if entry.target is None else os.fsencode(entry.target)
    found[path] = Node(path, entry.type, entry.size, entry.mode, entry.mtime_ns, target)


async def digests(run: Run, top: bytes, nodes: list[Node]) -> dict[bytes, bytes]:
    """The SHA-256 of these files; those that cannot be read are left out."""
    paths = [below(top, node.path) for node in nodes]
    entries = stat_many(run, paths, follow=False, hash=True)
    found = [entry.sha256 async for entry in entries]
    pairs = zip(nodes, found, strict=True)
    return {node.path: sha256 for node, sha256 in pairs if sha256 is not None}
