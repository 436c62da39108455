"""The walk through a tree: for lists, globs, archives, copies, searches.

Depth first, in the order of the names as bytes at each level, a directory before what is in it.
No link is followed, in no place of the way but the start; mount points are crossed. What vanishes
meanwhile is passed over, what comes may be missed; an entry that is there all the time is given
exactly once. Parts of uploads (`names.is_part`) are not there for anybody who walks.

Memory is that of the names in the directories on the way, descriptors are bounded (`descent`).
A directory whose path below the start is longer than `LONGEST` is not entered; its error says so.
"""

from __future__ import annotations

import errno
import os
import stat
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from sidecar.errors import LimitExceeded, from_os_error
from sidecar.hands.fileinterface import ALL as ALL
from sidecar.hands.fileinterface import Path
from sidecar.hands.fileinterface import Selection as Selection
from sidecar.hands.local.beneath import Beneath
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.walk.choosing import Choice
from sidecar.hands.local.walk.descent import ENTER, Descent, Lost
from sidecar.hands.local.walk.ignoring import Rules
from sidecar.hands.local.walk.namelists import MAX_NAMES, ReadNames, read_names
from sidecar.hands.names import SELF

LONGEST = 8192 - 256  # bytes of the path of a directory: with a name, what the wire takes as a path

_GONE = {errno.ENOENT, errno.ESRCH}  # ESRCH: of a process, in /proc
_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # says nothing about the entry


Check = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Walked:
    """An entry. Its descriptors are the walk's, and good until the next step.

    `error`: why it could not be looked at (`stat` is None), or is a directory that cannot be
    entered. `opened` is a descriptor of a directory that will be read in the next step, and only
    then: a watch that is set on it now misses nothing.
    """

    path: bytes  # below the start
    name: bytes
    directory: int  # in which `name` lies
    stat: os.stat_result | None
    opened: int | None = None
    error: OSError | None = None

    @property
    def is_directory(self) -> bool:
        return self.stat is not None and stat.S_ISDIR(self.stat.st_mode)


def walk(
    roots: Roots,
    path: Path,
    selection: Selection = ALL,
    *,
    after: bytes | None = None,
    check: Check | None = None,
    names: ReadNames = read_names,
) -> Generator[Walked, None, None]:
    """The entries below the directory `path`, but not itself, that follow `after` (a path below
    it, which need not be there any more).

    `check` is called before each entry, and may raise to end the walk. What it is given is the
    path before that one, given or not: with it as `after` another walk goes on from there. Raises
    `CallError` about the start; what happens below it is told by `Walked.error`. A generator: who
    leaves early closes it (`contextlib.closing`), and its descriptors with it.
    """
    with roots.resolved(path) as found:
        top = os.open(SELF, ENTER, dir_fd=found)
    tree = _Tree(top, Choice(selection), check or _go_on, names)
    try:
        yield from tree.run(roots.of(path), after)
    except OSError as error:
        raise from_os_error(error, path) from None
    finally:
        tree.close()


def _go_on(last: bytes) -> None:
    """Nobody wants to end this walk."""


@dataclass(slots=True)
class _Level:
    """A directory on the way: what is still to come of it."""

    prefix: bytes  # of the paths of its entries
    names: Sequence[bytes]
    rules: Rules | None
    at: int = 0
    after: tuple[bytes, ...] = ()  # the first entry, if it has this name, was given: go on below


class _Tree:
    def __init__(self, top: int, choice: Choice, check: Check, names: ReadNames) -> None:
        self._top = top
        self._descent = Descent(top)
        self._choice = choice
        self._check = check
        self._names = names
        self._levels: list[_Level] = []
        self._held = 0  # names
        self._last = b""  # the path that was visited last

    def close(self) -> None:
        self._descent.close()

    def run(self, root: Beneath, after: bytes | None) -> Iterator[Walked]:
        self._last = after or b""
        above = self._choice.rules_above(root, self._top)
        self._read(b"", tuple(after.split(b"/")) if after else (), above)
        while self._levels:
            level = self._levels[-1]
            if level.at == len(level.names):
                self._leave()
                continue
            self._check(self._last)
            name, level.at = level.names[level.at], level.at + 1
            rest, level.after = level.after, ()
            was_given = bool(rest) and rest[0] == name
            path = level.prefix + name
            if not was_given:
                self._last = path
            if self._choice.may_matter(path):
                yield from self._visit(level, name, rest[1:] if was_given else (), was_given)

    def _visit(
        self, level: _Level, name: bytes, after: tuple[bytes, ...], was_given: bool
    ) -> Iterator[Walked]:
        """`was_given`: only what is in it may be left to give, that which follows `after`."""
        path, here, choice = level.prefix + name, self._descent.here, self._choice
        try:
            found = os.stat(name, dir_fd=here, follow_symlinks=False)
        except OSError as error:
            if not was_given and _is_of_entry(error):
                yield Walked(path, name, here, None, error=error)
            return
        is_directory = stat.S_ISDIR(found.st_mode)
        if choice.leaves_out(path, name, level.rules, is_directory=is_directory):
            return
        entry = Walked(path, name, here, found)
        is_named = not was_given and choice.names(path, is_directory=is_directory)
        if not is_directory or not choice.enters(path, len(self._levels)):
            if is_named:
                yield entry
            return
        try:
            opened = self._open(entry)
        except OSError as error:
            if not was_given and _is_of_entry(error):
                yield replace(entry, error=error)
            return
        self._descent.down(name, opened)
        if is_named:
            # The stat of what was opened: between the two a name may have changed its meaning.
            yield replace(entry, stat=os.fstat(opened), opened=opened)
        self._read(path + b"/", after, level.rules)

    def _open(self, entry: Walked) -> int:
        if len(entry.path) > LONGEST:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return os.open(entry.name, ENTER, dir_fd=entry.directory)

    def _read(self, prefix: bytes, after: tuple[bytes, ...], above: Rules | None) -> None:
        """Begin with the directory `here`."""
        here = self._descent.here
        rules = self._choice.rules_in(here, prefix, above)
        try:
            names = self._names(here, lambda: self._check(self._last))
        except OSError as error:
            if error.errno not in _GONE:
                raise
            names = ()
        self._held += len(names)
        if self._held > MAX_NAMES:
            raise LimitExceeded("names in directories", size=self._held, limit=MAX_NAMES)
        at = bisect_left(names, after[0]) if after else 0
        self._levels.append(_Level(prefix, names, rules, at, after))

    def _leave(self) -> None:
        while True:
            self._held -= len(self._levels.pop().names)
            if not self._levels:
                return
            try:
                self._descent.up()
                return
            except Lost:
                continue  # what is left of that directory is somewhere else now


def _is_of_entry(error: OSError) -> bool:
    """Whether an entry is to be told with this error; one that vanished is not told at all."""
    if error.errno in _OURS:
        raise error
    return error.errno not in _GONE
