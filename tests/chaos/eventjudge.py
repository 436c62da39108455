"""Whether the events are what was promised: each once, in order, the same to everybody.

What both readers were told is compared with each other, with the journal on disk, and with what
the calls did. A gap needs a fault that explains it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sidecar.protocol import envelope as wire
from sidecar.protocol.journal import Kind as Frame
from sidecar.protocol.journal import decode_gap
from sidecar.protocol.segments import HEADER_BYTES, decode_header, scan
from tests.chaos.book import Book, read_lines
from tests.chaos.conductor import Evidence
from tests.chaos.faults import Kind as Fault
from tests.chaos.workload import PROGRAMS, Kind, operation

READERS = ("events-durable", "events-passing")
CORE = {Fault.CORE, Fault.BOTH}
HANDS = {Fault.HANDS, Fault.BOTH}
SLACK = 1.0  # seconds by which what a fault broke may be told later
FOREVER = float("inf")

Entry = dict[str, Any]  # as the book of a reader has it


def judge_events(evidence: Evidence, book: Book, named: Counter[str]) -> Iterator[str]:
    """Everything that is wrong with them. `named` counts the gaps."""
    on_disk = list(read_journal(evidence.folder / "state" / "journal"))
    yield from _in_order(evidence, "the journal on disk", on_disk, Counter())
    told = {_key(entry): ("the journal on disk", entry) for entry in on_disk if "gap" not in entry}
    for name in READERS:
        entries = read_lines(evidence.folder / "books" / name)
        yield from _in_order(evidence, name, entries, named)
        for entry in entries:
            if "gap" in entry:
                continue
            whose, other = told.setdefault(_key(entry), (name, entry))
            if other != entry:
                yield f"event {_key(entry)} is {entry} to {name}, and {other} to {whose}"
    yield from _per_call(evidence, book, [entry for _, entry in told.values()])


def read_journal(folder: Path) -> Iterator[Entry]:
    """What lies on disk, in the form of the books."""
    for path in sorted(folder.glob("*.log")):
        data = path.read_bytes()
        series = decode_header(data).series.hex()
        for frame in scan(data, start=HEADER_BYTES).frames:
            if frame.kind == Frame.EVENT:
                (event,) = wire.decode(frame.payload)
                assert isinstance(event, wire.Event)
                call = None if event.call is None else event.call.hex()
                yield {
                    "series": series,
                    "seq": event.seq,
                    "name": event.name,
                    "call": call,
                    "time": event.time_ms / 1000,
                    "data": repr(event.data),
                }
            elif frame.kind == Frame.GAP:
                gap = decode_gap(frame.payload, frame.number)
                yield {
                    "series": series,
                    "seq": gap.to_seq,
                    "gap": [gap.from_seq, gap.to_seq],
                    "why": str(gap.why),
                }


def _key(entry: Entry) -> tuple[str, int]:
    return entry["series"], entry["seq"]


def _in_order(
    evidence: Evidence, name: str, entries: list[Entry], named: Counter[str]
) -> Iterator[str]:
    series, seq = None, 0
    for entry in entries:
        is_same = entry["series"] == series
        if "gap" in entry:
            first, _ = entry["gap"]
            named[f"gap {entry['why']}"] += 1
            if is_same and first != seq + 1:
                yield f"{name}: a gap from {first} on follows {seq}"
            if not _explains(evidence, entry["why"]):
                yield f"{name}: a gap ({entry['why']}), and nothing that explains it"
            series, seq = entry["series"], entry["seq"]
            continue
        if series is not None and not is_same and name in READERS:
            yield f"{name}: another series without a gap"
        if not is_same and name not in READERS:
            seq = entry["seq"] - 1  # what lies on disk may begin anywhere
        if entry["seq"] != seq + 1:
            yield f"{name}: {entry['seq']} follows {seq}"
        series, seq = entry["series"], entry["seq"]


def _explains(evidence: Evidence, why: str) -> bool:
    """Nothing but a full disk loses an event, or ends a series."""
    return why in ("disk", "new_series") and evidence.struck_during({Fault.DISK}, 0.0, FOREVER)


def _per_call(evidence: Evidence, book: Book, events: list[Entry]) -> Iterator[str]:
    """A program that is known to have ended was told of, once; a written file too."""
    counted = Counter((event["name"], event["call"]) for event in events)
    in_series = Counter((event["series"], event["name"], event["call"]) for event in events)
    for (_, name, mark), times in in_series.items():
        if mark is not None and name in ("exec.started", "exec.ended") and times > 1:
            yield f"event {name} of call {mark} came {times} times"
    for called in book.calls.values():
        done = called.done
        if done is None or done["outcome"] != "ok":
            continue
        begin, end = called.at - SLACK, done["at"] + SLACK
        if evidence.struck_during(CORE | HANDS | {Fault.DISK}, begin, end):
            continue
        op = operation(evidence.seed, called.number)
        expected: tuple[str, ...] = ("files.written",) if op.kind is Kind.WRITE else ()
        if op.kind in PROGRAMS:
            expected = ("exec.started", "exec.ended")
        for name in expected:
            if not counted[name, called.mark]:
                yield f"call {called.mark} ended well, and no event {name} ever came"
