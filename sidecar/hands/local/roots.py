"""The workspace and the other folders that may be touched, as one tree of paths.

A relative path is of the workspace. An absolute one belongs to the root that it lies below; of
several, to the deepest. Each root is confined by itself (`beneath`): no link and no `..` leads
from one into another.

A root may be for reading only. That binds what hands does to paths; a program may change whatever
its user may, wherever it was started.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sidecar.errors import CallError, Code, Outside, show_path
from sidecar.hands.fileinterface import Path
from sidecar.hands.local.beneath import Beneath, Place
from sidecar.hands.names import as_bytes, split
from sidecar.hands.rootlist import ListedRoot


@dataclass(frozen=True, slots=True)
class Root:
    """One folder, and whether what is below it may be changed."""

    beneath: Beneath
    writable: bool = True


class Roots:
    """Finds the root of a path, with the face of `Beneath`; keeps what is read-only as it is."""

    def __init__(self, workspace: Beneath, others: Iterable[Root] = ()) -> None:
        """The roots are ours to close from now on."""
        self.workspace = workspace
        self.others = tuple(others)
        self._home = Root(workspace)
        self._by_name = sorted(
            (
                (split(name), root)
                for root in (self._home, *self.others)
                for name in root.beneath.names
            ),
            key=lambda item: len(item[0]),
            reverse=True,
        )

    def describe(self) -> str:
        """All but the workspace, as a setting lists them."""
        return ",".join(
            str(ListedRoot(os.fsdecode(root.beneath.names[0]), root.writable))
            for root in self.others
        )

    def close(self) -> None:
        """Release the roots; descriptors that were handed out stay good."""
        for root in (self._home, *self.others):
            root.beneath.close()

    def of(self, path: Path, *, write: bool = False) -> Beneath:
        """The root that `path` belongs to. Raises `Outside`, or `read_only` if it is to be
        changed and must not."""
        root = self._find(path)
        if write and not root.writable:
            raise CallError(
                Code.READ_ONLY, f"{show_path(path)} lies below a root that is read-only", path=path
            )
        return root.beneath

    def of_both(self, source: Path, target: Path) -> Beneath:
        """The one root of an entry that gets another name. Raises `read_only`, or `unsupported`
        for two roots: each may have a file system and rules of its own."""
        root = self.of(target, write=True)
        if self._find(source).beneath is not root:
            raise CallError(
                Code.UNSUPPORTED,
                f"{show_path(source)} and {show_path(target)} lie below different roots: copy it",
                path=source,
            )
        return root

    def resolve(self, path: Path, *, follow: bool = True, write: bool = False) -> int:
        """See `Beneath.resolve`. `write`: what it leads to is to be changed."""
        return self.of(path, write=write).resolve(path, follow=follow)

    def resolved(
        self, path: Path, *, follow: bool = True, write: bool = False
    ) -> AbstractContextManager[int]:
        """See `Beneath.resolved`."""
        return self.of(path, write=write).resolved(path, follow=follow)

    def parent(self, path: Path, *, write: bool = True) -> AbstractContextManager[Place]:
        """See `Beneath.parent`. An entry is named to be changed, unless `write` is False."""
        return self.of(path, write=write).parent(path)

    def relative(self, path: Path) -> bytes:
        """`path` as seen from its own root: for that one (`of`), not for us."""
        return self.of(path).relative(path)

    def _find(self, path: Path) -> Root:
        """The deepest root whose name `path` begins with; most calls say no absolute path."""
        if not self.others:
            return self._home
        encoded = as_bytes(path, "path")
        if not encoded.startswith(b"/"):
            return self._home
        names = split(encoded)
        for prefix, root in self._by_name:
            if names[: len(prefix)] == prefix:
                return root
        raise Outside(path)


def open_roots(
    workspace: Path, others: Sequence[ListedRoot] = (), *, use_openat2: bool | None = None
) -> Roots:
    """Open all of them or none; see `Beneath`."""
    opened: list[Beneath] = []
    try:
        for path in (workspace, *(root.path for root in others)):
            opened.append(Beneath(path, use_openat2=use_openat2))
    except BaseException:
        for beneath in opened:
            beneath.close()
        raise
    home, *rest = opened
    return Roots(home, [Root(b, root.writable) for b, root in zip(rest, others, strict=True)])
