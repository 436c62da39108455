"""Pages of a tree.

A page ends with its last entry, after `PAGE_TIME`, or with `PAGE_BYTES`: a glob that names little
in a large tree must not keep its caller waiting without an answer. The next one goes on from where
it ended; what happens in between may be seen or not.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

from anyio import from_thread

from sidecar.errors import Invalid, from_os_error
from sidecar.hands.fileinterface import Entry, Listing, Path, Selection, stat_of
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.threads import Threads
from sidecar.hands.local.walk.namelists import NameLists
from sidecar.hands.local.walk.walking import Walked, walk

MAX_PAGE = 10_000  # entries of one page; a larger `limit` is cut to it
PAGE_BYTES = 384 * 1024  # of the entries of one page, about; a reply of a hands apart has room
PAGE_TIME = 2.0  # seconds


class Lister:
    """Pages of trees, and what is kept from one to the next."""

    def __init__(self, roots: Roots, threads: Threads) -> None:
        self._roots = roots
        self._threads = threads
        self._names = NameLists()
        self._expiry: asyncio.TimerHandle | None = None

    def close(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    async def page(
        self, path: Path, selection: Selection, after: bytes | None, limit: int
    ) -> Listing:
        """See `FileHands.walk`."""
        if limit < 1:
            raise Invalid(f"a page of {limit} entries: at least 1 needed")
        taking = _Page(min(limit, MAX_PAGE), from_thread.check_cancelled)
        listing = await self._threads.run(
            partial(taking.fill, self._roots, path, selection, after, self._names)
        )
        if self._expiry is None:
            self._expire()
        return listing

    def _expire(self) -> None:
        """Once more when the next list is to go. Nothing runs while none is kept."""
        left = self._names.expire()
        self._expiry = None
        if left is not None:
            self._expiry = asyncio.get_running_loop().call_later(left, self._expire)


class _Enough(Exception):
    """The page ends here."""


class _Page:
    def __init__(self, limit: int, check: Callable[[], object]) -> None:
        self._limit = limit
        self._check = check
        self._entries: list[Entry] = []
        self._room = PAGE_BYTES
        self._until = time.monotonic() + PAGE_TIME
        self._begin: bytes | None = None
        self._end: bytes | None = None

    def fill(
        self, roots: Roots, path: Path, selection: Selection, after: bytes | None, names: NameLists
    ) -> Listing:
        self._begin = after
        found = walk(roots, path, selection, after=after, check=self._go_on, names=names.read)
        with closing(found):
            try:
                for walked in found:
                    self._take(walked)
            except _Enough:
                return Listing(self._entries, self._end)
        return Listing(self._entries)

    def _go_on(self, last: bytes) -> None:
        self._check()
        is_full = len(self._entries) == self._limit or self._room <= 0
        has_moved = bool(last) and last != self._begin
        if has_moved and (is_full or time.monotonic() >= self._until):
            self._end = last
            raise _Enough

    def _take(self, walked: Walked) -> None:
        entry = _entry(walked)
        if entry is not None:
            self._entries.append(entry)
            self._room -= entry.weight


def _entry(walked: Walked) -> Entry | None:
    # By its name alone: the path is told beside it, and may be longer than a sentence.
    error = None if walked.error is None else from_os_error(walked.error, walked.name)
    if walked.stat is None:
        return Entry(walked.path, None, error)
    target = None
    if stat.S_ISLNK(walked.stat.st_mode):
        try:
            target = os.readlink(walked.name, dir_fd=walked.directory)
        except OSError as failure:
            # Gone, or a link when we looked and replaced before we read it: as if it was not there.
            if failure.errno in (errno.ENOENT, errno.EINVAL):
                return None
            raise
    return Entry(walked.path, stat_of(walked.stat, target), error)
