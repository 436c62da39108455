"""What is done when a sidecar has been told to end: one path, whoever told it.

1. New calls are refused; who asks for a known one still gets its answer.
2. If the run ends, open calls may end by themselves, as long as there is time. Then they are
   cancelled and the programs ended, early enough that results and events can still tell of it.
   If only this process stops, that costs no more than if it were killed: what the next one can go
   on with is left as it is, calls with their receipts, and programs if hands keeps them. Programs
   that hands does not keep are ended at once, and their calls say so. The other calls may end by
   themselves, and are cancelled as above.
3. Events go out until all durable readers have acked them. Nobody waits if there never was one;
   those who read now without a name get a moment.
4. Everything else goes out until the hub has acknowledged it.
5. `state.json` says what was done, and what was left over.

Exit status: 0 nothing was left over, 75 something was, 69 there was no channel to send it on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from sidecar.ending import EX_TEMPFAIL, EX_UNAVAILABLE, Teller
from sidecar.errors import CallError, Code, Retry
from sidecar.parts import Parts, progress
from sidecar.statefile import Noted, State

if TYPE_CHECKING:
    from sidecar.processes.process import Process

log = logging.getLogger(__name__)

FAREWELL = 1.0  # seconds for the last events to be handed to those who read them now
FLUSH = 5.0  # seconds of the time that calls do not get, or half of it if there is less
GRACE = 1.0  # seconds from TERM to KILL for programs that outlast their run
# Seconds that PID 1 stays, because all of its container ends with it (pid_namespaces(7)), and with
# that the `sidecar drain` in it, which looks several times in that time how this ended.
LINGER = 0.5
SETTLE = 1.0  # seconds for the answers of what was cancelled and killed


async def tell_to_end(parts: Parts, teller: Teller, timeout: float | None) -> Mapping[str, Any]:
    """End within `timeout` seconds, or those that are set. Returns when the state folder knows
    of it; the answer is what is waited for."""
    parts.ending.tell(teller, timeout=parts.settings.drain if timeout is None else timeout)
    await parts.ending.noted.wait()
    return {"state": parts.state.state, "time_left": parts.ending.time_left, **progress(parts)}


def resume_ending(parts: Parts) -> None:
    """A sidecar that was ending its run and was killed, or left something over, goes on with
    that: it is started again for nothing else."""
    before = parts.before
    if before is not None and before.told_by not in (None, Teller.SIGNAL):
        log.info("the run was ended by %s: going on with what was left over", before.told_by)
        parts.ending.tell(before.told_by, timeout=parts.settings.drain)


def is_over(before: Noted) -> bool:
    """Whether the run has ended and there is nothing left to do for it."""
    return before.state is State.ENDED and before.left_over is None


@dataclass(slots=True)
class _Cut:
    """What did not end by itself."""

    calls: int = 0
    programs: int = 0

    def __str__(self) -> str:
        return f"{self.calls} open calls and {self.programs} programs were ended"


async def drain(parts: Parts) -> int:
    """End as `parts.ending` says; the exit status. The channel is to be ended after it."""
    was_superseded = parts.state.state is State.SUPERSEDED
    teller = parts.ending.told_by
    log.info("draining, told by %s", teller)
    await parts.state.move(State.DRAINING, told_by=teller)
    parts.ending.noted.set()
    cut = _Cut()
    with parts.ending.scope:
        if parts.is_serving:
            await _finish(parts, cut)
        else:
            await parts.channel.flushed()
    final = State.SUPERSEDED if was_superseded else State.STOPPED
    status = await _note(parts, State.ENDED if parts.ending.ends_run else final, cut)
    if teller is Teller.DRAIN and os.getpid() == 1:
        await anyio.sleep(LINGER)
    return status


async def _finish(parts: Parts, cut: _Cut) -> None:
    """Calls and events."""
    parts.refuse(_refusal(parts))
    parts.emit("sidecar.draining", {"by": parts.ending.told_by})
    with parts.ending.leaving:
        await _leave_calls(parts, cut)
        await _deliver(parts)
    if parts.ending.ends_run:
        parts.refuse(_refusal(parts))
        await _finish_calls(parts, cut)
        await _deliver(parts)


async def _deliver(parts: Parts) -> None:
    with anyio.move_on_after(FAREWELL):
        await parts.exchange.caught_up()
    await parts.journal.wait_acked(parts.journal.last)
    await parts.channel.flushed()


async def _finish_calls(parts: Parts, cut: _Cut) -> None:
    """The run ends, and everything with it."""
    await _wait_for_calls(parts, cut)
    await _end_programs(parts, cut, _end)
    with anyio.move_on_after(SETTLE):
        await parts.dispatcher.idle()


async def _leave_calls(parts: Parts, cut: _Cut) -> None:
    """This process ends, and the run does not; cancelled if it does, after all."""
    await anyio.lowlevel.checkpoint()
    if not parts.means.hands.keeps_programs:
        await _end_programs(parts, cut, _stop)
        with anyio.move_on_after(SETTLE):
            await parts.dispatcher.idle()
    await _wait_for_calls(parts, cut, but_left=True)
    with anyio.move_on_after(SETTLE):
        await parts.dispatcher.idle(but_left=True)
        await parts.means.processes.all_started()  # half a start is nothing to go on with
    parts.dispatcher.hush()  # else a program that prints on and on would be waited for


async def _wait_for_calls(parts: Parts, cut: _Cut, *, but_left: bool = False) -> None:
    """They may end by themselves, as long as there is time; then they are cancelled."""
    time = parts.ending.time_left
    with anyio.move_on_after(time - min(FLUSH, time / 2)) as waiting:
        await parts.dispatcher.idle(but_left=but_left)
    if waiting.cancelled_caught:
        cut.calls += parts.dispatcher.cancel_all(but_left=but_left)


async def _end_programs(
    parts: Parts, cut: _Cut, end: Callable[[Process], Coroutine[Any, Any, None]]
) -> None:
    running = [program for program in parts.means.processes.all() if program.running]
    cut.programs += len(running)
    async with anyio.create_task_group() as group:
        for program in running:
            group.start_soon(end, program)


async def _end(program: Process, grace: float = GRACE) -> None:
    with suppress(CallError), anyio.move_on_after(grace + SETTLE):  # hands may be away
        await program.kill(grace)
        await program.wait()


async def _stop(program: Process) -> None:
    """Its calls will say that it had to end because we do."""
    program.is_stopped = True
    await _end(program, program.spec.grace)


async def _note(parts: Parts, final: State, cut: _Cut) -> int:
    """The last entry of the state file; the exit status."""
    is_cut, left = parts.ending.scope.cancelled_caught, _left_over(parts)
    status = 0
    if is_cut or left:
        status = EX_TEMPFAIL if parts.channel.status().state == "open" else EX_UNAVAILABLE
        what = ", ".join(f"{count} {name}" for name, count in left.items())
        log.warning("left over: %s", what or "what was to be said")
    await parts.state.move(
        final,
        str(cut) if cut.calls or cut.programs else None,
        told_by=parts.ending.told_by,
        exit_status=status,
        left_over=left if is_cut or left else None,
    )
    return status


def _left_over(parts: Parts) -> dict[str, int]:
    """What was waited for in vain. Calls are waited for less long than the rest, and of a run that
    ends each one without an answer is left over."""
    left = {name: count for name, count in progress(parts).items() if count}
    if parts.ending.scope.cancelled_caught:
        return left
    return {"calls": left["calls"]} if parts.ending.ends_run and "calls" in left else {}


def _refusal(parts: Parts) -> CallError:
    """Of a process that only stops, another may take the same call later."""
    if parts.ending.ends_run:
        return CallError(Code.ENDING, "the run has ended", retry=Retry.NEVER)
    return CallError(Code.ENDING, "this sidecar is ending: when it is back, send the call again")
