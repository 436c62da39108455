"""All programs that were started: find one, keep it a while after its end, take up strangers.

Tasks of programs live in the table's own group: `running()` is open around everything that
uses the table, and closes all pipes and spools at its end. No task of a program may end
another: what it raises is logged.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup

from sidecar.clock import Clock
from sidecar.errors import CallError, Code
from sidecar.hands.interface import Hands, Known, Program, Terminal
from sidecar.journal import Emit
from sidecar.processes.drains import Drains
from sidecar.processes.kept import Forgotten, victims
from sidecar.processes.process import Process, Surroundings
from sidecar.processes.record import Spec, State
from sidecar.protocol.fields import is_id
from sidecar.protocol.ids import show
from sidecar.protocol.limits import HOLD_TIME, PROGRAMS_KEPT
from sidecar.protocol.spool import OnFull
from sidecar.spool import Spool, SpoolBudget

log = logging.getLogger(__name__)

TRIM_EVERY = 32  # ends between two looks at who may go: each look goes through all of /proc
LOOK_TIME = 2.0  # seconds that such a look may take
MOST_TAKEN_UP = 2048  # programs that core knows while it takes up more; a hands keeps no more


class Processes:
    """The programs of one sidecar."""

    def __init__(
        self,
        hands: Hands,
        clock: Clock,
        *,
        state_folder: Path,
        emit: Emit,
        spools: SpoolBudget | None = None,
        hold_time: float = HOLD_TIME,
    ) -> None:
        self.hold_time = hold_time  # seconds that a full spool waits for a silent reader
        self.spools = spools or SpoolBudget()
        self._hands = hands
        self._clock = clock
        self._state_folder = state_folder
        self._around = Surroundings(
            hands, clock, emit, self._spawn, self._new_spool, self._note_end
        )
        self._starting: set[bytes] = set()
        self._all: dict[bytes, Process] = {}
        self._forgotten = Forgotten()
        self._drains = Drains()
        self._ends = 0
        self._group: TaskGroup | None = None
        self.spools.make_room = self._make_room

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Programs may be started within this block; with it ends what is read of them."""
        try:
            async with anyio.create_task_group() as self._group:
                yield
                self._group.cancel_scope.cancel()
        finally:
            for process in self._all.values():
                process.close()
            self._all.clear()
            self._drains.close()

    async def start(self, spec: Spec, *, id: bytes, owner: str | None) -> Process:
        """Start a program. Its output is read from here on; `supervise` has to follow."""
        self._starting.add(id)
        try:
            running = await self._hands.spawn(spec.program, key=id)
        finally:
            self._starting.remove(id)
        process = self._all[id] = Process(id, spec, running, self._around, owner=owner)
        self._around.emit("exec.started", {"pid": process.pid}, call=id)
        return process

    def adopt_supervision(self, process: Process) -> None:
        """Drive it to its end apart from any call."""

        async def supervise() -> None:
            await process.supervise()

        self._spawn(supervise)

    def find(self, id: bytes) -> Process:
        """The program of this exec id. Raises `CallError`: `not_found`."""
        process = self._all.get(id)
        if process is None:
            why = "ended and was forgotten" if id in self._forgotten else "is not known"
            raise CallError(Code.NOT_FOUND, f"program {show(id)} {why}")
        return process

    def all(self) -> list[Process]:
        """Oldest first."""
        return list(self._all.values())

    async def adopt_known(self) -> None:
        """Hands is here, or back: go on with what it knows, and take up what we do not know."""
        for known in await self._hands.known():
            process = self._all.get(known.key)
            if known.key in self._starting or known.key in self._forgotten:
                continue
            if process is None:
                # Hands is not trusted: what is no call's is not ours, and each takes descriptors.
                if is_id(known.key) and len(self._all) < MOST_TAKEN_UP:
                    await self._take_up(known)
            elif process.state is State.UNKNOWN and process.ended is not None:
                process.revive()
                self.adopt_supervision(process)
        self._around.hands_back.ring()

    async def _take_up(self, known: Known) -> None:
        self._starting.add(known.key)  # hands may leave and come back meanwhile
        try:
            running = await self._hands.take(known.key)
        except CallError as error:
            log.warning("program %s cannot be taken up: %s", show(known.key), error)
            return
        finally:
            self._starting.remove(known.key)
        program = Program(
            argv=known.command.split(b"\0") if known.command else (),
            terminal=Terminal() if known.has_terminal else None,
        )
        process = Process(
            known.key, Spec(program), running, self._around, owner=None, is_adopted=True
        )
        self._all[known.key] = process
        self._around.emit("exec.adopted", {"pid": process.pid, "before": "unknown"}, call=known.key)
        self.adopt_supervision(process)

    # Forgetting ---------------------------------------------------------------------------

    def _note_end(self) -> None:
        self._ends += 1
        if self._ends % TRIM_EVERY == 0:
            self._spawn(self._trim)

    async def _trim(self) -> None:
        """Forget what ended beyond `PROGRAMS_KEPT`."""
        alive: Mapping[bytes, object] = {}
        with anyio.move_on_after(LOOK_TIME), suppress(CallError):
            alive = await self._hands.survivors()
        over = sum(1 for one in self._all.values() if not one.running) - PROGRAMS_KEPT
        gone = victims(self._all.values(), alive)[: max(0, over)]
        for process in gone:  # at once: others trim and make room, too
            self._drop(process)
        for process in gone:
            await self._forget(process)

    def _make_room(self, size: int) -> None:
        """All spools together are full: free `size` bytes, if programs that ended hold so much."""
        goal = self.spools.used - size
        for process in victims(self._all.values(), ()):
            if self.spools.used <= goal:
                return
            if any(output.spool.reserved for output in process.outputs.values()):
                self._drop(process)
                self._spawn(partial(self._forget, process))

    def _drop(self, process: Process) -> None:
        """Release what is kept of it. Who still prints into its pipes is read on."""
        del self._all[process.id]
        self._forgotten.add(process.id)
        for reader in process.abandon_outputs():
            self._drains.add(reader)

    async def _forget(self, process: Process) -> None:
        with anyio.move_on_after(LOOK_TIME), suppress(CallError):
            await self._hands.forget(process.id)

    # What programs are given --------------------------------------------------------------

    def _new_spool(self, on_full: OnFull) -> Spool:
        return Spool(
            self._state_folder,
            self._clock,
            self.spools,
            hold_time=self.hold_time,
            on_full=on_full,
        )

    def _spawn(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        assert self._group is not None, "running() comes first"
        self._group.start_soon(_guard, function)


async def _guard(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await function()
    except Exception:
        log.exception("a task of a program failed inside")
