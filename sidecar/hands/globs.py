"""Globs: which paths they name, and into which directories it is worth to look.

`*`, `?` and `[...]` stay within a name, `**/` is any number of directories; a dot at the beginning
is like any character; with a slash at its end a glob names directories only (see `wildmatch`). A
glob is compared with the whole path, so `*.py` names none in a subdirectory. A character is one
of UTF-8, or a byte that is not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sidecar.hands.fileinterface import Path
from sidecar.hands.names import as_bytes
from sidecar.hands.wildmatch import translate


class Globs:
    """Several globs, of which a path is to match any."""

    def __init__(self, globs: Sequence[Path]) -> None:
        patterns = [_text(as_bytes(glob, "glob")).removeprefix("/") for glob in globs]
        self._any = _compile([glob for glob in patterns if not glob.endswith("/")])
        self._directories = _compile([glob[:-1] for glob in patterns if glob.endswith("/")])
        self._ways = _compile([way for glob in patterns for way in _ways(glob)])

    def names(self, path: bytes, *, is_directory: bool) -> bool:
        """Whether one of them names `path`."""
        text = _text(path)
        return bool(
            self._any.fullmatch(text) or (is_directory and self._directories.fullmatch(text))
        )

    def may_name(self, path: bytes) -> bool:
        """`names`, for a path of which it is not known what it is."""
        return self.names(path, is_directory=True)

    def leads(self, path: bytes) -> bool:
        """Whether one of them may name something below the directory `path`."""
        return self._ways.fullmatch(_text(path)) is not None


def _ways(glob: str) -> list[str]:
    """Globs of the directories on the way to what `glob` names."""
    names = glob.rstrip("/").split("/")
    ways = []
    for count, name in enumerate(names):
        if count:
            ways.append("/".join(names[:count]))
        # A slash in brackets or behind a backslash is none: then look into more than is needed.
        if name.startswith("**") or translate(name) is None:
            return [*ways, "/".join([*names[:count], "**"])]
    return ways


def _compile(globs: list[str]) -> re.Pattern[str]:
    found = [expression for glob in globs if (expression := translate(glob)) is not None]
    return re.compile("|".join(f"(?:{one})" for one in found) or "(?!)", re.DOTALL)


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
