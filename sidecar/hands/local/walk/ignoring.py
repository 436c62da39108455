r"""What .gitignore files and patterns like theirs leave out.

Source: gitignore(5), and dir.c of git 2.39 where that is silent: an entry is judged by the last
pattern that matches, of the deepest file that has one; what is in a directory that is left out
is never looked at, so no `!` brings it back.

Names are bytes, and one byte is one character, as for git: text here is ISO 8859-1 of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sidecar.hands.names import as_bytes
from sidecar.hands.wildmatch import translate

KEPT_FILES = 64  # .gitignore files that stay translated, by their content
_SPECIAL = re.compile(r"[*?\[\\]")


@dataclass(frozen=True, slots=True)
class _Run:
    """Patterns that follow one another and agree on what they say."""

    leaves_out: bool
    names: re.Pattern[str] | None  # of any entry
    paths: re.Pattern[str] | None
    directory_names: re.Pattern[str] | None
    directory_paths: re.Pattern[str] | None

    def matches(self, path: str, name: str, *, is_directory: bool) -> bool:
        return bool(
            (self.names and self.names.fullmatch(name))
            or (self.paths and self.paths.fullmatch(path))
            or (is_directory and self.directory_names and self.directory_names.fullmatch(name))
            or (is_directory and self.directory_paths and self.directory_paths.fullmatch(path))
        )


class Patterns:
    """The patterns of one file, for paths relative to its directory."""

    def __init__(self, patterns: Iterable[str]) -> None:
        runs: list[tuple[bool, list[str]]] = []
        for pattern in patterns:
            leaves_out = not pattern.startswith("!")
            if not runs or runs[-1][0] is not leaves_out:
                runs.append((leaves_out, []))
            runs[-1][1].append(pattern if leaves_out else pattern[1:])
        self._runs = [_run(*run) for run in reversed(runs)]

    def judge(self, path: str, name: str, *, is_directory: bool) -> bool | None:
        """True: left out; False: brought back; None: nothing is said."""
        for run in self._runs:
            if run.matches(path, name, is_directory=is_directory):
                return run.leaves_out
        return None


class Rules:
    """What holds in one directory: its own file, and those of the directories above."""

    def __init__(self, patterns: Patterns, begin: int, lead: str, above: Rules | None) -> None:
        """The patterns are of the directory `begin` bytes into the paths of the walk, or, with
        `lead`, of one above its start."""
        self._patterns = patterns
        self._begin = begin
        self._lead = lead
        self._above = above

    def leave_out(self, path: bytes, name: bytes, *, is_directory: bool) -> bool:
        """Whether the entry `path`, as seen from the start, is left out."""
        text, last = path.decode("latin-1"), name.decode("latin-1")
        rules: Rules | None = self
        while rules is not None:
            below = rules._lead + text[rules._begin :]
            said = rules._patterns.judge(below, last, is_directory=is_directory)
            if said is not None:
                return said
            rules = rules._above
        return False


def from_arguments(exclude: Sequence[str | bytes]) -> Patterns:
    """Patterns that a caller gave. They are no lines of a file: nothing is a comment."""
    return Patterns([as_bytes(pattern, "pattern").decode("latin-1") for pattern in exclude])


@lru_cache(KEPT_FILES)
def parse(content: bytes) -> Patterns:
    """The patterns of a file."""
    lines = content.removeprefix(b"\xef\xbb\xbf").decode("latin-1").split("\n")
    return Patterns([_trim(line) for line in lines if line and not line.startswith("#")])


def _trim(line: str) -> str:
    """Without the spaces at its end, unless a backslash stands before them."""
    line = line.removesuffix("\r").partition("\0")[0]
    at = end = 0
    while at < len(line):
        at += 2 if line[at] == "\\" else 1
        if line[at - 1 : at] != " " or line[at - 2 : at - 1] == "\\":
            end = at
    return line[:end]


def _run(leaves_out: bool, patterns: list[str]) -> _Run:
    found: dict[tuple[bool, bool], list[str]] = {}
    for pattern in patterns:
        is_of_directories = pattern.endswith("/")
        pattern = pattern.removesuffix("/")
        is_path = "/" in pattern
        expression = _of_path(pattern) if is_path else translate(pattern)
        if expression is not None:
            found.setdefault((is_of_directories, is_path), []).append(expression)
    kinds = [(False, False), (False, True), (True, False), (True, True)]
    return _Run(leaves_out, *(_any(found.get(kind, [])) for kind in kinds))


def _of_path(pattern: str) -> str | None:
    """What comes before the first wildcard is compared apart, and what follows is a pattern of its
    own. So for git `a**/b` matches `ab`, too."""
    pattern = pattern.removeprefix("/")
    special = _SPECIAL.search(pattern)
    begin = special.start() if special else len(pattern)
    rest = translate(pattern[begin:])
    return None if rest is None else re.escape(pattern[:begin]) + rest


def _any(expressions: list[str]) -> re.Pattern[str] | None:
    if not expressions:
        return None
    return re.compile("|".join(f"(?:{expression})" for expression in expressions), re.DOTALL)
