"""The .gitignore files that count in a directory.

They are those of the directory and of the ones above it, up to the root or to the next one that
has a `.git`. Other places where git looks do not count: core.excludesFile and info/exclude say
what one user wants, and which files git has in its index is not asked. A .gitignore that is a
link is not read, as in git (gitignore(5)); one that cannot be read says nothing.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from sidecar.errors import LimitExceeded
from sidecar.hands.local.beneath import Beneath, through_proc
from sidecar.hands.local.walk.descent import identity
from sidecar.hands.local.walk.ignoring import Patterns, Rules, parse
from sidecar.hands.names import SELF

IGNORE_FILE = b".gitignore"
GIT = b".git"
FILE_BYTES = 256 * 1024  # of one .gitignore; a larger one ends the walk
_LOOK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def rules_in(directory: int, begin: int, above: Rules | None) -> Rules | None:
    """The rules in a directory, whose entries have paths with their names from `begin` on."""
    if above is not None and _is_repository(directory):
        above = None
    patterns = _read(directory)
    return above if patterns is None else Rules(patterns, begin, "", above)


def rules_above(beneath: Beneath, start: int) -> Rules | None:
    """What the directories between the root and the start of a walk say about what is below it.

    If they leave out the start itself, nothing: who asks for it is to see it.
    """
    root = beneath.resolve(SELF)
    try:
        names = _names_between(root, start)
        found = _on_the_way(root, start, names)
    except OSError:
        return None  # it is being moved
    finally:
        os.close(root)
    rules = None
    for index, patterns in found:
        rules = Rules(patterns, 0, "/".join(names[index:]) + "/", rules)
    return rules


def _names_between(root: int, start: int) -> list[str]:
    above = os.readlink(through_proc(root).encode()).rstrip(b"/") + b"/"
    path = os.readlink(through_proc(start).encode())
    return path.removeprefix(above).decode("latin-1").split("/") if path.startswith(above) else []


def _on_the_way(root: int, start: int, names: list[str]) -> list[tuple[int, Patterns]]:
    """Patterns, and how many of `names` lead to the directory that has them."""
    found: list[tuple[int, Patterns]] = []
    here = os.dup(root)
    try:
        for index, name in enumerate(names):
            if _is_repository(here):
                found.clear()
            if patterns := _read(here):
                found.append((index, patterns))
            if _leaves_out(found, names[: index + 1]):
                found.clear()
            below = os.open(name.encode("latin-1"), _LOOK, dir_fd=here)
            os.close(here)
            here = below
        return found if identity(os.fstat(here)) == identity(os.fstat(start)) else []
    finally:
        os.close(here)


def _leaves_out(found: list[tuple[int, Patterns]], names: list[str]) -> bool:
    for index, patterns in reversed(found):
        said = patterns.judge("/".join(names[index:]), names[-1], is_directory=True)
        if said is not None:
            return said
    return False


def _is_repository(directory: int) -> bool:
    with suppress(OSError):
        os.stat(GIT, dir_fd=directory, follow_symlinks=False)
        return True
    return False


def _read(directory: int) -> Patterns | None:
    with suppress(OSError):
        found = os.stat(IGNORE_FILE, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode):
            return parse(_content(directory))
    return None


def _content(directory: int) -> bytes:
    fd = os.open(IGNORE_FILE, _READ, dir_fd=directory)
    try:
        content = b""
        while len(content) <= FILE_BYTES and (piece := os.read(fd, FILE_BYTES + 1)):
            content += piece
    finally:
        os.close(fd)
    if len(content) > FILE_BYTES:
        raise LimitExceeded("bytes of a .gitignore", size=len(content), limit=FILE_BYTES)
    return content
