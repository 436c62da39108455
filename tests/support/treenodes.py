"""Trees of files as plain values: what a model holds, and what lies on a disk, to be compared."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sidecar.client import Code


class Refused(Exception):
    """The code that the command should be answered."""

    def __init__(self, code: Code) -> None:
        super().__init__(code)
        self.code = code


@dataclass(eq=False)
class File:
    """Of several names, if it has hard links."""

    content: bytes = b""
    mode: int = 0o644


@dataclass(eq=False)
class Link:
    text: bytes = b""


@dataclass(eq=False)
class Fifo:
    mode: int = 0o600


@dataclass(eq=False)
class Folder:
    mode: int = 0o755
    entries: dict[bytes, Node] = field(default_factory=dict)


Node = File | Link | Fifo | Folder


@dataclass
class Place:
    """A name in something that should be a directory."""

    above: Node
    name: bytes
    has_slash: bool

    @property
    def folder(self) -> Folder:
        return folder_of(self.above)

    def find(self) -> Node | None:
        return self.folder.entries.get(self.name)

    def lstat(self) -> Node:
        """What is there."""
        found = self.find()
        if found is None:
            raise Refused(Code.NOT_FOUND)
        if self.has_slash:
            folder_of(found)
        return found

    def put(self, node: Node) -> None:
        self.folder.entries[self.name] = node


def folder_of(node: Node) -> Folder:
    """Raises `Refused` for what is none."""
    if not isinstance(node, Folder):
        raise Refused(Code.NOT_DIRECTORY)
    return node


def names_of(path: bytes) -> list[bytes]:
    """A slash at the end is a last `.`: what precedes it must be a directory."""
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    return [*names, b"."] if names and path.rpartition(b"/")[2] in (b"", b".") else names


Row = tuple[str, int, bytes]
Rows = dict[bytes, Row]


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def below(folder: Folder) -> Iterator[Node]:
    """The folder and all that is in it."""
    yield folder
    for node in folder.entries.values():
        if isinstance(node, Folder):
            yield from below(node)
        else:
            yield node


def rows_of(folder: Folder, above: bytes = b"") -> Iterator[tuple[bytes, Row]]:
    for name, node in sorted(folder.entries.items()):
        path = above + name
        match node:
            case File():
                yield path, ("file", node.mode, node.content)
            case Link():
                yield path, ("symlink", 0o777, node.text)
            case Fifo():
                yield path, ("fifo", node.mode, b"")
            case Folder():
                yield path, ("directory", node.mode, b"")
                yield from rows_of(node, path + b"/")


def rows_on_disk(top: bytes, above: bytes = b"") -> Rows:
    """The same of a real directory."""
    rows: Rows = {}
    for name in sorted(os.listdir(os.path.join(top, above))):
        path = above + name
        real = os.path.join(top, path)
        found = os.lstat(real)
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISREG(found.st_mode):
            with open(real, "rb") as file:
                rows[path] = ("file", mode, file.read())
        elif stat.S_ISLNK(found.st_mode):
            rows[path] = ("symlink", mode, os.readlink(real))
        elif stat.S_ISFIFO(found.st_mode):
            rows[path] = ("fifo", mode, b"")
        else:
            rows[path] = ("directory", mode, b"")
            rows |= rows_on_disk(top, path + b"/")
    return rows


@contextmanager
def but_missing() -> Iterator[None]:
    """What is not there is no error."""
    try:
        yield
    except Refused as refused:
        if refused.code is not Code.NOT_FOUND:
            raise
