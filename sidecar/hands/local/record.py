"""What is kept of one program."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from sidecar.errors import from_os_error
from sidecar.hands.interface import Exit
from sidecar.hands.local.cgroup import Cgroup
from sidecar.hands.local.proc import read_process


@dataclass(slots=True, eq=False)
class Record:
    """One program. `exit` stays None if nobody of us observed it.

    `seen` and `sessions` are what the last look found of its tree. A new look replaces them and
    never changes them, because looks are made in threads.
    """

    key: bytes
    pid: int
    start_time: int
    command: bytes = b""  # see `Known`
    is_child: bool = True  # else a hands before us started it, and somebody else reaps it
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    exit: Exit | None = None
    pidfd: int | None = None
    has_terminal: bool = False
    master: int | None = None  # of its terminal, until it was reaped
    cgroup: Cgroup | None = None
    owns_session: bool = True  # nobody else can have its pid, so none as a session id
    seen: Mapping[int, int] = field(default_factory=dict)  # pid: start time
    sessions: Set[int] = frozenset()

    @property
    def was_reaped(self) -> bool:
        return self.ended.is_set()

    def signal(self, number: int, *, group: bool) -> None:
        """To its process group, in one step, so that what it forks meanwhile gets it too; or to
        itself alone. Nothing happens once it was reaped. Raises `CallError` if it may not."""
        if self.was_reaped or not (self.is_child or self._is_there()):
            return
        try:
            (os.killpg if group else os.kill)(self.pid, number)
        except ProcessLookupError:
            return  # it has ended, and nothing of its group is left
        except OSError as error:
            raise from_os_error(error, f"process {self.pid}") from None

    def close(self) -> None:
        """Release the descriptors. Harmless when repeated."""
        for descriptor in (self.pidfd, self.master):
            if descriptor is not None:
                os.close(descriptor)
        self.pidfd = self.master = None

    def _is_there(self) -> bool:
        """The pid of what is not our child is not kept for us."""
        process = read_process(self.pid)
        return process is not None and process.start_time == self.start_time
