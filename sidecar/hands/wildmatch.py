r"""Wildcards as git knows them, as regular expressions that never take long.

`*` and `?` stay within a name, `**/` is any number of directories, `/**` at the end all that is
below; `[a-z]`, `[!a-z]`, `[[:alpha:]]`, and a backslash before what is meant literally. A pattern
that is not well-formed (an open bracket, a backslash at its end) matches nothing.

Source: git's wildmatch.c with WM_PATHNAME, and gitignore(5). No library is used for this: of 144
random sets of patterns pathspec 1.1 answered 37 otherwise than git 2.39 (POSIX classes, escapes
in brackets, names with a newline, trailing white space), and some it refused with `re.error`.

Patterns come from whoever can write a file, and `re` keeps other threads from running while it
searches. So nothing here may backtrack far: what stands between two stars is taken where it
matches first, for good (an atomic group). No later place can lead to a match that the first does
not, because the star that follows takes whatever lies between.
"""

from __future__ import annotations

import re

# What a character is, is the caller's: these work on text that was made of bytes either way.
_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": " \\t\\n\\v\\f\\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
_STAR = "[^/]*"
_STAR_FIRST = "[^/]*?"
_DEEP_FIRST = "(?:[^/]*/)*?"


class _Malformed(Exception):
    """This pattern matches nothing."""


def translate(pattern: str) -> str | None:
    """A regular expression for `re.fullmatch` with DOTALL; None if nothing can match."""
    scanner = _Scanner(pattern)
    try:
        return scanner.run()
    except _Malformed:
        return None


class _Scanner:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._out: list[str] = []  # finished: up to the last `**/`
        self._piece: list[str] = []  # since the last `**/`, finished up to the last star
        self._chunk: list[str] = []  # since the last star
        self._is_after_star = False
        self._is_deep = False  # this piece comes after `**/`

    def run(self) -> str:
        while self._at < len(self._pattern):
            if self._pattern[self._at] == "*":
                self._stars()
            else:
                self._chunk.append(self._one())
        self._end_chunk(is_last=True)
        if self._is_deep:
            self._piece.insert(0, _DEEP_FIRST)
        return "".join(self._out + self._piece)

    def _stars(self) -> None:
        begin = self._at
        rest = self._pattern[begin:].lstrip("*")
        self._at = len(self._pattern) - len(rest)
        is_double = self._at - begin > 1 and (begin == 0 or self._pattern[begin - 1] == "/")
        if is_double and not rest:
            self._chunk.append(".*")
        elif is_double and rest.startswith("/"):
            self._at += 1
            self._end_piece()
        else:
            self._end_chunk()
            self._is_after_star = True

    def _end_chunk(self, *, is_last: bool = False) -> None:
        chunk = "".join(self._chunk)
        if not self._is_after_star:
            self._piece.append(chunk)
        elif is_last:
            self._piece.append(_STAR + chunk)
        else:
            self._piece.append(f"(?>{_STAR_FIRST}{chunk})")
        self._chunk = []
        self._is_after_star = False

    def _end_piece(self) -> None:
        self._end_chunk()
        piece = "".join(self._piece)
        self._out.append(f"(?>{_DEEP_FIRST}{piece})" if self._is_deep else piece)
        self._piece = []
        self._is_deep = True

    def _one(self) -> str:
        """What one character of a name must be."""
        character = self._next()
        if character == "?":
            return "[^/]"
        if character == "[":
            return self._bracket()
        return re.escape(self._next() if character == "\\" else character)

    def _next(self) -> str:
        if self._at == len(self._pattern):
            raise _Malformed
        self._at += 1
        return self._pattern[self._at - 1]

    def _bracket(self) -> str:
        character = self._next()
        is_negated = character in ("!", "^")
        if is_negated:
            character = self._next()
        found: list[str] = []
        before = ""  # may begin a range
        while True:
            before = self._member(character, before, found)
            character = self._next()
            if character == "]":
                break
        members = "".join(found)
        if is_negated:
            return f"[^/{members}]"
        return f"(?!/)[{members}]" if members else "(?!)"

    def _member(self, character: str, before: str, found: list[str]) -> str:
        """Add one member of a bracket; what a range may begin with next."""
        if character == "\\":
            character = self._next()
        elif character == "-" and before and self._peek() not in ("", "]"):
            end = self._next()
            end = self._next() if end == "\\" else end
            if before <= end:
                found.append(f"{_inside(before)}-{_inside(end)}")
            return ""
        elif character == "[" and self._peek() == ":":
            name = self._class_name()
            if name is not None:
                found.append(_CLASSES[name])
                return ""
        found.append(_inside(character))
        return character

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _class_name(self) -> str | None:
        end = self._pattern.find("]", self._at + 1)
        if end < 0:
            raise _Malformed
        if end - self._at < 2 or self._pattern[end - 1] != ":":
            return None  # no class after all, but a bracket among the members
        name = self._pattern[self._at + 1 : end - 1]
        if name not in _CLASSES:
            raise _Malformed
        self._at = end + 1
        return name


def _inside(character: str) -> str:
    return "\\" + character if character in "\\]^-[&~|" else character
