"""Copies: of a file, a link itself, or a whole tree, below one root or from one to another.

Each file is whole or absent, with its mode and its times; of ownership, ACLs, extended attributes
and names that were one file nothing is carried over. A link is copied as its text. A name that
is replaced is the last one of `target` itself, never what a link in its place leads to.

A tree is not copied in one step. With `replace` it may go into a directory that is there, which
stays as it is but for the names that are copied; without, nothing may have the name. What cannot
be read, changes meanwhile, or is no file, directory or link is left out and told. What goes wrong
with the target ends the copy, and what is complete by then stays.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from sidecar.errors import CallError, Code, Invalid, Started, from_os_error, show_path
from sidecar.hands.fileinterface import Path
from sidecar.hands.local.beneath import Place, coded
from sidecar.hands.local.copyentry import Spot, copy_entry
from sidecar.hands.local.filecopy import Unreadable
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.stop import Stop
from sidecar.hands.local.walk.descent import ENTER, Descent, Identity, Lost, identity
from sidecar.hands.local.walk.walking import Walked, walk
from sidecar.hands.names import SELF, UP, join

MAX_SKIPPED = 1000  # of what was left out is told, the rest is counted
SKIPPED_BYTES = 128 * 1024  # of their paths

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_CLIMB = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

Check = Callable[[], object]


def copy(
    roots: Roots, path: Path, options: Mapping[str, Any], fd: int, stop: Stop
) -> dict[str, Any]:
    """The tool: {"copied": entries, "bytes", "skipped": [[path below, code]...],
    "skipped_count"}. An error after the first entry says `started: yes` and has `copied`."""
    made = Copy(path, options["target"], replace=options["replace"], check=stop.check)
    try:
        made.run(roots, recursive=options["recursive"])
    except CallError as error:
        if made.copied:
            error.started = Started.YES
            error.details["copied"] = made.copied
        raise
    return made.outcome()


class Copy:
    """One copy, and what became of it. Blocks."""

    def __init__(self, source: Path, target: Path, *, replace: bool, check: Check) -> None:
        self.copied = 0  # entries
        self._source = source
        self._target = target
        self._replace = replace
        self._check = check
        self._bytes = 0
        self._skipped: list[list[Any]] = []
        self._skipped_room = SKIPPED_BYTES
        self._skipped_count = 0

    def outcome(self) -> dict[str, Any]:
        return {
            "copied": self.copied,
            "bytes": self._bytes,
            "skipped": self._skipped,
            "skipped_count": self._skipped_count,
        }

    def run(self, roots: Roots, *, recursive: bool) -> None:
        """`check` may raise to end it."""
        with (
            roots.parent(self._target) as place,
            roots.resolved(self._source, follow=False) as found,
        ):
            source = os.fstat(found)
            if not stat.S_ISDIR(source.st_mode):
                self._copy_one(found, source, place)
            elif not recursive:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            else:
                self._copy_tree(roots, source, place)

    def _copy_one(self, found: int, source: os.stat_result, place: Place) -> None:
        spot = Spot(place.directory, place.name, self._replace)
        with _about(self._target):
            if place.has_slash:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            old = spot.look()
            if old is not None and os.path.samestat(old, source):
                raise Invalid(f"it is the same file as {show_path(self._source)}")
            try:
                self._bytes = copy_entry(found, spot, self._check)
            except Unreadable as trouble:
                raise _coded(trouble.error, self._source) from None
        self.copied = 1

    def _copy_tree(self, roots: Roots, source: os.stat_result, place: Place) -> None:
        with coded(self._target):
            if _is_below(place.directory, identity(source), self._check):
                raise self._into_itself()
            into = _Into(place, source, replace=self._replace)
        with closing(into):
            top = into.identity
            if top == identity(source):
                raise self._into_itself()
            self.copied = 1
            with closing(walk(roots, self._source, check=lambda last: self._check())) as entries:
                for entry in entries:
                    if entry.stat is not None and identity(entry.stat) == top:
                        raise self._into_itself()  # it was moved here meanwhile
                    with _about(join(self._target, entry.path)):
                        self._copy_walked(entry, into)
            with coded(self._target):
                into.finish()

    def _copy_walked(self, entry: Walked, into: _Into) -> None:
        into.return_to(entry.path.rpartition(b"/")[0])
        try:
            if entry.error is not None:
                raise Unreadable(entry.error)
            if entry.is_directory and entry.stat is not None:
                into.enter(entry.path, entry.name, entry.stat)
            else:
                self._bytes += self._copy_found(entry, into.spot(entry.name))
        except Unreadable as trouble:
            self._skip(entry.path, _coded(trouble.error, entry.path).code)
        else:
            self.copied += 1

    def _copy_found(self, entry: Walked, spot: Spot) -> int:
        try:
            found = os.open(entry.name, _LOOK, dir_fd=entry.directory)
        except OSError as error:
            raise Unreadable(error) from None
        try:
            return copy_entry(found, spot, self._check)
        finally:
            os.close(found)

    def _skip(self, path: bytes, code: Code) -> None:
        self._skipped_count += 1
        self._skipped_room -= len(path)
        if len(self._skipped) < MAX_SKIPPED and self._skipped_room >= 0:
            self._skipped.append([path, str(code)])

    def _into_itself(self) -> Invalid:
        return Invalid(
            f"{show_path(self._target)} is or lies in {show_path(self._source)}:"
            " a directory cannot be copied into itself",
            path=self._target,
        )


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """What fails inside and does not say what it is about, is about `path`."""
    try:
        yield
    except CallError as error:
        raise (error if "path" in error.details else _coded(error, path)) from None
    except OSError as error:
        raise _coded(error, path) from None


def _coded(error: OSError | CallError, path: Path) -> CallError:
    if isinstance(error, OSError):
        return from_os_error(error, path)
    message = f"{show_path(path)}: {error.message}"
    return CallError(error.code, message, path=path, **error.details)


@dataclass(frozen=True, slots=True)
class _Level:
    """A directory that entries are copied to."""

    path: bytes  # below the top
    source: os.stat_result
    is_new: bool


class _Into:
    """Where a tree goes: the directory that entries are copied to, and those on the way to it.

    A new one is ours alone until all is in it; then it gets the mode and the times of its source.
    """

    def __init__(self, place: Place, source: os.stat_result, *, replace: bool) -> None:
        self._replace = replace
        is_new = _make(place.directory, place.name, replace=replace)
        top = os.open(place.name, ENTER, dir_fd=place.directory)
        self.identity: Identity = identity(os.fstat(top))
        self._descent = Descent(top)
        self._levels = [_Level(b"", source, is_new)]

    def close(self) -> None:
        self._descent.close()

    def spot(self, name: bytes) -> Spot:
        return Spot(self._descent.here, name, self._replace, is_new=self._levels[-1].is_new)

    def enter(self, path: bytes, name: bytes, source: os.stat_result) -> None:
        here = self._descent.here
        is_new = _make(here, name, replace=self._replace)
        self._descent.down(name, os.open(name, ENTER, dir_fd=here))
        self._levels.append(_Level(path, source, is_new))

    def return_to(self, path: bytes) -> None:
        """Leave what is not on the way to `path`, which was entered."""
        while self._levels[-1].path != path:
            self._complete(self._levels.pop())
            try:
                self._descent.up()
            except Lost:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None

    def finish(self) -> None:
        """All is copied."""
        self.return_to(b"")
        self._complete(self._levels[0])

    def _complete(self, level: _Level) -> None:
        if not level.is_new:
            return
        here = self._descent.here
        inherited = os.fstat(here).st_mode & stat.S_ISGID  # a group that the tree around it keeps
        os.fchmod(here, level.source.st_mode & (0o777 | stat.S_ISVTX) | inherited)
        os.utime(here, ns=(level.source.st_atime_ns, level.source.st_mtime_ns))


def _make(directory: int, name: bytes, *, replace: bool) -> bool:
    """Make a directory; False if something has the name already and may have it."""
    try:
        os.mkdir(name, 0o700, dir_fd=directory)
    except FileExistsError:
        if not replace:
            raise
        return False
    return True


def _is_below(directory: int, above: Identity, check: Check) -> bool:
    """Whether `directory` is `above` or lies below it, in whatever root. The way up leads out of
    ours; nothing is done there but to ask for identities."""
    here = os.open(SELF, _CLIMB, dir_fd=directory)
    try:
        while (found := identity(os.fstat(here))) != above:
            check()
            up = os.open(UP, _CLIMB, dir_fd=here)
            os.close(here)
            here = up
            if identity(os.fstat(here)) == found:  # only / is above itself
                return False
        return True
    finally:
        os.close(here)
