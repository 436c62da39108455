"""What the platform has said of this sidecar, by way of its tokens, and what follows from it.

    superseded   a later start of the run has taken over: no new calls are taken, what is there is
                 delivered, and then nothing, also after a restart, until an operator repoints it
    refused      its token will not do, and nothing can make it: the work goes on, and waits
    ended        the run is over: as if somebody had said `run.end`
    accepted     all is well again

Each is told in the state folder and in `health`.
"""

from __future__ import annotations

import logging
from collections import deque

from sidecar.bell import Bell
from sidecar.ending import Teller
from sidecar.errors import CallError, Code
from sidecar.parts import Parts
from sidecar.statefile import State

log = logging.getLogger(__name__)

_SUPERSEDED = CallError(
    Code.ENDING, "another sidecar of this run has taken over: attach anew, and send the call again"
)


class Standing:
    """Hears what the tokens tell, at once, and does in `run` what takes time."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._news: deque[tuple[State, str | None]] = deque()
        self._bell = Bell()
        hooks = parts.tokens.hooks
        hooks.superseded = self._superseded
        hooks.refused = self._refused
        hooks.ended = self._ended
        hooks.accepted = self._accepted

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            while self._news:
                await self._note(*self._news.popleft())
            await self._bell.wait()

    def _superseded(self) -> None:
        log.warning("superseded: another sidecar of this run has taken over")
        self._parts.refuse(_SUPERSEDED)
        self._hear(State.SUPERSEDED, "a later start of this run has taken over; `sidecar repoint`")

    def _refused(self, why: str) -> None:
        log.error("token refused: %s", why)
        self._hear(State.REFUSED, why)

    def _ended(self) -> None:
        log.info("the platform says that the run has ended")
        self._parts.ending.tell(Teller.PLATFORM, timeout=self._parts.settings.drain)

    def _accepted(self) -> None:
        if self._parts.ending.told_by is None:
            self._parts.refuse(None)
        self._hear(State.RUNNING, None)

    def _hear(self, state: State, why: str | None) -> None:
        self._news.append((state, why))
        self._bell.ring()

    async def _note(self, state: State, why: str | None) -> None:
        if await self._parts.state.move(state, why):
            await self._parts.opened.wait()
            if state is not State.RUNNING:
                self._parts.emit(f"sidecar.{state}", {"why": why})
            else:
                self._parts.emit("sidecar.accepted", None)
