"""Who belongs to a program: everything it started that still lives, and itself.

Found by one look at all of /proc, for any number of programs at once:

- what descends from it, and from any member of its tree, by parent;
- who is in its session (each program leads one), or in that of a member: sessions are made
  inside the tree, as nobody can join one that exists (setsid(2));
- what lost its parents and became our child (`orphans`), or that of an ancestor of ours if we do
  not adopt, if its environment has the program's mark;
- whom the last look found, by pid and start time, and who is in such a one's session;
- who is in its cgroup, where it has one.

What is not found, without a cgroup: a process whose ancestors have ended, that is in a session
of its own, whose environment is wiped or not readable for us (another user's), all before the
first look. It belongs to nobody and is never signalled: it might be a stranger's. The programs of
a sidecar inside of the tree have marks of their own; they are found while that sidecar lives, or
if a look found them then.

Never a member: this process, its ancestors, whatever is in its session.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence

from sidecar.hands.local.environment import MARK
from sidecar.hands.local.proc import (
    Process,
    group_exists,
    is_there,
    read_all,
    read_process,
    read_variable,
)
from sidecar.hands.local.record import Record

Members = dict[Record, list[Process]]


def look(records: Sequence[Record], programs: Container[int]) -> Members:
    """The living of each tree, in the order of their pids. Blocks, so it runs in a thread.

    `programs` are the pids of all programs of ours that were not reaped.
    """
    return _Look(records, programs, read_all()).members()


def owner_of(child: Process, records: Sequence[Record]) -> Record | None:
    """Whose tree an orphan belongs to that became a child of ours, without a look at others.

    Never waits.
    """
    for record in records:
        if record.seen.get(child.pid) == child.start_time or child.session in record.sessions:
            return record
        if child.session == record.pid and record.owns_session:
            return record
    mark = read_variable(child.pid, MARK, looks=1)
    return next((record for record in records if mark == record.key.hex().encode()), None)


class _Look:
    """One table of processes, and to whom each was found to belong."""

    def __init__(
        self, records: Sequence[Record], programs: Container[int], table: dict[int, Process]
    ) -> None:
        self._records = records
        self._programs = programs
        self._table = table
        self._owners: dict[int, Record] = {}
        self._children: dict[int, list[int]] = defaultdict(list)
        self._sessions: dict[int, list[int]] = defaultdict(list)
        for process in table.values():
            self._children[process.parent].append(process.pid)
            self._sessions[process.session].append(process.pid)
        self._family = _ancestors(os.getpid(), table)
        # 0 is a session of another PID namespace, which holds strangers too.
        self._foreign = {0, os.getsid(0)}

    def members(self) -> Members:
        for record in self._records:
            self._claim(record, self._known(record))
        self._claim_marked()
        found: Members = {record: [] for record in self._records}
        for pid in sorted(self._owners):
            if self._table[pid].is_alive:
                found[self._owners[pid]].append(self._table[pid])
        for record, processes in found.items():
            self._note(record, processes)
        return found

    def _known(self, record: Record) -> Iterable[int]:
        """Where its tree begins, but for what only the mark can tell."""
        program = self._table.get(record.pid)
        if program and program.start_time == record.start_time:
            yield record.pid
        elif program is None and record.owns_session:
            yield from self._sessions[record.pid]
        for pid, start_time in record.seen.items():
            process = self._table.get(pid)
            if process and process.start_time == start_time:
                yield pid
        for session in record.sessions:
            leader = self._table.get(session)
            # If the leader is another than it was, the session had ended and is a stranger's.
            if leader is None or record.seen.get(session) == leader.start_time:
                yield from self._sessions[session]
        if record.cgroup:
            yield from record.cgroup.pids()

    def _claim_marked(self) -> None:
        records = {record.key.hex().encode(): record for record in self._records}
        todo = [pid for parent in self._family for pid in self._children[parent]]
        while todo:
            pid = todo.pop()
            if pid in self._programs or not self._may_claim(pid):
                continue
            mark = read_variable(pid, MARK)
            if mark in records:
                self._claim(records[mark], [pid])
            elif mark is None and not is_there(self._table[pid]):
                todo += self._children[pid]  # they become orphans in its place

    def _claim(self, record: Record, pids: Iterable[int]) -> None:
        todo = list(pids)
        while todo:
            pid = todo.pop()
            if self._may_claim(pid):
                self._owners[pid] = record
                todo += self._children[pid]
                todo += self._sessions[self._table[pid].session]

    def _may_claim(self, pid: int) -> bool:
        process = self._table.get(pid)
        return (
            process is not None
            and pid not in self._owners
            and pid not in self._family
            and process.session not in self._foreign
        )

    def _note(self, record: Record, processes: list[Process]) -> None:
        record.seen = {process.pid: process.start_time for process in processes}
        record.sessions = frozenset(process.session for process in processes)
        if record.was_reaped and not self._sessions[record.pid]:
            # From here on others may have the number, unless we saw nobody for their speed.
            record.owns_session = record.owns_session and group_exists(record.pid)


def _ancestors(pid: int, table: dict[int, Process]) -> list[int]:
    """`pid`, its parent, and so on."""
    family = [pid]
    while (process := table.get(family[-1]) or read_process(family[-1])) and process.parent:
        family.append(process.parent)
    return family
