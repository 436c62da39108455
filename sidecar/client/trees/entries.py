"""What a tree is made of, and what has to be done to make one like another.

Decides, and does nothing: entries in, a plan out. A path is bytes below the top of the tree, names
joined by single slashes; the top itself is none of the entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sidecar.errors import LimitExceeded
from sidecar.hands.names import SELF, UP, is_part

SMALL = 1024 * 1024  # bytes; a file up to this travels with others, a larger one by itself
PACK_BYTES = 4 * 1024 * 1024  # of the files that travel together, and are held in memory
PACK_FILES = 500
PATH_BYTES = 64 * 1024  # of their paths: they are the arguments of one call
MOST_ENTRIES = 2_000_000  # of one tree, some 600 bytes each

Kind = Literal["file", "directory", "symlink"]


@dataclass(frozen=True, slots=True)
class TreeOptions:
    """`exclude`: patterns as in .gitignore. `git_ignore`: leave out what the .gitignore files of
    the tree name, and `.git`. `checksum`: a file is the same if its SHA-256 is, whatever its time.
    `all_links`: keep also links that lead out of the tree, which are refused otherwise."""

    exclude: tuple[str | bytes, ...] = ()
    git_ignore: bool = False
    checksum: bool = False
    all_links: bool = False


EVERYTHING = TreeOptions()


@dataclass(frozen=True, slots=True)
class TreeCopied:
    """What a copy came to. `same`: files and links that were there already; `problems`: entries
    that were not copied, each of which was told."""

    files: int
    bytes: int
    same: int
    problems: int


@dataclass(frozen=True, slots=True)
class Node:
    """One entry of a tree; its time is nanoseconds."""

    path: bytes
    kind: str  # as `files.stat` has it
    size: int
    mode: int
    mtime_ns: int
    target: bytes | None = None  # of a link


@dataclass(frozen=True, slots=True)
class Problem:
    """An entry that is not copied, and why."""

    path: bytes
    why: str


@dataclass(slots=True)
class Plan:
    """What is to be done; `same` entries need nothing."""

    directories: list[Node] = field(default_factory=list)  # all, each before what is in it
    links: list[Node] = field(default_factory=list)
    small: list[Node] = field(default_factory=list)
    large: list[Node] = field(default_factory=list)
    modes: list[Node] = field(default_factory=list)  # the bytes are the same, the mode is not
    problems: list[Problem] = field(default_factory=list)
    same: int = 0

    @property
    def files(self) -> int:
        return len(self.small) + len(self.large)

    @property
    def bytes(self) -> int:
        return sum(node.size for node in self.small) + sum(node.size for node in self.large)

    def packs(self) -> Iterator[list[Node]]:
        """The small files, so many together as one call takes."""
        return packs_of(self.small)


def plan_of(
    source: Iterable[Node],
    target: Mapping[bytes, Node],
    *,
    equal: frozenset[bytes] | None = None,
    all_links: bool = False,
) -> Plan:
    """How `target` becomes like `source`, whose directories come before what is in them.

    `equal`: the paths of files whose bytes were found the same; without it, those count as the
    same that have one size and time. Nothing is removed: what is in the way is a problem.
    """
    plan = Plan()
    closed: bytes | None = None  # the directory that cannot be made, and a slash
    for node in source:
        if closed is not None and node.path.startswith(closed):
            continue
        closed = None
        there = target.get(node.path)
        why = _obstacle(node, there, all_links=all_links)
        if why is not None:
            plan.problems.append(Problem(node.path, why))
            closed = node.path + b"/" if node.kind == "directory" else None
        elif node.kind == "directory":
            plan.directories.append(node)
        elif node.kind == "symlink":
            _place(plan, node, there, plan.links)
        else:
            same = None if equal is None else node.path in equal
            _place(plan, node, there, plan.small if node.size <= SMALL else plan.large, same)
    return plan


def _obstacle(node: Node, there: Node | None, *, all_links: bool) -> str | None:
    """Why `node` cannot be copied."""
    if node.kind not in ("file", "directory", "symlink"):
        return f"is a {node.kind}, which is not copied"
    if node.kind == "symlink" and not all_links and leads_out(node):
        return "is a link that leads out of the tree"
    if there is not None and (there.kind == "directory") != (node.kind == "directory"):
        what = "a directory" if there.kind == "directory" else f"a {there.kind}, no directory"
        return f"is a {node.kind}; what is in its place is {what}"
    return None


def _place(
    plan: Plan, node: Node, there: Node | None, into: list[Node], same: bool | None = None
) -> None:
    if there is None or not (_is_same(node, there) if same is None else same):
        into.append(node)
        return
    plan.same += 1
    if node.kind == "file" and node.mode & 0o777 != there.mode & 0o777:
        plan.modes.append(node)


def _is_same(node: Node, there: Node) -> bool:
    if node.kind != there.kind:
        return False
    if node.kind == "symlink":
        return node.target == there.target
    return node.size == there.size and node.mtime_ns == there.mtime_ns


def leads_out(link: Node) -> bool:
    """Whether what a link says leaves the tree, by its text alone: the links on its way are not
    looked at. No harm comes of a wrong answer, because nobody here follows one."""
    target = link.target or b""
    if target.startswith(b"/"):
        return True
    depth = link.path.count(b"/")
    for name in target.split(b"/"):
        depth += {UP: -1, SELF: 0, b"": 0}.get(name, 1)
        if depth < 0:
            return True
    return False


def packs_of(files: Iterable[Node]) -> Iterator[list[Node]]:
    """Groups of files that travel together."""
    pack: list[Node] = []
    size = paths = 0
    for node in files:
        size += node.size
        paths += len(node.path)
        if pack and (size > PACK_BYTES or paths > PATH_BYTES or len(pack) == PACK_FILES):
            yield pack
            pack, size, paths = [], node.size, len(node.path)
        pack.append(node)
    if pack:
        yield pack


def check_path(path: bytes) -> str | None:
    """What is wrong with a path that a stranger says is in his tree; None: nothing is."""
    names = path.split(b"/")
    if any(name in (b"", SELF, UP) or b"\0" in name for name in names):
        return "is no path below the top of the tree"
    if any(is_part(name) for name in names):
        return "has the name of a file that is still being written"
    return None


def check_count(count: int) -> None:
    """Raises `limit` for a tree that is too large to be planned in memory."""
    if count > MOST_ENTRIES:
        raise LimitExceeded("entries of a tree", size=count, limit=MOST_ENTRIES)
