"""Receipts on a log against a dict, over many lives: killed, closed in order, booted anew."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sidecar.clock import ManualClock
from sidecar.durable.receipts import DiskReceipts, open_receipts
from sidecar.durable.writer import LogWriter
from sidecar.errors import LimitExceeded
from sidecar.protocol.ids import uuid7
from sidecar.protocol.receipts import (
    Conflict,
    Expired,
    Fenced,
    FenceOutcome,
    New,
    Outcome,
    Repeat,
    State,
    Terms,
)

T = TypeVar("T")

NOW = 1_800_000_000.0
NUMBERS = st.integers(0, 12)
OPEN = (State.ACCEPTED, State.STARTED)


def call_id(number: int) -> bytes:
    return uuid7(millis=int(NOW * 1000) - 20 + number, random=bytes(10))


def digest_of(number: int) -> bytes:
    return bytes([number]) * 32


class Model:
    """What is true of each call, whatever the receipts say of it."""

    def __init__(self) -> None:
        self.states: dict[int, State] = {}
        self.digests: dict[int, bytes] = {}
        self.answers: dict[int, bytes] = {}
        self.ran: set[int] = set()  # may have had effects

    def in_state(self, *states: State) -> list[int]:
        return [number for number, state in self.states.items() if state in states]


class DurableReceipts(RuleBasedStateMachine):
    """Six receipts, three open calls, answers of which four fit, segments of a few records."""

    def __init__(self) -> None:
        super().__init__()
        self.exits = ExitStack()
        self.portal = self.exits.enter_context(start_blocking_portal())
        self.folder = Path(self.exits.enter_context(tempfile.TemporaryDirectory()))
        self.clock = ManualClock(wall=NOW)
        self.model = Model()
        self.lives = 0
        self.boot = 1
        self.do(self.open)

    def do(self, function: Callable[[], Awaitable[T]]) -> T:
        return self.portal.call(function)

    @property
    def state_folder(self) -> Path:
        return self.folder / f"life-{self.lives}"

    async def open(self) -> None:
        self.writer = LogWriter(sync_delay=0.0)
        self.receipts: DiskReceipts = await open_receipts(
            self.state_folder,
            self.writer,
            self.clock,
            max_receipts=6,
            max_open=3,
            max_answers_bytes=1000,
            segment_bytes=1500,
            boot=bytes([self.boot]) * 16,
        )

    async def close(self) -> None:
        await self.receipts.aclose()
        await self.writer.aclose()

    # what callers do ----------------------------------------------------------------------

    @rule(number=NUMBERS, is_other=st.sampled_from([False, False, False, True]))
    def begin(self, number: int, is_other: bool) -> None:
        digest = b"other" if is_other else digest_of(number)
        terms = Terms("exec.run", NOW, None, None, number)

        async def begin() -> Outcome:
            outcome = await self.receipts.begin(
                call_id(number), digest, now_wall=self.clock.wall(), terms=terms
            )
            log = self.receipts._log
            await log.wait_written(log.appended)  # else nobody was told that it is accepted
            return outcome

        try:
            outcome = self.do(begin)
        except LimitExceeded:
            return
        state = self.model.states.get(number)
        match outcome:
            case New():
                assert number not in self.model.ran, "a call ran twice"
                assert state in (None, State.RESEND)
                assert state is None or digest == self.model.digests[number]
                self.model.states[number] = State.ACCEPTED
                self.model.digests[number] = digest
            case Repeat(state=said, answer=answer):
                assert said is state
                assert answer in (None, self.model.answers.get(number))
            case Fenced():
                assert state is State.FENCED
            case Conflict():
                assert state is not None
                assert digest != self.model.digests[number]
            case Expired():
                assert state not in OPEN

    @rule(number=NUMBERS, size=st.sampled_from([10, 250]))
    def advance(self, number: int, size: int) -> None:
        state, id = self.model.states.get(number), call_id(number)
        if state is State.ACCEPTED:
            self.model.ran.add(number)
            self.do(lambda: self.receipts.started(id, bytes([number])))
            self.model.states[number] = State.STARTED
        elif state is State.STARTED:
            answer = bytes([number]) * size
            self.do(lambda: self.receipts.end(id, answer, now_wall=self.clock.wall()))
            self.model.states[number] = State.ENDED
            self.model.answers[number] = answer

    @rule(number=NUMBERS)
    def fence(self, number: int) -> None:
        try:
            outcome = self.do(
                lambda: self.receipts.fence(call_id(number), now_wall=self.clock.wall())
            )
        except LimitExceeded:
            return
        state = self.model.states.get(number)
        if outcome is FenceOutcome.FENCED:
            assert number not in self.model.ran, "fenced after it ran"
            self.model.states[number] = State.FENCED
        elif outcome is FenceOutcome.EXPIRED:
            assert state not in OPEN
        else:
            assert state is not None
            assert outcome.value == state.value

    @rule()
    def tidy(self) -> None:
        self.do(self.receipts.tidy)

    @rule()
    def pause(self) -> None:
        """Until the disk has everything."""

        async def synced() -> None:
            log = self.receipts._log
            await log.wait_synced(log.appended)

        self.do(synced)

    # how lives end ------------------------------------------------------------------------

    @rule()
    def kill(self) -> None:
        """The next life finds what was written; this one goes on for a moment, unheard."""
        self._begin_life(self._kill)

    @rule()
    def end_in_order(self) -> None:
        self._begin_life(self.close)

    @rule()
    def boot_anew(self) -> None:
        self.boot += 1
        self._begin_life(self.close)

    async def _kill(self) -> None:
        before = self.state_folder
        self.lives += 1
        shutil.copytree(before, self.state_folder)
        await self.close()

    def _begin_life(self, end: Callable[[], Awaitable[None]]) -> None:
        self.do(end)
        self.do(self.open)
        assert self.receipts.is_whole
        for number in self.model.in_state(State.ACCEPTED):
            self.model.states[number] = State.RESEND
        left = {receipt.call_id: receipt for receipt in self.receipts.left_open()}
        started = self.model.in_state(State.STARTED)
        assert set(left) == {call_id(number) for number in started}
        for number in started:
            receipt = left[call_id(number)]
            assert (receipt.note, receipt.digest) == (bytes([number]), self.model.digests[number])
            assert receipt.terms is not None
            assert receipt.terms.credit == number

    # what holds at all times --------------------------------------------------------------

    @invariant()
    def open_calls_are_counted(self) -> None:
        assert self.receipts.open_count == len(self.model.in_state(*OPEN))

    @invariant()
    def nothing_piles_up(self) -> None:
        assert len(self.receipts._index._lies) < 1100
        assert self.receipts._held._bytes <= 1000

    def teardown(self) -> None:
        self.do(self.close)
        self.exits.close()


DurableReceipts.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
test_no_call_runs_twice_in_any_number_of_lives = pytest.mark.slow(DurableReceipts.TestCase)
