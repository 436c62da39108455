"""Our own finder of lines: a program, started by `searching` where there is no ripgrep.

It is a process of its own because nobody can end `re` while it backtracks, and because `re` keeps
all other threads waiting. It walks by descriptors (`walking`) and prints what ripgrep would
(`findings`); at its end also how many files were unreadable. Status 2: the pattern is none, and
standard error says why, as JSON: {"message", "position"}. Status 3: the path leads elsewhere by
now than when the search began, or nowhere: {"message", "code"}.

A file is text unless it has a NUL, and is read as UTF-8, byte by byte where it is none. The
expression sees one line at a time, without its end (LF or CR LF), and what it finds is the same
whether it does or is first tried on many at once, which is faster.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing
from typing import IO

from sidecar.errors import CallError
from sidecar.hands.local.beneath import Beneath, through_proc
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.search.findings import Hit
from sidecar.hands.local.search.query import Query, query_from
from sidecar.hands.local.walk.walking import Walked, walk

BLOCK = 1 << 20  # bytes of one read
LONGEST_LINE = 64 << 20  # bytes; a file with a longer one counts as unreadable
BAD_PATTERN = 2  # exit status, as of ripgrep
NO_START = 3
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# What may say something else of a line that stands among others: groups that look around, the
# ends of the text, \B, and quantifiers that give nothing back.
_ONE_LINE_ONLY = re.compile(r"\(\?|\\[ABZ]|[*+?}]\+")


class _Unreadable(Exception):
    """This file is passed over."""


class LineFinder:
    """One expression, for any number of files."""

    def __init__(self, query: Query) -> None:
        """Raises `re.error`."""
        pattern = re.escape(query.pattern) if query.fixed else query.pattern
        flags = re.IGNORECASE if query.ignore_case else re.NOFLAG
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "possible nested set": means something else elsewhere
            self._of_line = re.compile(pattern, flags)
            self._of_many = re.compile(pattern, flags | re.MULTILINE)
        self._is_plain = query.fixed or not _ONE_LINE_ONLY.search(pattern)

    def hits(self, fd: int) -> Iterator[Hit]:
        """The lines of a file that match, until it turns out to be binary. Raises `_Unreadable`."""
        line, offset = 1, 0
        for block in _blocks(fd):
            for hit in self._hits_in(block):
                yield Hit(line + hit.line, hit.column, offset + hit.offset)
            line += block.count(b"\n")
            offset += len(block)

    def _hits_in(self, block: bytes) -> Iterator[Hit]:
        """Of whole lines; lines and offsets from 0."""
        if not self._is_plain or b"\r" in block:
            return self._line_by_line(block)
        text = block.decode("utf-8", "surrogateescape")
        if self._of_many.search(text) is None:
            return iter(())
        return self._by_leaps(text) if block.isascii() else self._line_by_line(block)

    def _line_by_line(self, block: bytes) -> Iterator[Hit]:
        offset = 0
        lines = block.removesuffix(b"\n").split(b"\n")
        for number, line in enumerate(lines):
            text = line.removesuffix(b"\r").decode("utf-8", "surrogateescape")
            if found := self._of_line.search(text):
                before = text[: found.start()].encode("utf-8", "surrogateescape")
                yield Hit(number, len(before) + 1, offset)
            offset += len(line) + 1

    def _by_leaps(self, text: str) -> Iterator[Hit]:
        """From one line in which a match among many begins to the next: in others none is."""
        number = at = 0
        while at < len(text) and (place := self._of_many.search(text, at)):
            begin = text.rfind("\n", at, place.start()) + 1 or at
            end = text.find("\n", begin)
            end = len(text) if end < 0 else end
            number += text.count("\n", at, begin)
            if begin < len(text) and (found := self._of_line.search(text[begin:end])):
                yield Hit(number, found.start() + 1, begin)
            number += 1
            at = end + 1


def _blocks(fd: int) -> Iterator[bytes]:
    """The file in pieces of whole lines."""
    rest: list[bytes] = []
    size = 0
    while data := os.read(fd, BLOCK):
        if b"\0" in data:
            raise _Unreadable
        end = data.rfind(b"\n") + 1
        if not end:
            rest.append(data)
            size += len(data)
            if size > LONGEST_LINE:
                raise _Unreadable
            continue
        yield b"".join([*rest, data[:end]])
        rest = [data[end:]]
        size = len(rest[0])
    if last := b"".join(rest):
        yield last


class Search:
    """The walk, with what it counts."""

    def __init__(self, finder: LineFinder, query: Query, output: IO[bytes]) -> None:
        self._finder = finder
        self._query = query
        self._output = output
        self._searched = 0
        self._unreadable = 0

    def run(self, roots: Roots, path: str) -> None:
        with roots.resolved(path) as found:
            is_file = stat.S_ISREG(os.fstat(found).st_mode)
            if is_file:
                self._search(b"", found)
        if not is_file:
            with closing(walk(roots, path, self._query.selection)) as entries:
                for entry in entries:
                    self._visit(entry)
        counts = b"\n%d files searched\n%d files unreadable\n"
        self._output.write(counts % (self._searched, self._unreadable))
        self._output.flush()

    def _visit(self, entry: Walked) -> None:
        if entry.error is not None or entry.stat is None:
            self._unreadable += 1
        elif stat.S_ISREG(entry.stat.st_mode):
            try:
                look = os.open(entry.name, _LOOK, dir_fd=entry.directory)
            except FileNotFoundError:
                return
            except OSError:
                self._unreadable += 1
                return
            try:
                self._search(entry.path, look)
            finally:
                os.close(look)

    def _search(self, path: bytes, look: int) -> None:
        """In what an O_PATH descriptor names, if that is a regular file: nothing else is opened."""
        if not stat.S_ISREG(os.fstat(look).st_mode):
            return
        try:
            fd = os.open(through_proc(look), _READ)
        except OSError:
            self._unreadable += 1
        else:
            self._print_hits(path, fd)

    def _print_hits(self, path: bytes, fd: int) -> None:
        """All of one file, or none if it is binary."""
        found: list[Hit] = []
        try:
            self._searched += 1
            for hit in self._finder.hits(fd):
                found.append(hit)
                if len(found) > self._query.limit:
                    break
        except _Unreadable:
            return
        except OSError:
            self._unreadable += 1
            return
        finally:
            os.close(fd)
        for hit in found:
            self._output.write(b"./%s\0%d:%d:%d:\n" % (path, hit.line, hit.column, hit.offset))
        if found:
            self._output.flush()


def main(words: list[str]) -> None:
    """`words`: the path, then the query as JSON, in as many pieces as a word's bound asks for."""
    path, *pieces = words
    query = query_from(json.loads("".join(pieces)))
    try:
        finder = LineFinder(query)
    except (re.error, Warning, OverflowError, RecursionError) as error:
        position = error.pos if isinstance(error, re.error) else None
        message = error.msg if isinstance(error, re.error) else str(error)
        sys.stderr.write(json.dumps({"message": message, "position": position}))
        sys.exit(BAD_PATTERN)
    beneath = Beneath(".")
    try:
        Search(finder, query, sys.stdout.buffer).run(Roots(beneath), path)
    except CallError as error:
        sys.stderr.write(json.dumps({"message": error.message, "code": error.code}))
        sys.exit(NO_START)
