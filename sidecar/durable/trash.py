"""Files that a log needs no more, until the thread that syncs has put them away.

That thread may have any file of the log in hand, so no other may close one. Somebody who reads a
segment is waited for.
"""

from __future__ import annotations

from functools import partial

from sidecar.durable.disk import Disk
from sidecar.durable.segment import Segment
from sidecar.durable.work import remove
from sidecar.durable.writer import Finish, Lane, Work


class Trash:
    def __init__(self, disk: Disk, lane: Lane) -> None:
        self._disk = disk
        self._lane = lane
        self._segments: list[Segment] = []
        self._fds: list[int] = []

    def add(self, segments: list[Segment]) -> None:
        """They are to be closed and unlinked."""
        self._segments += segments
        self._lane.request(self._take)

    def add_descriptor(self, fd: int) -> None:
        """It is to be closed."""
        self._fds.append(fd)
        self._lane.request(self._take)

    def not_used(self, segment: Segment) -> None:
        """Somebody has stopped reading it, here or elsewhere."""
        if segment in self._segments:
            self._lane.request(self._take)

    def _take(self) -> Work | None:
        idle = [segment for segment in self._segments if not segment.users]
        self._segments = [segment for segment in self._segments if segment.users]
        fds, self._fds = self._fds, []
        return partial(self._empty, idle, fds) if idle or fds else None

    def _empty(self, segments: list[Segment], fds: list[int]) -> Finish:
        """In the thread."""
        for segment in segments:
            remove(self._disk, segment)
        for fd in fds:
            self._disk.close(fd)
        return _done

    def empty(self) -> None:
        """At the end, in the thread: whoever reads has to stop."""
        self._empty(self._segments, self._fds)


def _done() -> None:
    pass
