"""The folders beside the workspace that may be touched, as a setting writes them down.

    PATH[:ro|:rw],PATH[:ro|:rw],...

Each is absolute; without a word after it, it is for reading only. A comma cannot be part of one,
and a colon only where what follows it is neither of the two words.

One root may lie in another only if it may be changed and the outer one may not: a path through
the outer one would otherwise change what the inner one says is to stay, or nothing is gained by
it. That goes for the workspace, too, which may be changed: no root lies in it, and one that it
lies in is for reading only. Compared are real paths; what is mounted at two places may be
changed through either (mount(8), bind mounts).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.access import problem_of_folder

MAX_LIST = 4096  # characters: it is shown whole among the capabilities


@dataclass(frozen=True, slots=True)
class ListedRoot:
    """One folder of the list, and whether what is below it may be changed."""

    path: str
    writable: bool = False

    def __str__(self) -> str:
        return f"{self.path}:{'rw' if self.writable else 'ro'}"


def parse_roots(text: str) -> list[ListedRoot]:
    """What `text` lists, unchecked; nothing for nothing."""
    found = []
    for item in filter(None, (item.strip() for item in text.split(","))):
        path, _, word = item.rpartition(":")
        if path and word in ("ro", "rw"):
            found.append(ListedRoot(path, word == "rw"))
        else:
            found.append(ListedRoot(item))
    return found


def problems_of_roots(text: str, workspace: str, name: str) -> list[str]:
    """What is wrong with the list `text`, each with how to mend it; the setting is called `name`.

    Looks at the folders, of which `workspace` is one.
    """
    if len(text) > MAX_LIST:
        return [f"{name} has {len(text)} characters: at most {MAX_LIST} allowed"]
    roots = parse_roots(text)
    problems = [problem for root in roots for problem in _problems(root)]
    if not problems:
        problems = _overlaps([ListedRoot(workspace, writable=True), *roots])
    return [f"{name}: {problem}" for problem in problems]


def _problems(root: ListedRoot) -> list[str]:
    if not os.path.isabs(root.path):
        return [f"{root.path!r} is not absolute: say where it is from /"]
    if not os.path.isdir(root.path):
        return [f"{root.path!r} is not a folder; make it or take it off the list"]
    if problem := problem_of_folder(root.path):
        return [f"{root.path!r}: {problem}"]
    return []


def _overlaps(roots: Sequence[ListedRoot]) -> list[str]:
    """What is wrong where one lies in another; the workspace comes first."""
    real = [os.path.realpath(root.path) for root in roots]
    problems = []
    for at, inner in enumerate(roots):
        for other, outer in enumerate(roots):
            if at == other or os.path.commonpath([real[at], real[other]]) != real[other]:
                continue
            if real[at] == real[other]:
                is_wrong = at > other  # told once
            else:
                is_wrong = outer.writable or not inner.writable
            if is_wrong:
                problems.append(_explain(inner.path, outer, outer is roots[0], inner is roots[0]))
    return problems


def _explain(inner: str, outer: ListedRoot, in_workspace: bool, is_workspace: bool) -> str:
    if is_workspace:
        return f"the workspace lies in {outer.path!r}: only {outer.path}:ro can be"
    where = "the workspace" if in_workspace else repr(outer.path)
    return f"{inner!r} lies in {where}, where paths reach it already: take it off the list"
