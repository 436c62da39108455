"""The tool `search`: lines that match, below a directory or of one file.

A finder, a child program that can be killed at any moment, says in which lines of which files
there is something (`findings`): ripgrep if it is in our PATH, for a directory; else our own
(`linefinder`), also for an expression that ripgrep does not know and `re` does, such as one that
looks around. What the lines say is read here (`excerpts`), so it is the same for both.

What that promises. Our own finder walks by descriptors and is never led out of the tree, through
no link and no race. ripgrep walks by names from the descriptor of the directory, follows no links
either, but a directory that is replaced by a link while it looks can lead it outside, to what our
user may read. Of what it finds there nothing is shown: each file is opened beneath the directory,
and one that is none there is dropped. What remains is that a line is named at a place where the
file beneath has one, too; and that a .gitignore which is a link leaves out what its target says.
ripgrep also opens what it takes for a file, and every .gitignore, and waits where that is a FIFO.
A search in which it does nothing any more for `PATIENCE` is gone on with by our own finder.
"""

from __future__ import annotations

import json
import os
import resource
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from sidecar.errors import CallError, Code, Invalid, show_path
from sidecar.hands.fileinterface import Path
from sidecar.hands.foundlines import BYTES, LIMIT, FoundLine, Outcome
from sidecar.hands.local.beneath import Beneath, through_proc
from sidecar.hands.local.child import Child, Stuck
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.search import ripgrep
from sidecar.hands.local.search.excerpts import Excerpts
from sidecar.hands.local.search.findings import FileHits, Findings
from sidecar.hands.local.search.judging import Judge
from sidecar.hands.local.search.linefinder import BAD_PATTERN, NO_START
from sidecar.hands.local.search.query import Query, query_from
from sidecar.hands.local.stop import Stop
from sidecar.hands.names import SELF
from sidecar.hands.records import framed
from sidecar.protocol.limits import SEARCH_BYTES

MEMORY = 2 << 30  # bytes of address space of a finder
READ_SIZE = 64 * 1024
PATIENCE = 1.0  # seconds between two looks at a finder that prints nothing
RECORD_BYTES = 32 * 1024  # of lines in one record, and one line more
WORD = 64 * 1024  # bytes of one argument; the kernel takes twice that (execve(2))
_OURS = (
    "import json, sys; sys.path = json.loads(sys.argv[1]);"
    " from sidecar.hands.local.search.linefinder import main; main(sys.argv[2:])"
)


def search(
    roots: Roots, path: Path, options: Mapping[str, Any], fd: int, stop: Stop
) -> dict[str, Any]:
    """A body for `tools`. Options: those of `FilesSearch`, with `globs` as for a walk."""
    query = query_from(options)
    shape = Excerpts(options["before"], options["after"], options["line_bytes"])
    with roots.resolved(path) as found:
        mode = os.fstat(found).st_mode
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise CallError(
                Code.UNSUPPORTED, f"{show_path(path)} is no directory and no regular file"
            )
        searching = _Searching(roots, path, query, shape, fd, stop)
        if stat.S_ISREG(mode):
            return searching.by_ourselves(found).as_map()
        beneath = Beneath(through_proc(found))
        try:
            return searching.below(found, beneath).as_map()
        finally:
            beneath.close()


class _Searching:
    """One search: finds, shows and counts."""

    def __init__(
        self, roots: Roots, path: Path, query: Query, shape: Excerpts, fd: int, stop: Stop
    ) -> None:
        self._roots = roots
        self._path = path
        self._query = query
        self._shape = shape
        self._output = _Output(fd, stop, query.limit)
        self._stop = stop
        self._last: bytes | None = None  # the file that was shown last

    def below(self, start: int, beneath: Beneath) -> Outcome:
        """In the files below a directory."""
        program = ripgrep.find()
        if program is not None:
            outcome = self._by_ripgrep(program, start, beneath)
            if outcome is not None:
                return outcome
        return self.by_ourselves(beneath)

    def _by_ripgrep(self, program: str, start: int, beneath: Beneath) -> Outcome | None:
        """None if it can make nothing of the expression, or of how we ask, or does not end."""
        argv = ripgrep.command(program, self._query)
        judge = Judge(self._query.selection, self._roots.of(self._path), start, beneath)
        findings = Findings()
        environment = ripgrep.environment()
        with Child(argv, directory=start, environment=environment) as child:
            _bound(child)
            try:
                for file in self._files(child, findings, patience=PATIENCE):
                    if judge.wants(file.path) and not self._show(beneath, file):
                        return self._output.finish("ripgrep", None, 0)
            except Stuck:
                return None
            status = child.wait(self._stop)
            said = bytes(child.error)
        if findings.searched is None:
            if status == BAD_PATTERN:
                return None
            raise _failed("ripgrep", status)
        return self._output.finish("ripgrep", findings.searched, ripgrep.unreadable(said))

    def by_ourselves(self, place: Beneath | int) -> Outcome:
        findings = Findings()
        root = self._roots.of(self._path)
        relative = root.relative(self._path).decode("utf-8", "surrogateescape")
        with (
            root.resolved(SELF) as top,
            Child(_ours(relative, self._query), directory=top) as child,
        ):
            _bound(child)
            shown = _order(self._last)
            for file in self._files(child, findings):
                if _order(file.path) > shown and not self._show(place, file):
                    return self._output.finish("python", None, 0)
            status = child.wait(self._stop)
            said = bytes(child.error)
        if status == BAD_PATTERN:
            raise _bad_pattern(said)
        if status == NO_START:
            raise _cut_off(said)
        if status or findings.searched is None:
            raise _failed("the search", status)
        return self._output.finish("python", findings.searched, findings.unreadable)

    def _show(self, place: Beneath | int, file: FileHits) -> bool:
        """Whether more may come."""
        self._last = file.path
        return self._output.add(self._shape.of(place, file))

    def _files(
        self, child: Child, findings: Findings, *, patience: float | None = None
    ) -> Iterator[FileHits]:
        """As they are found; one with more lines than are wanted comes in parts."""
        while data := child.read(self._stop, READ_SIZE, patience=patience):
            yield from findings.receive(data)
            unfinished = findings.unfinished
            if unfinished is not None and len(unfinished.hits) > self._query.limit:
                yield unfinished
                unfinished.hits.clear()
        yield from findings.finish()


class _Output:
    """What goes to core: no more lines and bytes than are wanted."""

    def __init__(self, fd: int, stop: Stop, limit: int) -> None:
        self._fd = fd
        self._stop = stop
        self._lines_left = limit
        self._bytes_left = SEARCH_BYTES
        self._waiting: list[FoundLine] = []
        self._waiting_bytes = 0
        self._truncated: str | None = None

    def add(self, lines: list[FoundLine]) -> bool:
        """Whether more may come. Of lines beside the first one too many none is told."""
        for line in lines:
            is_hit = line.column > 0
            if is_hit and not self._lines_left:
                self._truncated = LIMIT
            elif line.size > self._bytes_left:
                self._truncated = BYTES
            if self._truncated is not None:
                return False
            self._lines_left -= is_hit
            self._bytes_left -= line.size
            self._waiting.append(line)
            self._waiting_bytes += line.size
            if self._waiting_bytes > RECORD_BYTES:
                self._flush()
        return True

    def finish(self, engine: str, searched: int | None, unreadable: int) -> Outcome:
        self._flush()
        return Outcome(engine, self._truncated, searched, unreadable)

    def _flush(self) -> None:
        if self._waiting:
            self._stop.write(self._fd, framed([line.row() for line in self._waiting]))
            self._waiting, self._waiting_bytes = [], 0


def _order(path: bytes | None) -> list[bytes]:
    """By what both finders sort. Nothing comes before all paths, and also before that of a search
    in one file, which has none."""
    return [] if path is None else path.split(b"/")


def _ours(path: str, query: Query) -> list[bytes]:
    """The argv of our own finder. Its imports come from where ours do, and nothing of its working
    directory, which is the agent's (-I)."""
    said = query.as_json()
    pieces = [said[at : at + WORD] for at in range(0, len(said), WORD)]
    places = json.dumps([place for place in sys.path if os.path.isabs(place)])
    words = [sys.executable, "-I", "-c", _OURS, places, path, *pieces]
    return [word.encode("utf-8", "surrogateescape") for word in words]


def _bound(child: Child) -> None:
    with suppress(OSError):  # it has ended
        resource.prlimit(child.pid, resource.RLIMIT_AS, (MEMORY, MEMORY))


def _bad_pattern(said: bytes) -> Invalid:
    try:
        found = json.loads(said)
        message, position = str(found["message"]), found["position"]
    except (ValueError, KeyError, TypeError):
        message, position = "it is no regular expression", None
    where = "" if position is None else f" at position {position}"
    return Invalid(f"the pattern: {message}{where}", position=position)


def _cut_off(said: bytes) -> CallError:
    try:
        found = json.loads(said)
        return CallError(Code(found["code"]), str(found["message"]))
    except (ValueError, KeyError, TypeError):
        return _failed("the search", NO_START)


def _failed(what: str, status: int) -> CallError:
    how = f"was ended by signal {-status}" if status < 0 else f"failed with status {status}"
    return CallError(Code.IO_ERROR, f"{what} {how}")
