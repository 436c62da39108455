"""Kill means everything: the whole tree of a program, however fast it grows.

TERM goes to the program's group in one step and to the rest of its tree one by one. What is
started after that is not signalled again, since it may well be a program's own clean-up; it gets
the KILL.

Before the KILL everything is stopped. What is stopped forks no more (a fork that is under way
ends before the signal counts, or starts over after it), and as long as a parent stands there it
shows whose its children are. So: stop whom a look finds, look again, and once a look finds
nobody new, kill them all.

What forks and exits all the time, each child in a session of its own, is never where a look at
all processes saw it. But whenever its parent has gone it is an orphan of ours, so our own
children are looked through by themselves, which takes less time than a fork.

A signal reaches the process that was looked at and no later owner of its pid: by pidfd, and with
its start time compared.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Container, Sequence

import anyio

from sidecar.errors import CallError
from sidecar.hands.local.orphans import Orphans
from sidecar.hands.local.proc import Process, is_there, read_process, send
from sidecar.hands.local.record import Record
from sidecar.hands.local.threads import Threads
from sidecar.hands.local.tree import Members, look, owner_of

LINGER = 2.0  # seconds that `kill` waits after the KILL
_PAUSE = 0.005  # seconds between looks, doubled up to:
_MAX_PAUSE = 0.1
_STOP_TIME = 0.5  # seconds until all are killed, even if some were found that were not stopped
_TRIES = 50  # looks at orphans in a row, while they change; some 50 µs each


class Ending:
    """Ends trees. `programs` are the pids of all programs that were not reaped."""

    def __init__(self, threads: Threads, orphans: Orphans, programs: Container[int]) -> None:
        self._threads = threads
        self._orphans = orphans
        self._programs = programs

    async def kill(self, records: Sequence[Record], grace: float) -> None:
        """See `Hands.kill`; one look serves any number of programs."""
        if not self._may_live(records):
            return
        with anyio.move_on_after(grace):
            if grace > 0:
                # What is stopped acts on TERM only once it goes on.
                await self.signal(records, signal.SIGTERM, signal.SIGCONT)
                for record in records:
                    await record.ended.wait()
                return await self._until_gone(records, with_force=False)
        with anyio.move_on_after(LINGER):
            _signal_groups(records, signal.SIGSTOP)
            await self._until_gone(records, with_force=True)

    async def kill_since(self, record: Record, since: int, grace: float) -> None:
        """Only what was started at `since` or later, and never the program itself."""
        _begin([record])
        with anyio.move_on_after(grace):
            if grace > 0:
                return await self._end_since(record, since, [signal.SIGTERM, signal.SIGCONT], [])
        with anyio.move_on_after(LINGER):
            await self._end_since(record, since, [signal.SIGKILL], [signal.SIGKILL])

    async def signal(self, records: Sequence[Record], *numbers: int) -> None:
        """To whole trees. Who may not be signalled is passed over."""
        reached = _signal_groups(records, *numbers)
        _begin(records)
        await self._threads.run(_signal_others, records, self._programs, numbers, reached)

    async def survivors(self, records: Sequence[Record]) -> Members:
        """What is left of programs that have ended, of those that left anything."""
        if not self._may_live(records):
            return {}
        _begin(records)
        members = await self._threads.run(look, records, self._programs)
        return {record: found for record, found in members.items() if found}

    def _may_live(self, records: Sequence[Record]) -> bool:
        """Whether there may be anything of these trees; False is certain, and cheap to say."""
        if all(record.was_reaped and record.is_child for record in records):
            return bool(records) and self._orphans.may_have_any()
        return True

    async def _end_since(
        self, record: Record, since: int, first: Sequence[int], later: Sequence[int]
    ) -> None:
        numbers, pause = first, _PAUSE
        while await self._threads.run(_strike_since, record, self._programs, since, numbers):
            numbers = later
            await anyio.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE)

    async def _until_gone(self, records: Sequence[Record], *, with_force: bool) -> None:
        _begin(records)
        pause = _PAUSE
        while self._may_live(records):
            is_quiet = self._catch_orphans(records, signal.SIGSTOP if with_force else None)
            work = _strike if with_force else _count
            left = await self._threads.run(work, records, self._programs)
            if is_quiet and not left and all(record.was_reaped for record in records):
                return
            await _rest(records, pause)
            pause = min(2 * pause, _MAX_PAUSE)

    def _catch_orphans(self, records: Sequence[Record], number: int | None) -> bool:
        """Signal those of these trees; False if there were any, or may have been.

        Whoever ends before we know whose it is may leave another in its place: so look until
        nobody is new, and nobody about to end. On the event loop, because a thread would be too
        slow for this while we are busy.
        """
        known: set[tuple[int, int]] = set()
        was_caught = False
        for _ in range(_TRIES):
            children = [read_process(pid) for pid in self._orphans.pids()]
            fresh = [child for child in children if child is None or child.id not in known]
            if not fresh:
                return not was_caught
            for child in filter(None, fresh):
                if child.is_alive and owner_of(child, records):
                    was_caught = True
                    if number is not None:
                        send(child, number)
                elif child.is_alive and not is_there(child):
                    continue
                known.add(child.id)
        return False


def _begin(records: Sequence[Record]) -> None:
    """A session id seen long ago may be another's by now, unlike a pid with its start time."""
    for record in records:
        record.sessions = frozenset()


def _signal_groups(records: Sequence[Record], *numbers: int) -> set[Record]:
    """Those whose groups were reached, which they are in one step."""
    reached = {record for record in records if not record.was_reaped}
    for record in list(reached):
        try:
            for number in numbers:
                record.signal(number, group=True)
        except CallError:  # the group may hold others that are ours to signal
            reached.remove(record)
    return reached


async def _rest(records: Sequence[Record], pause: float) -> None:
    """Until all programs have ended; if they have, give what they left some time."""
    if all(record.was_reaped for record in records):
        return await anyio.sleep(pause)
    with anyio.move_on_after(pause):
        for record in records:
            await record.ended.wait()


# In a thread -----------------------------------------------------------------------------


def _signal_others(
    records: Sequence[Record],
    programs: Container[int],
    numbers: tuple[int, ...],
    reached: Container[Record],
) -> None:
    """Everybody but the groups that were reached."""
    for record, members in look(records, programs).items():
        for process in members:
            if record not in reached or process.group != record.pid:
                send(process, *numbers)


def _strike(records: Sequence[Record], programs: Container[int]) -> int:
    """Stop all, then kill all; how many there were."""
    stopped: set[tuple[int, int]] = set()
    deadline = time.monotonic() + _STOP_TIME
    while True:
        members = _members(records, programs)
        fresh = [process for process in members if process.id not in stopped]
        if not fresh or time.monotonic() > deadline:
            break
        for process in fresh:
            send(process, signal.SIGSTOP)
            stopped.add(process.id)
    for record in records:
        if record.cgroup:
            record.cgroup.kill()
    for process in reversed(members):  # children first, mostly: an orphaned group is told to go on
        send(process, signal.SIGKILL)
    return len(members)


def _strike_since(
    record: Record, programs: Container[int], since: int, numbers: Sequence[int]
) -> int:
    """How many of its tree were started at `since` or later and still live."""
    members = look([record], programs)[record]
    found = [p for p in members if p.start_time >= since and p.pid != record.pid]
    for process in found:
        send(process, *numbers)
    return len(found)


def _count(records: Sequence[Record], programs: Container[int]) -> int:
    return len(_members(records, programs))


def _members(records: Sequence[Record], programs: Container[int]) -> list[Process]:
    return [process for found in look(records, programs).values() for process in found]
