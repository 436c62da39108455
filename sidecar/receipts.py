"""What became of each call: written before `accepted` goes out, asked when a call comes again.

`protocol.receipts` has the rules. Its methods are coroutines, because a form that lasts returns
from them only when the change is written, and may have to read an answer from disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from sidecar.errors import CallError
from sidecar.protocol.limits import (
    MEMORY_ANSWERS_BYTES,
    OPEN_CALLS,
    RECEIPT_TIME,
    RECEIPTS,
    WATCH_PART,
)
from sidecar.protocol.names import Scope
from sidecar.protocol.receipts import (
    FenceOutcome,
    New,
    Outcome,
    Receipt,
    ReceiptsProtocol,
    Terms,
)


class Receipts(Protocol):
    """The receipts of one run. `now_wall` is the calendar, seconds since the epoch.

    Cancelling a method leaves the receipt either as it was or as it was to become.
    """

    @property
    def durable(self) -> bool:
        """Whether receipts outlive this process."""
        ...

    @property
    def refusal(self) -> CallError | None:
        """Why no call that has effects may be begun; None: it may."""
        ...

    @property
    def open_count(self) -> int:
        """Calls that are accepted or started."""
        ...

    async def begin(
        self,
        call_id: bytes,
        digest: bytes,
        *,
        now_wall: float,
        terms: Terms | None = None,
        on_written: Callable[[], None] | None = None,
    ) -> Outcome:
        """A call came in; after `New` it goes on record as accepted.

        `on_written` is called as soon as the record is written, at once or later: not waiting
        for it here spares a call one wait of two, for `started` waits for both.

        Raises `Invalid` for an id that is not a UUIDv7, `LimitExceeded` over 256 open calls.
        """
        ...

    async def started(self, call_id: bytes, note: bytes | None = None) -> None:
        """The call begins to act; written when this returns. A second time is harmless.

        `note`: what its command needs to take it up after a restart. Without one its answer is
        then `outcome_unknown`. Raises `LimitExceeded` for one over 4 KiB.
        """
        ...

    async def end(self, call_id: bytes, answer: bytes | None, *, now_wall: float) -> None:
        """The one answer, at most 64 KiB; None: too large, it will be `answer_gone`."""
        ...

    async def fence(self, call_id: bytes, *, now_wall: float) -> FenceOutcome:
        """A cancel came in. `FENCED`: the call never came, and will never run."""
        ...

    async def get(self, call_id: bytes) -> Receipt | None:
        """What is remembered of a call."""
        ...

    def left_open(self) -> list[Receipt]:
        """The calls that had started, and not ended, when these receipts were opened."""
        ...

    async def tidy(self) -> None:
        """Work that is due from time to time, for which nobody should have to wait."""
        ...


class MemoryReceipts:
    """Receipts that end with the process."""

    durable = False
    refusal: CallError | None = None

    def __init__(
        self,
        *,
        max_receipts: int = RECEIPTS,
        max_open: int = OPEN_CALLS,
        max_age: float = RECEIPT_TIME,
        max_answers_bytes: int = MEMORY_ANSWERS_BYTES,
    ) -> None:
        self._protocol = ReceiptsProtocol(
            max_receipts=max_receipts,
            max_open=max_open,
            max_age=max_age,
            max_answers_bytes=max_answers_bytes,
        )

    @property
    def open_count(self) -> int:
        return self._protocol.open_count

    async def begin(
        self,
        call_id: bytes,
        digest: bytes,
        *,
        now_wall: float,
        terms: Terms | None = None,
        on_written: Callable[[], None] | None = None,
    ) -> Outcome:
        outcome = self._protocol.begin(call_id, digest, now_wall=now_wall, terms=terms)
        if on_written is not None and isinstance(outcome, New):
            on_written()
        return outcome

    async def started(self, call_id: bytes, note: bytes | None = None) -> None:
        self._protocol.started(call_id, note)

    async def end(self, call_id: bytes, answer: bytes | None, *, now_wall: float) -> None:
        self._protocol.end(call_id, answer, now_wall=now_wall)

    async def fence(self, call_id: bytes, *, now_wall: float) -> FenceOutcome:
        return self._protocol.fence(call_id, now_wall=now_wall)

    async def get(self, call_id: bytes) -> Receipt | None:
        return self._protocol.get(call_id)

    def left_open(self) -> list[Receipt]:
        return []

    async def tidy(self) -> None:
        """There is nothing."""


def by_scope(receipts: Receipts) -> Mapping[Scope, Receipts]:
    """`receipts` for who may act, and others for who may only watch.

    Apart, because a flood of calls or fences pushes out the oldest receipts and makes older ids
    expire. In memory is enough for watchers: what only reads may be run again.
    """
    watchers = MemoryReceipts(
        max_receipts=RECEIPTS // WATCH_PART, max_answers_bytes=MEMORY_ANSWERS_BYTES // WATCH_PART
    )
    return {Scope.FULL: receipts, Scope.WATCH: watchers}
