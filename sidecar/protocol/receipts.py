"""Which call is new, repeated, fenced, ended, or too old to tell.

A receipt remembers one call by its id. Its state only moves forward:

    accepted ──► started ──► ended          fenced (came before its call; terminal)
     │    ▲└───────────────────▲              ▲
     ▼    │                                   │
     resend ──────────────────────────────────┘

- The same id with the same digest of its arguments is a repeat: it runs nothing and gets what
  the receipt knows. With another digest it is a conflict.
- Where receipts outlive the process, a call that was accepted and had not begun when it ended
  is `resend`: it runs when it comes again, once, and whoever cancels it fences it. One that had
  started stays so, until whoever opened the receipts ends it.
- Was something lost that had been written (a power cut, a disk that failed), nobody can tell
  what an accepted call had begun, or which calls there were. So it counts as started, and every
  id made before is expired unless it is remembered. (Made by our clock: a caller whose clock is
  ahead of it by more than the time that the start took is not covered by this.)
- Only receipts that are not open (ended, fenced, resend) are evicted: after `RECEIPT_TIME`, or,
  over the bound on their number, the one with the oldest id first.
- Each eviction raises the low-water mark to the time in the evicted id. An id that is not
  remembered and not younger than the mark may have run already: it is expired, and never runs.

Why the oldest *id* and not the one that ended first: ids are made by the callers' clocks. One
caller whose clock is ahead must not lift the mark over everybody else's ids, so its receipts
go last. For the same reason a receipt's time runs from its end or the time in its id,
whichever is later; and one whose time has come may stay until those with older ids may go, which
is at most as much longer as a call takes.

Times are seconds on the calendar, because they are compared with the time in the ids.
"""

from __future__ import annotations

import heapq
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
from sidecar.protocol.record import Record, record


class State(StrEnum):
    RESEND = "resend"  # an earlier life accepted it and never began it
    ACCEPTED = "accepted"  # is about to run
    STARTED = "started"  # has begun to act
    ENDED = "ended"
    FENCED = "fenced"  # cancelled before it came: will never run


_OPEN = (State.ACCEPTED, State.STARTED)


@dataclass(frozen=True, slots=True)
class Terms:
    """What came with a call beside its arguments: what it takes to take it up again."""

    command: str
    begun: float  # when it was accepted, on the calendar
    deadline: float | None = None  # on the sidecar's clock, which begins anew with the machine
    deadline_wall: float | None = None  # the same on the calendar
    credit: int = 0  # for each stream that it sends
    traceparent: str | None = None


@record
class Receipt(Record):
    """What is known of one call. `answer` is None while there is none, and when it is gone;
    `terms` and `note` are kept while it is open.

    An answer is opaque here: its bytes, or a handle to where they lie.
    """

    call_id: bytes
    digest: bytes
    state: State
    answer: bytes | None = None
    terms: Terms | None = None
    note: bytes | None = None
    settled: float = 0.0  # on the calendar: when it was not open

    def __eq__(self, other: object) -> bool:
        """When it settled does not make it another."""
        if type(other) is not Receipt:
            return NotImplemented
        return self._values()[:-1] == other._values()[:-1]

    @property
    def is_open(self) -> bool:
        return self.state in _OPEN


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
    FENCED = "fenced"  # it never began and will never run
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
        self._answers: dict[bytes, int] = {}  # sizes; the oldest answer first
        self._answers_bytes = 0

    @property
    def answers_bytes(self) -> int:
        """Of all answers that are kept."""
        return self._answers_bytes

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
        if receipt is not None and (receipt.state is not State.RESEND or receipt.digest != digest):
            return self._seen(receipt, digest)
        if receipt is None and uuid7_millis(call_id) <= self.low_water:
            return Expired(self.low_water)
        if self.open_count >= self._max_open:
            raise LimitExceeded("open calls", size=self.open_count + 1, limit=self._max_open)
        if receipt is None:
            self._make_room()
        self._put(Receipt(call_id, digest, State.ACCEPTED, terms=terms))
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
        self._put(replace(receipt, state=State.STARTED, note=note))

    def end(
        self, call_id: bytes, answer: bytes | None, *, now_wall: float, size: int | None = None
    ) -> None:
        """The call has its one answer; None if it is too large to be kept here. `size` is that
        of the answer, where `answer` is only a handle to it.

        Raises `LimitExceeded` for an answer over 64 KiB; the call is then still open.
        """
        receipt = self._open_receipt(call_id)
        size = len(answer or b"") if size is None else size
        if size > ANSWER_BYTES:
            raise LimitExceeded("bytes of an answer", size=size, limit=ANSWER_BYTES)
        self._settle(Receipt(call_id, receipt.digest, State.ENDED, answer, settled=now_wall))
        if answer is not None:
            self._keep_answer(call_id, size)

    def fence(self, call_id: bytes, *, now_wall: float) -> FenceOutcome:
        """A cancel came in: a call that was never seen will now never run.

        Raises `Invalid` for an id that is not a UUIDv7 and `LimitExceeded` if nothing can be
        forgotten for the sake of this fence.
        """
        check_uuid7(call_id, "call id")
        self._forget_aged(now_wall)
        receipt = self._receipts.get(call_id)
        if receipt is not None and receipt.state is not State.RESEND:
            return FenceOutcome(receipt.state)
        if receipt is None:
            if uuid7_millis(call_id) <= self.low_water:
                return FenceOutcome.EXPIRED
            self._make_room()
        self._settle(Receipt(call_id, b"", State.FENCED, settled=now_wall))
        return FenceOutcome.FENCED

    def _open_receipt(self, call_id: bytes) -> Receipt:
        receipt = self._receipts.get(call_id)
        if receipt is None:
            raise CallError(Code.UNKNOWN_CALL, f"no receipt for call {show(call_id)}")
        if not receipt.is_open:
            raise AssertionError(f"call {show(call_id)} is {receipt.state}: its answer stands")
        return receipt

    # Taking up what an earlier life knew -------------------------------------------------

    def restore(self, receipt: Receipt, *, size: int = 0) -> None:
        """Know this of a call, whatever was known before; `size` is that of its answer."""
        if receipt.call_id not in self._receipts:
            self._make_room()
        else:
            self._drop_answer(receipt.call_id)
        if receipt.state in _OPEN:
            self._put(receipt)
            return
        self._settle(receipt)
        if receipt.answer is not None:
            self._keep_answer(receipt.call_id, size)

    def begin_life(self, *, now_wall: float, is_whole: bool) -> None:
        """A process begins, with what was restored. Unless that is whole, ids that were made
        before are expired, and what was accepted may have begun."""
        for receipt in list(self._receipts.values()):
            if receipt.state is State.ACCEPTED and is_whole:
                self._settle(replace(receipt, state=State.RESEND, settled=now_wall))
            elif receipt.state in (State.ACCEPTED, State.RESEND) and not is_whole:
                self._put(replace(receipt, state=State.STARTED))
        if not is_whole:
            self.low_water = max(self.low_water, int(now_wall * 1000))
        self._forget_aged(now_wall)

    def left_open(self) -> list[Receipt]:
        """What is open; after `begin_life`, what had started."""
        return [receipt for receipt in self._receipts.values() if receipt.is_open]

    # Forgetting --------------------------------------------------------------------------

    def _put(self, receipt: Receipt) -> None:
        known = self._receipts.get(receipt.call_id)
        if known is not None and known.state in _OPEN:
            self.open_count -= 1
        if receipt.state in _OPEN:
            self.open_count += 1
        self._receipts[receipt.call_id] = receipt

    def _settle(self, receipt: Receipt) -> None:
        """It is not open (any more), so it may be forgotten."""
        self._put(receipt)
        heapq.heappush(self._by_id, receipt.call_id)

    def _expires(self, receipt: Receipt) -> float:
        return max(receipt.settled, uuid7_millis(receipt.call_id) / 1000) + self._max_age

    def _forget_aged(self, now_wall: float) -> None:
        while self._by_id:
            receipt = self._receipts.get(self._by_id[0])
            if receipt is not None and not receipt.is_open and self._expires(receipt) > now_wall:
                break
            self._forget(heapq.heappop(self._by_id))
        # It names some twice, and some that were begun after all; it must not grow by that.
        if len(self._by_id) > 2 * len(self._receipts) + 16:
            settled = [receipt for receipt in self._receipts.values() if not receipt.is_open]
            self._by_id = [receipt.call_id for receipt in settled]
            heapq.heapify(self._by_id)

    def _make_room(self) -> None:
        while len(self._receipts) >= self._max_receipts:
            if not self._by_id:
                raise LimitExceeded(
                    "receipts", size=len(self._receipts) + 1, limit=self._max_receipts
                )
            self._forget(heapq.heappop(self._by_id))

    def _forget(self, call_id: bytes) -> None:
        receipt = self._receipts.get(call_id)
        if receipt is None or receipt.is_open:
            return
        del self._receipts[call_id]
        self._drop_answer(call_id)
        self.low_water = max(self.low_water, uuid7_millis(call_id))

    def _keep_answer(self, call_id: bytes, size: int) -> None:
        self._answers[call_id] = size
        self._answers_bytes += size
        if self._answers_bytes > self._max_answers_bytes:
            for oldest in self._oldest_answers(self._answers_bytes - self._max_answers_bytes):
                self._drop_answer(oldest)
                self._receipts[oldest] = replace(self._receipts[oldest], answer=None)

    def _oldest_answers(self, size: int) -> list[bytes]:
        """So many that they have `size` bytes together. In one walk: each look for the first key
        of a dict passes over all that were taken from its beginning."""
        found: list[bytes] = []
        for call_id, its_size in self._answers.items():
            if size <= 0:
                break
            found.append(call_id)
            size -= its_size
        return found

    def _drop_answer(self, call_id: bytes) -> None:
        self._answers_bytes -= self._answers.pop(call_id, 0)
