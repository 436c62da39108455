"""One program, from its start to its end.

`supervise` drives it: in the call's own task for `exec.run`, in the table's group for
`exec.start`. It ends when the *program* has ended, whatever holds its pipes. An end that
nobody observed is `unknown`: then so is whether it runs, and what its pipes give is still
read. Times are seconds on our clock.

One that began under an earlier core waits at first for hands, which has its pipes and sees its
end. What that core knew of it is `saved`.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from sidecar.bell import Bell
from sidecar.errors import CallError, Code, Invalid, Started
from sidecar.hands.interface import Exit, Running, Target
from sidecar.processes.control import Control
from sidecar.processes.ends import Ends, Link
from sidecar.processes.input import Input
from sidecar.processes.output import Output
from sidecar.processes.record import Ended, Resize, State, describe
from sidecar.processes.register import TellingAt
from sidecar.processes.saved import Saved, SavedEnd
from sidecar.processes.surroundings import Surroundings
from sidecar.processes.telling import Telling
from sidecar.processes.timeouts import Timeouts, Which
from sidecar.protocol.streams import STDOUT

if TYPE_CHECKING:
    from sidecar.processes.shellsession import ShellSession

KILL_SLACK = 5.0  # seconds beyond the grace until a kill is given up
AWAY_TIME = 10.0  # seconds that hands may be away before an end counts as unknown
RESIZES = 16  # of a terminal that are remembered, the latest


class Process:
    """A program that was started. Made by `Processes`."""

    def __init__(
        self,
        saved: Saved,
        around: Surroundings,
        *,
        pid: int,
        start_time: int,
        told: TellingAt = TellingAt(),  # noqa: B008 - immutable
        is_condemned: bool = False,
    ) -> None:
        self.id = saved.id
        self.spec = saved.spec.once_started()
        self.told = saved.told
        self.pid = pid  # 0: an earlier core was killed while it was being started
        self.start_time = start_time
        self.owner = saved.owner  # the controller that started it
        self.is_adopted = saved.is_adopted  # it ran before we did: what it printed then is not here
        self.session: ShellSession | None = None  # who speaks through it, once somebody does
        self.began = saved.began
        self.began_wall = saved.began_wall
        self.ended_wall: float | None = None
        self.ended: Ended | None = None
        self.has_exited = False  # wait observed it; `ended` follows
        self.is_settled = False
        self.is_condemned = is_condemned  # its call is over: whoever finds it alive ends it
        self.telling = Telling(saved.id, around, told)
        self.is_stopped = False  # it has to end because core does
        self.resizes: deque[Resize] = deque(saved.resizes, maxlen=RESIZES)
        self._saved = replace(saved, spec=self.spec)
        self._around = around
        spec = self.spec
        self._timeouts = Timeouts(self.began, total=spec.timeout, idle=spec.idle_timeout)
        self._timed_out: Which | None = None
        self._why = ""  # nobody knows how it ended
        self._is_gone = False  # hands knows that, and not how
        self._is_away = False
        self._is_killed = False
        self._revivals = 0
        self._unfed = saved.spec.input  # what came with the call and is still to be written
        self._changed = Bell()
        self._resizing: anyio.Lock | None = anyio.Lock() if self.has_terminal else None
        self.ends = Ends(saved.id, spec, around, on_data=self._note_activity)

    @property
    def outputs(self) -> dict[int, Output]:
        return self.ends.outputs

    @property
    def input(self) -> Input | None:
        return self.ends.input

    @property
    def control(self) -> Control | None:
        return self.ends.control

    # One that began before us -----------------------------------------------------------

    def connect(self, running: Running) -> None:
        """It runs, or did, and these are its pipes."""
        self.pid, self.start_time = running.pid, running.start_time
        self._around.store.note_spawned(self.id, running.pid, running.start_time)
        self.telling.started(self.pid)
        self._timeouts.note_activity(self._around.clock.now())
        self.ends.connect(running)

    def lose(self) -> None:
        """Nobody has its pipes any more."""
        for n in self.ends.lose():
            self.emit_gap(n, "pipe_lost")
        if self.ended is not None:
            self._settle()

    def restore_end(self, end: SavedEnd, *, is_settled: bool) -> None:
        """An earlier core saw it end, and perhaps all that it printed."""
        self.ended, self.ended_wall = end.ended, end.wall
        self.has_exited = end.ended.exit is not None
        if self.has_exited:
            self.telling.ended(self.pid, describe(end.ended))
        if is_settled:
            for output in self.outputs.values():
                output.spool.end()
            self.lose()

    async def resume_feed(self, *, is_fed: bool) -> None:
        """It was started with all of its input, which an earlier core had to write. Where that
        was killed in the middle, the rest is gone, and to end the input there would be a lie."""
        if self.input is None or not self._saved.has_given_input:
            return
        if is_fed:
            await self.ends.end_feed()
        else:
            self._why = "a part of its input was lost when the sidecar was killed"
            await self._kill_anyway()

    def emit_gap(self, n: int, why: str) -> None:
        """Tell that bytes are missing where output `n` is now, and nobody knows how many."""
        at = self.outputs[n].size
        self._emit("exec.gap", {"n": n, "at": at, "bytes": None, "why": why})

    # How it stands -----------------------------------------------------------------------

    @property
    def has_terminal(self) -> bool:
        return self.spec.program.terminal is not None

    @property
    def state(self) -> State:
        if self.ended is None:
            is_unsure = self._is_away or self.ends.link is Link.WAITING
            return State.UNKNOWN if is_unsure else State.RUNNING
        return State.UNKNOWN if self.ended.exit is None else State.ENDED

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return self._around.clock.now() - self.began

    @property
    def running(self) -> bool:
        """Whether its end was neither observed nor given up."""
        return self.ended is None

    @property
    def has_readers(self) -> bool:
        return any(output.readers for output in self.outputs.values())

    @property
    def is_held(self) -> bool:
        """Whether somebody may still print into its pipes."""
        return any(not output.reader.is_finished for output in self.outputs.values())

    @property
    def may_be_forgotten(self) -> bool:
        """It has ended, nobody reads it, and its end waits at most for a reader who may never
        come: one that holds its output can have some in the pipe for ever."""
        if self.ended is None or self.has_readers:
            return False
        return self.is_settled or any(output.is_full for output in self.outputs.values())

    # Its life ----------------------------------------------------------------------------

    async def supervise(self) -> Ended:
        """Feed it, time it, and drain it until it has ended. If it is revived meanwhile, that is
        for whoever supervises it then."""
        revivals = self._revivals
        data, self._unfed = self._unfed, None
        if self.input is not None and data is not None:
            await self._feed(data)
        if self.is_condemned:
            await self._kill_anyway()
        exit = await self._observe()
        if exit is None and revivals != self._revivals:
            return await self.settled()
        self.has_exited = exit is not None
        if exit is not None and self.input is not None:
            await self.input.close()
        if exit is not None and self.spec.ends_daemons and not self._is_killed:
            await self._kill_anyway()
        return await self._finish(exit)

    async def abandon(self) -> None:
        """Its call is over, whatever it does: kill it, and put on record how it ended. Also when
        the call is being cancelled; bounded by the grace and two slacks. If hands is away, it is
        ended when hands is back."""
        with anyio.CancelScope(shield=True):
            self.is_condemned = True
            self._around.store.note_condemned(self.id)
            await self._kill_anyway()
            if self.ended is None:
                with anyio.move_on_after(KILL_SLACK):
                    self._note_end(await self._exit())
            if self.ended is None:
                self._note_end(None)
            if self.input is not None:
                await self.input.close()
            self._settle()

    async def _feed(self, data: bytes) -> None:
        """All input came with the call. Most fits into the pipe, and no task is needed."""
        rest = self.ends.write_at_once(data)
        if rest:
            self._around.spawn(partial(self.ends.feed, rest))
        else:
            await self.ends.end_feed()

    async def _observe(self) -> Exit | None:
        """Until it has ended, or a timeout has ended it."""
        if not self._timeouts:
            return await self._exit()
        clock = self._around.clock
        while self._timed_out is None:
            with anyio.move_on_after(self._timeouts.left(clock.now())):
                return await self._exit()
            self._timed_out = self._timeouts.expired(clock.now())
        await self._kill_anyway()
        with anyio.move_on_after(KILL_SLACK):
            return await self._exit()
        self._why = "it was killed and did not end"
        return None

    async def _exit(self) -> Exit | None:
        """How it ended; None if that cannot be known."""
        while True:
            try:
                return await self._around.hands.wait(self.id)
            except CallError as error:
                self._why = error.message
                self._is_gone = error.code is not Code.HANDS_AWAY
                if self._is_gone or not await self._hands_return():
                    return None
                if self.is_condemned:
                    await self._kill_anyway()

    async def _hands_return(self) -> bool:
        self._is_away = True
        try:
            with anyio.move_on_after(AWAY_TIME):
                await self._around.hands_back.wait()
                return True
        finally:
            self._is_away = False
        return False

    async def _kill_anyway(self) -> None:
        """Kill it as far as hands can, with its own grace."""
        with suppress(CallError):
            await self.kill(self.spec.grace)

    async def _finish(self, exit: Exit | None) -> Ended:
        """Take what was printed until the end, and a moment longer what children print."""
        held = [output for output in self.outputs.values() if not output.flush()]
        ended = self._note_end(exit)
        if held and exit is not None:
            async with anyio.create_task_group() as group:
                for output in held:
                    group.start_soon(output.finish)
        self._settle()
        return ended

    def _note_end(self, exit: Exit | None) -> Ended:
        if self.ended is not None:  # an earlier core, or another task of ours, saw it, too
            return self.ended
        now = self._around.clock.now()
        why = self._why if exit is None else ""
        self.ended = Ended(exit, now - self.began, self._timed_out, why)
        self.ended_wall = self._around.clock.wall()
        if exit is not None or self._is_gone:
            self.telling.ended(self.pid, describe(self.ended))
        else:
            self._emit("exec.unknown", {"why": why})
        self._around.store.note_end(self.id, SavedEnd(self.ended, self.ended_wall))
        self._around.note_end()
        self._changed.ring()
        return self.ended

    def _settle(self) -> None:
        self.ends.settle()
        if self.state is State.ENDED:
            self.ends.close_control()
        self.is_settled = True
        self._around.store.note_settled(self.id, is_settled=True)
        self._changed.ring()

    def revive(self) -> None:
        """Hands is back and knows it: it may run, and may be supervised again."""
        self._revivals += 1
        self.ended = self.ended_wall = None
        self.is_settled = False
        self._around.store.note_end(self.id, None)
        self._around.store.note_settled(self.id, is_settled=False)
        self.ends.unsettle()

    # What others want of it --------------------------------------------------------------

    async def wait(self) -> Ended:
        """Until the program has ended."""
        while self.ended is None:
            await self._changed.wait()
        return self.ended

    async def settled(self) -> Ended:
        """Until it has ended and what it printed is in the spools."""
        while self.ended is None or not self.is_settled:
            await self._changed.wait()
        return self.ended

    async def kill(self, grace: float) -> None:
        """TERM, then KILL after `grace`, to it and all that it started, also after its end."""
        self._is_killed = True
        if self.control is not None and grace > 0:
            # A shell at its prompt ignores TERM. This is what closing its terminal does.
            with suppress(CallError):
                await self.signal(signal.SIGHUP, Target.PROGRAM)
        try:
            with anyio.move_on_after(grace + KILL_SLACK):
                await self._around.hands.kill(self.id, grace=grace)
        except CallError:
            self._is_killed = False  # what it leaves behind may still have to be ended
            raise

    async def kill_since(self, when: float, grace: float) -> None:
        """TERM, then KILL after `grace`, to what it started at `when` (on our clock) or later,
        but not to itself."""
        ticks = int(when * os.sysconf("SC_CLK_TCK"))
        with anyio.move_on_after(grace + KILL_SLACK):
            await self._around.hands.kill(self.id, grace=grace, since=ticks)

    async def signal(self, number: int, to: Target) -> None:
        """Send a signal; to a program that has ended, nothing happens."""
        await self._around.hands.signal(self.id, number, to)

    async def resize(self, rows: int, cols: int) -> int:
        """Change the size of its terminal; the offset of the output from which it holds. Raises
        `Invalid` once it has ended: hands lets go of the terminal then, whoever else has it."""
        if self._resizing is None:
            raise Invalid("the program has no terminal to resize", which="none")
        async with self._resizing:
            self._check_resizable()
            output = self.outputs[STDOUT]
            output.flush()
            offset = output.size
            await self._around.hands.resize(self.id, rows=rows, cols=cols)
            self._check_resizable()
            self.resizes.append(Resize(offset, rows, cols))
            self._around.store.save(replace(self._saved, resizes=list(self.resizes)))
            self._emit("exec.resized", {"rows": rows, "cols": cols, "offset": offset})
        return offset

    def _check_resizable(self) -> None:
        if self.state is State.ENDED:
            raise Invalid("the program has ended, and its terminal with it", which="ended")

    def _note_activity(self) -> None:
        if self._timeouts.needs_activity:
            self._timeouts.note_activity(self._around.clock.now())

    def _emit(self, name: str, data: dict[str, Any]) -> None:
        self._around.emit(name, {"pid": self.pid, **data}, call=self.id)

    def unknown(self) -> CallError:
        """The answer where nobody observed how it ended."""
        why = f" ({self.ended.why})" if self.ended is not None and self.ended.why else ""
        return CallError(
            Code.OUTCOME_UNKNOWN,
            f"the program was started; how it ended is unknown{why}",
            started=Started.YES,
        )
