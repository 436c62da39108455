"""Receipts that outlive the process: `protocol.receipts` on a log.

    receipts = await open_receipts(folder / "receipts", writer, clock)
    ...
    await receipts.aclose()                  # before the writer is closed

The index is in memory (16,384 receipts, some 8 MB); answers are read from the log when they are
asked for. Records are appended at once and written in rounds with everybody else's: a call that
begins and starts in one turn of the event loop waits for one round, and for one more at its end.

A log whose disk fails goes on in memory. As long as the mark says so, nothing runs twice: a
start after that takes every id made before as expired. If not even the mark can be put down,
`refusal` says why nothing may be begun that has effects: a later start would know nothing of it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sidecar.clock import Clock
from sidecar.durable.disk import Disk
from sidecar.durable.heldanswers import HeldAnswers
from sidecar.durable.log import NOWHERE, Log
from sidecar.durable.log import Place as LogPlace
from sidecar.durable.recovery import Recovered, boot_id
from sidecar.durable.segment import Segment
from sidecar.durable.writer import LogWriter
from sidecar.errors import CallError, Retry, from_os_error
from sidecar.identity import new_id
from sidecar.protocol import receiptlog
from sidecar.protocol.limits import (
    ANSWERS_BYTES,
    OPEN_CALLS,
    RECEIPT_SEGMENT_BYTES,
    RECEIPT_TIME,
    RECEIPTS,
)
from sidecar.protocol.receiptlog import KEPT, Kind, Life, Place
from sidecar.protocol.receipts import (
    FenceOutcome,
    New,
    Outcome,
    Receipt,
    ReceiptsProtocol,
    Repeat,
    State,
    Terms,
)
from sidecar.protocol.receiptsindex import ReceiptsIndex
from sidecar.protocol.segments import HEADER_BYTES, Frame, Heading
from sidecar.threads import in_thread

log = logging.getLogger(__name__)

RECEIPT_BYTES = 256  # of the records of one call, without note and answer


class DiskReceipts:
    """The receipts of one run. Made by `open_receipts`."""

    def __init__(
        self, protocol: ReceiptsProtocol, clock: Clock, boot: bytes, segment_bytes: int
    ) -> None:
        self.is_whole = True  # nothing that was written before is missing
        self._protocol = protocol
        self._clock = clock
        self._boot = boot
        self._segment_bytes = segment_bytes
        self._log: Log
        self._index = ReceiptsIndex(protocol)
        self._held = HeldAnswers()
        self._life: Life | None = None  # ours, until it is written
        self._life_ticket: int | None = None
        self._recent: deque[tuple[int, bytes]] = deque()  # tickets of what is not written yet
        self._lacking: set[bytes] = set()  # receipts that the disk does not have as they are
        self._on_written: deque[tuple[int, Callable[[], None]]] = deque()
        self._going: deque[tuple[int, int]] = deque()  # when synced, this segment may go
        self._is_tidying = False
        self._read_to: tuple[int, int] = (0, 0)  # while opening: where the next frame should be

    async def open(self, log: Log) -> None:
        """Once, before anything else."""
        self._log = log
        await log.recover(replay_all=True, on_frames=self.receive_frames)

    # what receipts promise ----------------------------------------------------------------

    @property
    def durable(self) -> bool:
        return self._log.fault is None

    @property
    def refusal(self) -> CallError | None:
        fault = self._log.fault
        if fault is None or fault.is_marked:
            return None
        error = from_os_error(fault.error, str(self._log.folder))
        why = f"{error.message}: what has effects is not begun, for it might run twice"
        return CallError(error.code, why, retry=Retry.SAME_ID)

    @property
    def open_count(self) -> int:
        return self._protocol.open_count

    def left_open(self) -> list[Receipt]:
        return self._protocol.left_open()

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
        if isinstance(outcome, New):
            receipt = self._receipt(call_id)
            record = receiptlog.encode_accepted(receipt, self._protocol.low_water)
            ticket = self._append(Kind.ACCEPTED, record, call_id, is_home=True)
            if on_written is not None:
                self._on_written.append((ticket, on_written))
                self._call_back()
        elif isinstance(outcome, Repeat) and outcome.answer is not None:
            return Repeat(State.ENDED, await self._answer(call_id))
        return outcome

    async def started(self, call_id: bytes, note: bytes | None = None) -> None:
        self._protocol.started(call_id, note)
        ticket = self._append(Kind.STARTED, receiptlog.encode_started(call_id, note), call_id)
        await self._log.wait_written(ticket)
        refusal = self.refusal
        if refusal is not None and call_id in self._lacking:
            raise refusal

    async def end(self, call_id: bytes, answer: bytes | None, *, now_wall: float) -> None:
        kept, size = (None, 0) if answer is None else (KEPT, len(answer))
        self._protocol.end(call_id, kept, now_wall=now_wall, size=size)
        record = receiptlog.encode_ended(self._receipt(call_id), answer)
        ticket = self._append(Kind.ENDED, record, call_id, is_home=True, answer=answer)
        await self._log.wait_written(ticket)

    async def fence(self, call_id: bytes, *, now_wall: float) -> FenceOutcome:
        known = self._protocol.get(call_id)
        outcome = self._protocol.fence(call_id, now_wall=now_wall)
        if outcome is FenceOutcome.FENCED and self._protocol.get(call_id) is not known:
            record = receiptlog.encode_fenced(self._receipt(call_id), self._protocol.low_water)
            await self._log.wait_written(self._append(Kind.FENCED, record, call_id, is_home=True))
        return outcome

    async def get(self, call_id: bytes) -> Receipt | None:
        receipt = self._protocol.get(call_id)
        if receipt is None or receipt.answer is None:
            return receipt
        return replace(receipt, answer=await self._answer(call_id))

    async def aclose(self) -> None:
        """Write and sync everything. Nothing may be asked any more."""
        await self._log.aclose()

    # records ------------------------------------------------------------------------------

    def _receipt(self, call_id: bytes) -> Receipt:
        receipt = self._protocol.get(call_id)
        assert receipt is not None
        return receipt

    def _append(
        self,
        kind: Kind,
        record: bytes,
        call_id: bytes,
        *,
        is_home: bool = False,
        answer: bytes | Place | None = None,
    ) -> int:
        """The ticket. `is_home`: no older record of this call is needed any more, but for the
        one that `answer` lies in if it is a place."""
        place = self._log.append(kind, record)
        if isinstance(answer, bytes):
            self._held.hold(call_id, answer, place.ticket)
            answer = Place(place.segment, place.offset, place.size)
        if is_home:
            self._index.settle(call_id, place.segment, answer)
        if place.segment == NOWHERE:
            self._lacking.add(call_id)
        else:
            self._recent.append((place.ticket, call_id))
        return place.ticket

    def _append_whole(self, receipt: Receipt, answer: bytes | Place | None) -> None:
        record = receiptlog.encode_whole(receipt, answer)
        self._append(Kind.WHOLE, record, receipt.call_id, is_home=True, answer=answer)

    def _append_lacking(self) -> None:
        lacking, self._lacking = self._lacking, set()
        for call_id in lacking:
            receipt = self._protocol.get(call_id)
            if receipt is not None:
                kept = self._held.get(call_id) or self._index.place(call_id)
                if receipt.answer is None or (isinstance(kept, Place) and not self._has(kept)):
                    kept = None
                self._append_whole(receipt, kept)

    # answers ------------------------------------------------------------------------------

    def _has(self, place: Place) -> bool:
        segment = self._log.find(place.segment)
        return segment is not None and place.offset + place.size <= segment.written

    async def _answer(self, call_id: bytes) -> bytes | None:
        held = self._held.get(call_id)
        place = self._index.place(call_id)
        if held is not None or place is None:
            return held
        payload = await self._log.read(LogPlace(0, *place))
        return None if payload is None else receiptlog.answer_in(payload)

    # the oldest records -------------------------------------------------------------------

    async def tidy(self) -> None:
        """Let the oldest segments go, one at a time, where too much of the log says nothing any
        more: what is still true of them is appended again first."""
        if self._is_tidying:
            return
        self._is_tidying = True
        try:
            while self.durable and (ordinal := self._surplus()) is not None:
                await self._clear(ordinal)
        finally:
            self._is_tidying = False

    def _surplus(self) -> int | None:
        """The segment that is to go next; None while the log is short enough without it."""
        live = len(self._protocol) * RECEIPT_BYTES + self._protocol.answers_bytes * 5 // 4
        going = self._going[-1][1] if self._going else NOWHERE
        staying = [segment for segment in self._log.segments if segment.ordinal > going]
        size = sum(segment.size for segment in staying)
        is_long = len(staying) > 1 and size > live + 2 * self._segment_bytes
        return staying[0].ordinal if is_long else None

    async def _clear(self, ordinal: int) -> None:
        self._index.forget_stale()
        for call_id in self._index.homed(ordinal + 1):
            place = self._index.place(call_id)
            answer: bytes | Place | None = place
            if place is not None and place.segment <= ordinal:
                answer = await self._answer(call_id)
            receipt = self._protocol.get(call_id)
            if receipt is not None and self._index.home(call_id) <= ordinal:
                self._append_whole(receipt, answer if receipt.answer is not None else None)
        self._going.append((self._log.appended, ordinal))

    # what the log asks --------------------------------------------------------------------

    def receive_frames(self, segment: Segment, frames: list[Frame]) -> None:
        """While opening, in a thread. Frames that are not where the ones before end follow damage
        that was passed over."""
        expected = self._read_to[1] if self._read_to[0] == segment.ordinal else HEADER_BYTES
        if frames[0].offset != expected:
            self._index.is_whole = False
        self._read_to = (segment.ordinal, frames[-1].end)
        self._index.receive_records(segment.ordinal, frames)

    def log_recovered(self, recovered: Recovered) -> None:
        self._index.settle_begun()
        is_known = len(self._protocol) or self._protocol.low_water >= 0
        is_new = not (recovered.series or recovered.damaged or is_known)
        goes_on = recovered.why_new is None and not recovered.damaged
        self.is_whole = (goes_on or is_new) and self._index.is_whole
        if not self.is_whole:
            why = recovered.why_new or "damaged"
            log.error("receipts: %s: calls made before now are not run any more", why)
        now, wall = self._clock.now(), self._clock.wall()
        self._life = Life(self._boot, now, wall, self.is_whole)
        self._protocol.begin_life(now_wall=wall, is_whole=self.is_whole)
        alive = {segment.ordinal for segment in recovered.segments}
        self._lacking = set(self._index.homeless(alive))
        last = self._index.life
        if last is not None and last.boot != self._boot:
            self._translate_deadlines(now, wall)

    def _translate_deadlines(self, now: float, wall: float) -> None:
        """To our clock, which began anew with the machine."""
        for receipt in self._protocol.left_open():
            terms = receipt.terms
            if terms is not None and terms.deadline_wall is not None:
                terms = replace(terms, deadline=now + terms.deadline_wall - wall)
                self._protocol.restore(replace(receipt, terms=terms))
                self._lacking.add(receipt.call_id)

    def heading(self) -> Heading:
        return Heading()

    def prologue(self) -> None:
        self._log.append(Kind.LOW_WATER, receiptlog.encode_low_water(self._protocol.low_water))

    def refill(self) -> None:
        if self._life is not None and self._life_ticket is None:
            record = receiptlog.encode_life(self._life)
            self._life_ticket = self._log.append(Kind.LIFE, record).ticket
        self._append_lacking()

    def log_changed(self) -> None:
        if self._log.fault is not None:
            self._lacking.update(call_id for _, call_id in self._recent)
            self._recent.clear()
            self._life_ticket = None
        else:
            self._note_written()
        self._call_back()
        while self._going and self._going[0][0] <= self._log.synced:
            self._log.trim(self._going.popleft()[1] + 1)

    def _note_written(self) -> None:
        written = self._log.written
        while self._recent and self._recent[0][0] <= written:
            ticket, call_id = self._recent.popleft()
            self._held.let_go(call_id, ticket)
        if self._life_ticket is not None and self._life_ticket <= written:
            self._life = None
        if self._lacking or self._life is not None:
            self.refill()

    def _call_back(self) -> None:
        while self._on_written and self._on_written[0][0] <= self._log.written:
            self._on_written.popleft()[1]()


async def open_receipts(
    folder: Path,
    writer: LogWriter,
    clock: Clock,
    *,
    max_receipts: int = RECEIPTS,
    max_open: int = OPEN_CALLS,
    max_age: float = RECEIPT_TIME,
    max_answers_bytes: int = ANSWERS_BYTES,
    segment_bytes: int = RECEIPT_SEGMENT_BYTES,
    disk: Disk | None = None,
    boot: bytes | None = None,
) -> DiskReceipts:
    """The receipts in `folder`, which is made if needed. Raises `StateUnusable`.

    What an earlier life had accepted may run when it comes again; `left_open` has what it had
    started. If something that was written is missing, neither is promised: see `protocol.receipts`.
    """
    boot = await in_thread(boot_id) if boot is None else boot
    protocol = ReceiptsProtocol(
        max_receipts=max_receipts,
        max_open=max_open,
        max_age=max_age,
        max_answers_bytes=max_answers_bytes,
    )
    receipts = DiskReceipts(protocol, clock, boot, segment_bytes)
    await receipts.open(
        Log(
            folder,
            writer,
            clock,
            receipts,
            new_series=lambda: new_id(clock),
            keeps=True,
            segment_bytes=segment_bytes,
            disk=disk or Disk(),
            boot=boot,
        )
    )
    return receipts
