"""The names in a directory, sorted; and those of the last ones, kept for the next page.

The kernel knows no order of names, so a page out of the middle costs reading all of them: 0.2 s
for 200,000. A list is kept while somebody pages through it, and only good for a directory that
is the same and unchanged (identity, mtime and ctime). It is not kept for one that was changed
less than `SETTLED` ago: another change may bear the same time.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import merge
from typing import Protocol

from sidecar.errors import LimitExceeded
from sidecar.hands.local.beneath import through_proc
from sidecar.hands.names import is_part

MAX_NAMES = 4_000_000  # of one directory, and of all those that a walk is in: some 400 MB
RUN = 16_384  # names sorted in one go, some 5 ms; `list.sort` lets no other thread run
KEPT_BYTES = 48 * 1024 * 1024  # of all kept lists; the one used longest ago goes
KEEP_FROM = 1000  # names; reading fewer takes no longer than a millisecond
KEPT_TIME = 30.0  # seconds since the last use
SETTLED = 2.0  # seconds: the coarsest time stamps in use (FAT)
_NAME_BYTES = 48  # of a name beside its characters: object and place in the list

Check = Callable[[], object]


class ReadNames(Protocol):
    def __call__(self, directory: int, check: Check) -> Sequence[bytes]: ...


def read_names(directory: int, check: Check) -> Sequence[bytes]:
    """The names in a directory but for those of parts, sorted. `check` may raise to end it."""
    names: list[bytes] = []
    # By this path it is bytes that come; by the descriptor alone names would be decoded.
    with os.scandir(through_proc(directory).encode()) as entries:
        for entry in entries:
            if len(names) % 256 == 0:
                check()
            if not is_part(entry.name):
                names.append(entry.name)
            if len(names) > MAX_NAMES:
                raise LimitExceeded("names in a directory", size=len(names), limit=MAX_NAMES)
    if len(names) <= RUN:
        return sorted(names)
    return list(merge(*(sorted(names[at : at + RUN]) for at in range(0, len(names), RUN))))


@dataclass(slots=True)
class _Kept:
    state: tuple[int, int]  # mtime and ctime, nanoseconds
    names: Sequence[bytes]
    bytes: int
    used: float


class NameLists:
    """Lists that are kept. Used by several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[tuple[int, int], _Kept] = OrderedDict()
        self._lock = threading.Lock()  # held for a few instructions only

    def read(self, directory: int, check: Check) -> Sequence[bytes]:
        """As `read_names`; the list may be shared, and must not be changed."""
        before = os.fstat(directory)
        key = before.st_dev, before.st_ino
        state = before.st_mtime_ns, before.st_ctime_ns
        if found := self._find(key, state):
            return found
        settled = time.time() - SETTLED > max(before.st_mtime, before.st_ctime)
        names = read_names(directory, check)
        after = os.fstat(directory)
        if settled and len(names) >= KEEP_FROM and (after.st_mtime_ns, after.st_ctime_ns) == state:
            self._keep(key, state, names)
        return names

    def expire(self) -> float | None:
        """Drop what nobody used for a while; in how many seconds that is to be done again."""
        with self._lock:
            now = self._clock()
            for key in [key for key, kept in self._kept.items() if kept.used + KEPT_TIME <= now]:
                del self._kept[key]
            return min((kept.used + KEPT_TIME - now for kept in self._kept.values()), default=None)

    def _find(self, key: tuple[int, int], state: tuple[int, int]) -> Sequence[bytes] | None:
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                return None
            if kept.state != state:
                del self._kept[key]
                return None
            kept.used = self._clock()
            self._kept.move_to_end(key)
            return kept.names

    def _keep(self, key: tuple[int, int], state: tuple[int, int], names: Sequence[bytes]) -> None:
        size = sum(map(len, names)) + _NAME_BYTES * len(names)
        if size > KEPT_BYTES:
            return
        with self._lock:
            self._kept[key] = _Kept(state, names, size, self._clock())
            while sum(kept.bytes for kept in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
