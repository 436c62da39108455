"""Entries of a local tree as a tar stream, for `files.extract`: POSIX pax format (pax(1)).

Each member has its time in nanoseconds, as an extended header, because by time and size a file is
known again; names are bytes (`hdrcharset`), as the standard library's `tarfile` writes them.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
from collections.abc import Sequence

from sidecar.client.trees.entries import SMALL, Node, Problem
from sidecar.client.trees.here import OWNER, Folder
from sidecar.client.trees.working import problem_of

LEVEL = 1  # of gzip: text becomes a quarter, at more than any channel carries
END = bytes(2 * tarfile.BLOCKSIZE)

_TYPES = {"directory": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE}


class Pack:
    """Some entries packed; blocks, and is made in a thread."""

    def __init__(self, folder: Folder) -> None:
        self.packed: list[tuple[Node, int]] = []  # with how many bytes of it there were
        self.problems: list[Problem] = []
        self._folder = folder
        self._blocks: list[bytes] = []

    def add_files(self, nodes: Sequence[Node]) -> Pack:
        """Each as it is now; what cannot be read is a problem."""
        for node in nodes:
            try:
                content, found = self._folder.read(node.path, SMALL)
            except OSError as error:
                self.problems.append(problem_of(node.path, error))
                continue
            mode = stat.S_IMODE(found.st_mode)
            self._blocks.append(_header(node, mode, found.st_mtime_ns, len(content)))
            self._blocks.append(content)
            self._blocks.append(bytes(-len(content) % tarfile.BLOCKSIZE))
            self.packed.append((node, len(content)))
        return self

    def add_bare(self, nodes: Sequence[Node], *, are_open: bool = False) -> Pack:
        """Directories and links. `are_open`: directories that are still to be written into."""
        for node in nodes:
            mode = node.mode | OWNER if are_open else node.mode
            self._blocks.append(_header(node, mode, node.mtime_ns, 0))
            self.packed.append((node, 0))
        return self

    def tar(self) -> bytes:
        return gzip.compress(b"".join([*self._blocks, END]), LEVEL, mtime=0)


def _header(node: Node, mode: int, mtime_ns: int, size: int) -> bytes:
    member = tarfile.TarInfo(os.fsdecode(node.path))
    member.type = _TYPES.get(node.kind, tarfile.REGTYPE)
    member.linkname = os.fsdecode(node.target or b"")
    member.mode = mode & 0o777
    member.size = size
    member.mtime = max(0, mtime_ns // 10**9)
    member.pax_headers = {"mtime": _seconds(mtime_ns)}
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _seconds(ns: int) -> str:
    """As a decimal, exactly: a float has lost the last three digits."""
    sign = "-" if ns < 0 else ""
    return f"{sign}{abs(ns) // 10**9}.{abs(ns) % 10**9:09d}"
