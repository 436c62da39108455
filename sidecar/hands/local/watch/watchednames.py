"""The names of a tree that is watched, as they were told."""

from __future__ import annotations

from sidecar.hands.fileinterface import FileType
from sidecar.hands.local.walk.choosing import Choice
from sidecar.hands.local.walk.ignoring import Rules
from sidecar.hands.local.watch.changes import Changes
from sidecar.hands.local.watch.inotify import Inotify

NAMES = 1_000_000  # of entries that are no directories


class Node:
    """A directory with a watch. Of its entries, those with a watch are nodes as well."""

    __slots__ = ("entries", "name", "parent", "rules", "wd")

    def __init__(self, name: bytes, parent: Node | None, wd: int, rules: Rules | None) -> None:
        self.name = name
        self.parent = parent
        self.wd = wd
        self.rules = rules
        self.entries: dict[bytes, Node | FileType] = {}

    @property
    def names(self) -> list[bytes]:
        """From the watched folder down to here."""
        names = []
        node: Node = self
        while node.parent is not None:
            names.append(node.name)
            node = node.parent
        return names[::-1]

    def path(self, name: bytes) -> bytes:
        return b"/".join([*self.names, name])

    def is_below(self, other: Node) -> bool:
        node: Node | None = self
        while node is not None and node is not other:
            node = node.parent
        return node is not None


class Names:
    """Directories by their watch descriptors, and in each what was seen. What comes and goes here
    is told, unless that `is_quiet`."""

    def __init__(self, kernel: Inotify, choice: Choice, changes: Changes) -> None:
        self.nodes: dict[int, Node] = {}
        self.is_quiet = False
        self._kernel = kernel
        self._choice = choice
        self._changes = changes
        self._count = 0  # of entries that are no nodes

    @property
    def is_full(self) -> bool:
        """Whether there may be names that are not here."""
        return self._count >= NAMES

    def hides(self, node: Node, name: bytes, *, is_directory: bool) -> bool:
        path, rules = node.path(name), node.rules
        return self._choice.leaves_out(path, name, rules, is_directory=is_directory)

    def note(self, node: Node, name: bytes, type: FileType) -> None:
        """An entry without a watch, which is not hidden."""
        if name in node.entries:
            node.entries[name] = type
            return
        self.remember(node, name, type)
        if not self.is_quiet:
            self._changes.added(node.path(name), type)

    def remember(self, node: Node, name: bytes, type: FileType) -> None:
        if self._count < NAMES:
            self._count += 1
            node.entries[name] = type

    def enter(self, node: Node) -> None:
        """A directory that has a watch now."""
        assert node.parent is not None
        if node.parent.entries.pop(node.name, None) is not None:
            self._count -= 1  # it could not be entered before
        elif not self.is_quiet:
            self._changes.added(node.parent.path(node.name), FileType.DIRECTORY)
        node.parent.entries[node.name] = self.nodes[node.wd] = node

    def drop(self, node: Node, name: bytes) -> None:
        """`name` is not there any more, with all below it."""
        found: list[tuple[bytes, FileType]] = []
        waiting = [(node.path(name), node.entries.pop(name))]
        while waiting:
            path, entry = waiting.pop()
            if isinstance(entry, Node):
                waiting.extend((path + b"/" + below, it) for below, it in entry.entries.items())
                if self.nodes.pop(entry.wd, None) is not None:
                    self._kernel.unwatch(entry.wd)
                found.append((path, FileType.DIRECTORY))
            else:
                self._count -= 1
                found.append((path, entry))
        if not self.is_quiet:
            for path, type in reversed(found):  # a directory after what was in it
                self._changes.removed(path, type)
