"""Whether the evidence of a seed is what was promised: nothing lost, doubled or invented.

The workload says what each call prints, reads and writes; the marks in the workspace say what
really ran; the books of the controller say what it was told. All three must agree, or the
difference must have been named: by a skip of a stream, a `gap`, or the coded error of a call, whose
`started` and `retry` must be true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.chaos.book import Book, Called, read_lines
from tests.chaos.conductor import Evidence
from tests.chaos.eventjudge import CORE, HANDS, READERS, SLACK, judge_events
from tests.chaos.faults import Kind as Fault
from tests.chaos.workload import (
    BEGUN,
    ENDED,
    PROGRAMS,
    Kind,
    Operation,
    content,
    digest,
    operation,
    source_sizes,
)

MEMORY = 192 * 1024 * 1024  # bytes that core may have at its peak
HEALING = 10.0  # seconds after which a disk that has room again is written to, and a restart over
STATE = 64 * 1024 * 1024  # bytes that the state folder may have

# What a call may be told besides its result, and by which faults.
_ALLOWED: dict[str, set[Fault]] = {
    "outcome_unknown": CORE | HANDS,
    "answer_gone": CORE,
    "hands_away": HANDS | CORE,
    "not_accepted": CORE,
    "no_space": {Fault.DISK},
    "read_only": {Fault.DISK},
    "expired_id": {Fault.DISK},  # and then core: its receipts had not all been written
}


@dataclass(slots=True)
class Verdict:
    """What was found; `named` counts losses that were told as they must be."""

    violations: list[str] = field(default_factory=list)
    named: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    bytes: int = 0
    events: int = 0


def judge(evidence: Evidence) -> Verdict:
    """Everything about one seed."""
    verdict = Verdict(violations=list(evidence.problems))
    book = Book(evidence.folder / "books")
    marks = {name: _marks(evidence, name) for name in (BEGUN, ENDED)}
    for call in book.calls.values():
        verdict.calls += 1
        for problem in _Case(evidence, book, call, marks, verdict).problems():
            verdict.violations.append(f"call {call.mark} (operation {call.number}): {problem}")
    known = {call.mark for call in book.calls.values()}
    for mark in marks[BEGUN].keys() - known:
        verdict.violations.append(f"{mark} ran, and nobody called it")
    verdict.violations += judge_events(evidence, book, verdict.named)
    verdict.events = sum(
        1 for name in READERS for _ in read_lines(evidence.folder / "books" / name)
    )
    verdict.violations += _house(evidence)
    return verdict


def _marks(evidence: Evidence, name: str) -> Counter[str]:
    path = evidence.folder / "workspace" / name
    return Counter(path.read_text().split()) if path.exists() else Counter()


class _Case:
    """One call."""

    def __init__(
        self,
        evidence: Evidence,
        book: Book,
        call: Called,
        marks: dict[str, Counter[str]],
        verdict: Verdict,
    ) -> None:
        self.evidence = evidence
        self.book = book
        self.call = call
        self.op: Operation = operation(evidence.seed, call.number)
        self.begun = marks[BEGUN][call.mark]
        self.ended = marks[ENDED][call.mark]
        self.verdict = verdict

    def problems(self) -> Iterator[str]:
        if self.begun > 1 or self.ended > 1:
            yield f"ran {self.begun} times"
        done = self.call.done
        if done is None:
            if self.book.is_finished:
                yield "the controller was never told what became of it"
        elif done["outcome"] == "ok":
            yield from self._of_success(done)
        else:
            yield from self._of_failure(done)

    def _during(self, kinds: set[Fault]) -> bool:
        assert self.call.done is not None
        slack = HEALING if Fault.DISK in kinds else SLACK
        return self.evidence.struck_during(kinds, self.call.at - slack, self.call.done["at"])

    # it ended well ------------------------------------------------------------------------

    def _of_success(self, done: dict[str, object]) -> Iterator[str]:
        value = done["value"]
        assert isinstance(value, dict)
        if self.op.kind in PROGRAMS:
            if (self.begun, self.ended) != (1, 1):
                yield f"told that it ended; it began {self.begun} and ended {self.ended} times"
            if value.get("status") != 0:
                yield f"told status {value.get('status')}, signal {value.get('signal')}"
            for n, expected in self.op.output().items():
                yield from self._of_stream(n, expected, done)
        elif self.op.kind is Kind.READ:
            size = source_sizes(self.evidence.seed)[int(self.op.path[-1])]
            expected = content(self.evidence.seed, self.op.path, size)
            if value["length"] != size:
                yield f"told a length of {value['length']}, the file has {size}"
            yield from self._of_stream(3, expected, done)
        elif self.op.kind is Kind.WRITE:
            expected = content(self.evidence.seed, self.op.path, self.op.size)
            path = self.evidence.folder / "workspace" / self.op.path
            if not path.exists() or digest(path.read_bytes()) != digest(expected):
                yield f"told that {self.op.path} is written, and it is not what was sent"
            if value["sha256"] != digest(expected):
                yield "told another digest than that of what was sent"
        elif value["pong"] != self.call.mark:
            yield "the pong is not the ping"

    def _of_stream(self, n: int, expected: bytes, done: dict[str, object]) -> Iterator[str]:
        path = self.book.output(self.call.id, n)
        data = path.read_bytes() if path.exists() else b""
        self.verdict.bytes += len(data)
        skips = [(begin, end) for m, begin, end in self.call.skips if m == n]
        gaps = _gaps_of(done["value"], n)
        failures = done["failures"]
        assert isinstance(failures, dict)
        failure = failures.get(str(n))
        if failure is not None:
            self.verdict.named[f"stream {failure}"] += 1
            is_gone = failure == "answer_gone" and self.call.resumed  # its streams were all taken
            if not is_gone and (failure not in _ALLOWED or not self._during(CORE)):
                yield f"stream {n} failed with {failure}"
        elif not gaps and max([len(data), *(end for _, end in skips)]) != len(expected):
            yield f"stream {n}: {len(data)} bytes came, {len(expected)} were made"
        for named, why in ((skips, CORE | HANDS | {Fault.DISK}), (gaps, CORE)):
            if named:
                self.verdict.named["skip" if named is skips else "gap in output"] += 1
                if not self._during(why):
                    yield f"stream {n}: {named} is missing without a reason"
        if gaps and not skips and failure is None:
            if not _is_all_but(data, expected, gaps):
                yield f"stream {n}: more is wrong than the gaps {gaps}"
            return
        for begin, end in _kept(len(data), skips):
            if data[begin:end] != expected[begin:end] and not any(gap <= end for gap in gaps):
                yield f"stream {n}: other bytes than were made {_where(data, expected, begin)}"

    # it failed ----------------------------------------------------------------------------

    def _of_failure(self, done: dict[str, object]) -> Iterator[str]:
        outcome, started = str(done["outcome"]), done["started"]
        self.verdict.named[outcome] += 1
        told = f"told {outcome} (started={started}, retry={done['retry']}): {done['message']}"
        if started == "no" and self._left_a_trace():
            yield f"{told}; yet it ran"
        if outcome == "cancelled":
            if not self.call.cancelled:
                yield f"{told}; nobody cancelled it"
        elif outcome not in _ALLOWED:
            yield told
        elif not self._during(_ALLOWED[outcome]):
            yield f"{told}; nothing had happened that explains it"
        if self.op.kind is Kind.WRITE:
            yield from self._of_failed_write(told)

    def _left_a_trace(self) -> bool:
        if self.op.kind is not Kind.WRITE:
            return self.begun > 0
        others = [
            call
            for call in self.book.calls.values()
            if call.number == self.op.number and call is not self.call
        ]
        path = self.evidence.folder / "workspace" / self.op.path
        return path.exists() and not others

    def _of_failed_write(self, told: str) -> Iterator[str]:
        path = self.evidence.folder / "workspace" / self.op.path
        if path.exists():
            expected = content(self.evidence.seed, self.op.path, self.op.size)
            if path.read_bytes() != expected:
                yield f"{told}; {self.op.path} is half written"


def _gaps_of(value: object, n: int) -> list[int]:
    """Where core lost some of an output when it was killed; how much, nobody could know."""
    assert isinstance(value, dict)
    described = value.get({1: "stdout", 2: "stderr"}.get(n, ""), {})
    return sorted({gap["at"] for gap in described.get("gaps", [])})


def _is_all_but(data: bytes, expected: bytes, gaps: list[int]) -> bool:
    """Whether `data` is `expected` with something, or nothing, left out at each of the gaps. No
    two lines are alike, so that each piece has one place."""
    at = 0
    borders = [0, *gaps, len(data)]
    for begin, end in zip(borders, borders[1:], strict=False):
        piece = data[begin:end]
        found = expected.find(piece, at) if begin else (0 if expected.startswith(piece) else -1)
        if end == len(data) and found >= 0:
            found = len(expected) - len(piece) if expected.endswith(piece) else -1
        if found < at:
            return False
        at = found + len(piece)
    return True


def _kept(size: int, skips: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What lies between the skips."""
    at = 0
    for begin, end in sorted(skips):
        if begin > at:
            yield at, begin
        at = max(at, end)
    if at < size:
        yield at, size


def _where(data: bytes, expected: bytes, begin: int) -> str:
    pairs = zip(data[begin:], expected[begin:], strict=False)
    at = next(
        (begin + i for i, (a, b) in enumerate(pairs) if a != b), min(len(data), len(expected))
    )
    return f"from {at} on: {data[at : at + 20]!r} instead of {expected[at : at + 20]!r}"


# the house --------------------------------------------------------------------------------


def _house(evidence: Evidence) -> Iterator[str]:
    if (evidence.folder / "twin" / "workspace" / BEGUN).exists():
        yield "the older sidecar ran a program"
    if evidence.leftovers:
        yield f"processes were left behind: {evidence.leftovers}"
    if evidence.peak_memory > MEMORY:
        yield f"core had {evidence.peak_memory} bytes of memory at its peak"
    for name, status in evidence.statuses.items():
        good = (0, 75) if name in ("core", "twin") else (0,)
        if name != "twin" and status not in good:
            yield f"{name} ended with {status}"
    used = sum(
        path.stat().st_blocks * 512
        for path in (evidence.folder / "state").rglob("*")
        if path.is_file()
    )
    if used > STATE:
        yield f"the state folder has {used} bytes"
