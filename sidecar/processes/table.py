"""All programs that were started: find one, keep it a while after its end, take up strangers.

Tasks of programs live in the table's own group: `running()` is open around everything that
uses the table, and closes all pipes and spools at its end. No task of a program may end
another: what it raises is logged.

Programs of an earlier core are here from the start, with what they had printed. What has become
of them hands says: those that it has are gone on with (`adopt_known`); of the others nobody saw
the end.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup

from sidecar.clock import Clock
from sidecar.errors import CallError, Code, Started
from sidecar.hands.interface import Hands, Known, Program, Terminal
from sidecar.journal import Emit
from sidecar.processes.drains import Drains
from sidecar.processes.ends import Link
from sidecar.processes.kept import Forgotten, victims
from sidecar.processes.process import Process
from sidecar.processes.record import Spec, State, Told
from sidecar.processes.register import TellingAt
from sidecar.processes.saved import Saved
from sidecar.processes.store import EARLIER, ProgramStore, Restored
from sidecar.processes.surroundings import Surroundings
from sidecar.protocol.fields import is_id
from sidecar.protocol.ids import show
from sidecar.protocol.limits import HOLD_TIME, PROGRAMS_KEPT
from sidecar.protocol.spool import OnFull
from sidecar.spool import Spool
from sidecar.spoolbudget import SpoolBudget
from sidecar.spoolfile import SpoolFile
from sidecar.threads import in_thread

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
        store: ProgramStore,
        emit: Emit,
        spools: SpoolBudget | None = None,
        hold_time: float = HOLD_TIME,
    ) -> None:
        self.hold_time = hold_time  # seconds that a full spool waits for a silent reader
        self.spools = spools or SpoolBudget()
        self._hands = hands
        self._clock = clock
        self._store = store
        self._around = Surroundings(
            hands, clock, emit, store, self._spawn, self._new_spool, self._note_end
        )
        self._starting: set[bytes] = set()
        self._announced: dict[bytes, anyio.Event] = {}
        self._all: dict[bytes, Process] = {}
        self._reopened: dict[tuple[bytes, int], SpoolFile] = {}  # until their process is made
        self._unfed: set[bytes] = set()  # an earlier core did not say that they got all input
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
                self._restore()
                if self._all and self._hands.status()["state"] == "connected":
                    await self.adopt_known()
                yield
                self._group.cancel_scope.cancel()
        finally:
            for process in self._all.values():
                process.ends.close()
            self._all.clear()
            self._drains.close()
            self._store.close()

    async def start(self, spec: Spec, *, id: bytes, owner: str | None) -> Process:
        """Start a program. Its output is read from here on; `supervise` has to follow."""
        saved = self._saved(id, spec, owner)
        self._starting.add(id)
        self._store.save(saved)
        try:
            running = await self._hands.spawn(spec.program, key=id)
        except CallError as error:
            if error.started is Started.NO:
                self._store.forget(id)
            raise
        finally:
            self._starting.remove(id)
        process = Process(saved, self._around, pid=running.pid, start_time=running.start_time)
        self._all[id] = process
        process.connect(running)
        return process

    def _saved(self, id: bytes, spec: Spec, owner: str | None, *, age: float = 0.0) -> Saved:
        return Saved(
            id,
            spec,
            Told.of(spec.program),
            owner,
            began=self._clock.now() - age,
            began_wall=self._clock.wall() - age,
            has_given_input=spec.input is not None,
        )

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

    @contextmanager
    def announced(self, id: bytes) -> Iterator[None]:
        """In this block a program of this id is about to be started: whoever looks it up waits."""
        started = self._announced[id] = anyio.Event()
        try:
            yield
        finally:
            del self._announced[id]
            started.set()

    async def look_up(self, id: bytes) -> Process:
        """`find`, but of a program that is being started, once it was."""
        if (started := self._announced.get(id)) is not None:
            await started.wait()
        return self.find(id)

    async def all_started(self) -> None:
        """Until those that are about to be started were."""
        for started in list(self._announced.values()):
            await started.wait()

    def all(self) -> list[Process]:
        """Oldest first."""
        return list(self._all.values())

    # Programs of an earlier core ----------------------------------------------------------

    def _restore(self) -> None:
        """Those that are on record, as they were when it ended."""
        restored, self._store.restored = self._store.restored, []
        for one in restored:
            id = one.saved.id
            torn = [n for n, file in one.spools.items() if file.facts.reading]
            self._reopened = {(id, n): file for n, file in one.spools.items()}
            process = Process(
                one.saved,
                self._around,
                pid=one.pid,
                start_time=one.start_time,
                told=one.told,
                is_condemned=one.is_condemned,
            )
            self._all[id] = process
            if process.pid:
                process.telling.started(process.pid)
            for n in torn:
                process.emit_gap(n, "killed")
            self._restore_state(process, one)

    def _restore_state(self, process: Process, one: Restored) -> None:
        if one.end is not None:
            process.restore_end(one.end, is_settled=one.is_settled)
        if not one.is_fed:
            self._unfed.add(process.id)
        if process.ended is None and process.pid:
            self._hands.adopt(process.id, process.pid, process.start_time)

    async def adopt_known(self) -> None:
        """Hands is here, or back: go on with what it knows, and take up what we do not know."""
        known = {one.key: one for one in await self._hands.known()}
        for one in known.values():
            await self._meet(one)
        for process in list(self._all.values()):
            if process.ends.link is Link.WAITING and process.id not in known:
                self._lose(process)
        self._around.hands_back.ring()

    async def _meet(self, known: Known) -> None:
        if known.key in self._starting or known.key in self._forgotten:
            return
        process = self._all.get(known.key)
        if process is None:
            # Hands is not trusted: what is no call's is not ours, and each takes descriptors.
            if is_id(known.key) and len(self._all) < MOST_TAKEN_UP:
                await self._take_up(known)
        elif process.ends.link is Link.WAITING:
            await self._go_on(process)
        elif process.state is State.UNKNOWN and process.ended is not None:
            process.revive()
            self.adopt_supervision(process)

    async def _go_on(self, process: Process) -> None:
        """One of an earlier core, of which we know all but what became of it meanwhile."""
        self._starting.add(process.id)  # hands may leave and come back meanwhile
        try:
            running = await self._hands.take(process.id)
        except CallError as error:
            if error.code is not Code.HANDS_AWAY:
                self._lose(process)
            return
        finally:
            self._starting.remove(process.id)
        if process.state is State.UNKNOWN and process.ended is not None:
            process.revive()  # it was given up while hands was away
        process.connect(running)
        self._around.emit("exec.resumed", {"pid": process.pid}, call=process.id)
        self._spawn(partial(process.resume_feed, is_fed=process.id not in self._unfed))
        self.adopt_supervision(process)

    def _lose(self, process: Process) -> None:
        """Nobody has its pipes. If it lives, it can still be ended, and be seen to end."""
        process.lose()
        if process.ended is None:
            self.adopt_supervision(process)

    async def _take_up(self, known: Known) -> None:
        """One that we know nothing of: an earlier core had no disk to put it on record."""
        self._starting.add(known.key)
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
        # Our clock counts from boot, as the kernel's dates of processes.
        began = running.start_time / os.sysconf("SC_CLK_TCK")
        age = max(0.0, self._clock.now() - began)
        saved = replace(self._saved(known.key, Spec(program), None, age=age), is_adopted=True)
        told = TellingAt(self._store.series, started=EARLIER)
        process = Process(
            saved, self._around, pid=running.pid, start_time=running.start_time, told=told
        )
        for output in process.outputs.values():
            output.spool.note_gap()  # before it is on record, with which it would look whole
        self._store.save(saved)  # else each core to come would take it up, and tell of its end
        self._store.note_told(known.key, told)
        self._all[known.key] = process
        process.connect(running)
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
        self._store.forget(process.id)
        for reader in process.ends.abandon():
            self._drains.add(reader)

    async def _forget(self, process: Process) -> None:
        if process.ends.has_spools:
            await in_thread(self._store.remove_spools, process.id)
        with anyio.move_on_after(LOOK_TIME), suppress(CallError):
            await self._hands.forget(process.id)

    # What programs are given --------------------------------------------------------------

    def _new_spool(self, id: bytes, n: int, on_full: OnFull) -> Spool:
        return Spool(
            self._store.path(id, n),
            self._clock,
            self.spools,
            hold_time=self.hold_time,
            on_full=on_full,
            reopened=self._reopened.pop((id, n), None),
        )

    def _spawn(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        assert self._group is not None, "running() comes first"
        self._group.start_soon(_guard, function)


async def _guard(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await function()
    except Exception:
        log.exception("a task of a program failed inside")
