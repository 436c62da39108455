"""Which call is new, repeated, fenced, ended, or too old to tell.

A receipt remembers one call by its id. Its state only moves forward:

    accepted ──► started ──► ended          fenced (came before its call; terminal)
        └──────────────────────▲

- The same id with the same digest of its arguments is a repeat: it runs nothing and gets what
  the receipt knows. With another digest it is a conflict.
- Only receipts that are ended or fenced are evicted: after `RECEIPT_TIME`, or, over the bound
  on their number, the one with the oldest id first.
- Each eviction raises the low-water mark to the time in the evicted id. An id that is not
  remembered and not younger than the mark may have run already: it is expired, and never runs.

Why the oldest *id* and not the one that ended first: ids are made by the callers' clocks. One
caller whose clock is ahead must not lift the mark over everybody else's ids, so its receipts
go last. For the same reason a receipt's time runs from its end or the time in its id,
whichever is later.

Times are seconds on the calendar, because they are compared with the time in the ids.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass, replace
from enum import StrEnum

from sidecar.errors import CallError, Code, LimitExceeded
from sidecar.protocol.ids import check_uuid7, show, uuid7_millis
from sidecar.protocol.limits import (
    ANSWER_BYTES,
    MEMORY_ANSWERS_BYTES,
    NOTE_BYTES,
    OPEN_CALLS,
    RECEIPT_TIME,
    RECEIPTS,
)


class State(StrEnum):
    ACCEPTED = "accepted"  # may still run, or be run again after a crash
    STARTED = "started"  # has begun to act
    ENDED = "ended"
    FENCED = "fenced"  # cancelled before it came: will never run


@dataclass(frozen=True, slots=True)
class Terms:
    """What came with a call beside its arguments: what it takes to take it up again."""

    command: str
    begun: float  # when it was accepted, on the calendar
    deadline: float | None = None  # on the sidecar's clock
    credit: int = 0  # for each stream that it sends
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is known of one call. `answer` is None while there is none, and when it is gone;
    `terms` and `note` are kept while it is open."""

    call_id: bytes
    digest: bytes
    state: State
    answer: bytes | None = None
    terms: Terms | None = None
    note: bytes | None = None


@dataclass(frozen=True, slots=True)
class New:
    """Never seen: run it."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """Seen with the same arguments. `ended` without an answer: `answer_gone`."""

    state: State
    answer: bytes | None


@dataclass(frozen=True, slots=True)
class Conflict:
    """Seen with other arguments."""


@dataclass(frozen=True, slots=True)
class Expired:
    """Older than what is remembered. Ids made after `low_water` (milliseconds) are not."""

    low_water: int


@dataclass(frozen=True, slots=True)
class Fenced:
    """Its cancel came first."""


Outcome = New | Repeat | Conflict | Expired | Fenced


class FenceOutcome(StrEnum):
    FENCED = "fenced"  # it never came and will never run
    ACCEPTED = "accepted"
    STARTED = "started"
    ENDED = "ended"
    EXPIRED = "expired"  # it will not run from now on; whether it ever did is forgotten


class ReceiptsProtocol:
    """The receipts of one run, in memory; a doer makes them last."""

    def __init__(
        self,
        *,
        max_receipts: int = RECEIPTS,
        max_open: int = OPEN_CALLS,
        max_age: float = RECEIPT_TIME,
        max_answers_bytes: int = MEMORY_ANSWERS_BYTES,
    ) -> None:
        self.low_water = -1  # milliseconds; the time in the youngest id that was evicted
        self.open_count = 0
        self._max_receipts = max_receipts
        self._max_open = max_open
        self._max_age = max_age
        self._max_answers_bytes = max_answers_bytes
        self._receipts: dict[bytes, Receipt] = {}
        self._by_id: list[bytes] = []  # a heap of what may be evicted; ids sort by their time
        self._by_age: list[tuple[float, bytes]] = []  # a heap of the same: expires at, id
        self._answers: OrderedDict[bytes, int] = OrderedDict()  # sizes; the oldest answer first
        self._answers_bytes = 0

    def __len__(self) -> int:
        return len(self._receipts)

    def get(self, call_id: bytes) -> Receipt | None:
        """The receipt of a call; None if it was never seen or is forgotten."""
        return self._receipts.get(call_id)

    def begin(
        self, call_id: bytes, digest: bytes, *, now_wall: float, terms: Terms | None = None
    ) -> Outcome:
        """A call came in; `New` has accepted it.

        Raises `Invalid` for an id that is not a UUIDv7 and `LimitExceeded` if too many calls
        are open; neither leaves a trace, so that the same id may come again.
        """
        check_uuid7(call_id, "call id")
        self._forget_aged(now_wall)
        receipt = self._receipts.get(call_id)
        if receipt is not None:
            return self._seen(receipt, digest)
        if uuid7_millis(call_id) <= self.low_water:
            return Expired(self.low_water)
        if self.open_count >= self._max_open:
            raise LimitExceeded("open calls", size=self.open_count + 1, limit=self._max_open)
        self._make_room()
        self._receipts[call_id] = Receipt(call_id, digest, State.ACCEPTED, terms=terms)
        self.open_count += 1
        return New()

    @staticmethod
    def _seen(receipt: Receipt, digest: bytes) -> Outcome:
        if receipt.state is State.FENCED:
            return Fenced()
        if receipt.digest != digest:
            return Conflict()
        return Repeat(receipt.state, receipt.answer)

    def started(self, call_id: bytes, note: bytes | None = None) -> None:
        """The call begins to act. A second time is harmless, and may bring another note.

        Raises `LimitExceeded` for a note over 4 KiB.
        """
        receipt = self._open_receipt(call_id)
        if note is not None and len(note) > NOTE_BYTES:
            raise LimitExceeded("bytes of a note", size=len(note), limit=NOTE_BYTES)
        note = receipt.note if note is None else note
        self._receipts[call_id] = replace(receipt, state=State.STARTED, note=note)

    def end(self, call_id: bytes, answer: bytes | None, *, now_wall: float) -> None:
        """The call has its one answer; None if it is too large to be kept here.

        Raises `LimitExceeded` for an answer over 64 KiB; the call is then still open.
        """
        receipt = self._open_receipt(call_id)
        if answer is not None and len(answer) > ANSWER_BYTES:
            raise LimitExceeded("bytes of an answer", size=len(answer), limit=ANSWER_BYTES)
        self._receipts[call_id] = Receipt(call_id, receipt.digest, State.ENDED, answer)
        self.open_count -= 1
        self._may_go(call_id, now_wall)
        if answer is not None:
            self._keep_answer(call_id, len(answer))

    def fence(self, call_id: bytes, *, now_wall: float) -> FenceOutcome:
        """A cancel came in: a call that was never seen will now never run.

        Raises `Invalid` for an id that is not a UUIDv7 and `LimitExceeded` if nothing can be
        forgotten for the sake of this fence.
        """
        check_uuid7(call_id, "call id")
        self._forget_aged(now_wall)
        receipt = self._receipts.get(call_id)
        if receipt is not None:
            return FenceOutcome(receipt.state)
        if uuid7_millis(call_id) <= self.low_water:
            return FenceOutcome.EXPIRED
        self._make_room()
        self._receipts[call_id] = Receipt(call_id, b"", State.FENCED)
        self._may_go(call_id, now_wall)
        return FenceOutcome.FENCED

    def _open_receipt(self, call_id: bytes) -> Receipt:
        receipt = self._receipts.get(call_id)
        if receipt is None:
            raise CallError(Code.UNKNOWN_CALL, f"no receipt for call {show(call_id)}")
        if receipt.state in (State.ENDED, State.FENCED):
            raise AssertionError(f"call {show(call_id)} is {receipt.state}: its answer stands")
        return receipt

    # Forgetting --------------------------------------------------------------------------

    def _may_go(self, call_id: bytes, now_wall: float) -> None:
        from_time = max(now_wall, uuid7_millis(call_id) / 1000)
        heapq.heappush(self._by_id, call_id)
        heapq.heappush(self._by_age, (from_time + self._max_age, call_id))

    def _forget_aged(self, now_wall: float) -> None:
        while self._by_age and self._by_age[0][0] <= now_wall:
            self._forget(heapq.heappop(self._by_age)[1])
        # Each heap still names what went through the other; it must not grow by that.
        if len(self._by_age) > 2 * len(self._receipts) + 16:
            self._by_age = [entry for entry in self._by_age if entry[1] in self._receipts]
            heapq.heapify(self._by_age)
        if len(self._by_id) > 2 * len(self._receipts) + 16:
            self._by_id = [call_id for call_id in self._by_id if call_id in self._receipts]
            heapq.heapify(self._by_id)

    def _make_room(self) -> None:
        while len(self._receipts) >= self._max_receipts:
            if not self._by_id:
                raise LimitExceeded(
                    "receipts", size=len(self._receipts) + 1, limit=self._max_receipts
                )
            self._forget(heapq.heappop(self._by_id))

    def _forget(self, call_id: bytes) -> None:
        if self._receipts.pop(call_id, None) is None:
            return
        self._answers_bytes -= self._answers.pop(call_id, 0)
        self.low_water = max(self.low_water, uuid7_millis(call_id))

    def _keep_answer(self, call_id: bytes, size: int) -> None:
        self._answers[call_id] = size
        self._answers_bytes += size
        while self._answers_bytes > self._max_answers_bytes:
            oldest, freed = self._answers.popitem(last=False)
            self._answers_bytes -= freed
            self._receipts[oldest] = replace(self._receipts[oldest], answer=None)
