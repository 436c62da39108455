"""`state.json` in the state folder: what an operator without a channel reads.

It says which run lies there and whether its sidecar starts, runs, drains, or has ended, so that
running can be told from finished when nothing else answers. It is replaced whole (rename(2)) at
each transition, and synced, because a sidecar that comes back obeys it: a run that has ended is
not served again, and one that another sidecar took over is left alone.

    format        1; a newer one is not touched
    run, incarnation, generation, pid
    state, since  one of `State`; RFC 3339, UTC
    why           a sentence, where there is more to say
    told_by       who told it to end: signal, drain, run.end; null if nobody has
    events        series, last, written, acked of the journal; null before it is open
    exit_status   of the process; null while it runs
    left_over     what an end could not wait for: events, messages, calls; null if nothing

A process that was killed leaves the state that it had: its pid is then nobody's, and its lock
on the folder is free.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import anyio

from sidecar.clock import Clock
from sidecar.ending import Teller
from sidecar.protocol.record import Record, record
from sidecar.statefolder import StateUnusable
from sidecar.threads import in_thread

log = logging.getLogger(__name__)

NAME = "state.json"
FORMAT = 1


class State(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    REFUSED = "refused"  # the token will not do, and there is no other: waits for one
    SUPERSEDED = "superseded"  # another sidecar of the run has taken over: idles until a repoint
    DRAINING = "draining"
    STOPPED = "stopped"  # told to end by a signal; started again, it goes on
    ENDED = "ended"  # the run is over


_ALIVE = {State.RUNNING, State.REFUSED, State.SUPERSEDED, State.DRAINING, State.STOPPED}
NEXT: dict[State, set[State]] = {
    State.STARTING: _ALIVE,
    State.RUNNING: _ALIVE - {State.RUNNING},
    State.REFUSED: _ALIVE - {State.REFUSED},
    State.SUPERSEDED: {State.RUNNING, State.DRAINING},  # else it stays so, also when it stops
    State.DRAINING: {State.STOPPED, State.ENDED, State.SUPERSEDED},
    State.STOPPED: set(),
    State.ENDED: set(),
}


@record
class Noted(Record):
    """What stands in the file. The fields are explained at the head of the module."""

    run: str
    incarnation: str
    generation: int
    pid: int
    state: State
    since: str
    why: str | None = None
    told_by: Teller | None = None
    events: dict[str, Any] | None = None
    exit_status: int | None = None
    left_over: dict[str, int] | None = None


def read(folder: Path, run: str) -> Noted | None:
    """What the sidecar of `run` before us left; None if there was none.

    Raises `StateUnusable` for what is newer than we are, or another run's, or damaged.
    """
    noted = _parse(folder / NAME)
    if noted is not None and noted.run != run:
        raise StateUnusable(
            f"{folder} holds what belongs to run {noted.run!r}, and this is run {run!r}: set"
            " SIDECAR_STATE to a folder of its own"
        )
    return noted


def _parse(path: Path) -> Noted | None:
    try:
        found = json.loads(path.read_bytes())
        if found.pop("format") > FORMAT:
            raise StateUnusable(
                f"{path} was written by a newer sidecar than this one: start that one again, or"
                " set SIDECAR_STATE to another folder"
            )
        teller = found["told_by"]
        return Noted(
            **{
                **found,
                "state": State(found["state"]),
                "told_by": None if teller is None else Teller(teller),
            }
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateUnusable(
            f"{path}: {error.strerror}; set SIDECAR_STATE to a folder of ours"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise StateUnusable(
            f"{path} is damaged: remove it, and the run that lies there is taken up"
        ) from None


def write(folder: Path, noted: Noted) -> None:
    """Replace the file. Raises `OSError`, and then it is as it was."""
    content = json.dumps({"format": FORMAT, **asdict(noted)}, indent=2).encode() + b"\n"
    fresh = folder / f"{NAME}.new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)
    os.replace(fresh, folder / NAME)


class StateFile:
    """The file while our process lives. `facts` are fields that change by themselves."""

    def __init__(
        self,
        folder: Path,
        starting: Noted,
        *,
        clock: Clock,
        facts: Callable[[], dict[str, Any]],
    ) -> None:
        self.noted = starting
        self._folder = folder
        self._clock = clock
        self._facts = facts
        self._lock = anyio.Lock()

    @property
    def state(self) -> State:
        return self.noted.state

    async def move(self, state: State, why: str | None = None, **changes: Any) -> bool:
        """Note another state, if it may follow this one; whether it may.

        It is so from now on, and on disk when this returns, unless the disk will not have it:
        then the log says so, and the next move brings it along.
        """
        if state not in NEXT[self.state]:
            return False
        self.noted = replace(
            self.noted, state=state, since=timestamp(self._clock), why=why, **changes
        )
        await self.save()
        return True

    async def save(self) -> None:
        """Write what is so now. Cancelling does not leave it half done."""
        with anyio.CancelScope(shield=True):
            async with self._lock:
                noted = replace(self.noted, **self._facts())
                try:
                    await in_thread(write, self._folder, noted)
                except OSError as error:
                    log.warning("%s/%s is not up to date: %s", self._folder, NAME, error)


def timestamp(clock: Clock) -> str:
    """Now, by the calendar, as RFC 3339 has it."""
    return datetime.fromtimestamp(clock.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
