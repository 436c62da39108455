"""Which call is new, repeated, fenced, ended or too old; alone and against a dict."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sidecar.errors import CallError, Code, Invalid, LimitExceeded
from sidecar.protocol.ids import uuid7
from sidecar.protocol.receipts import (
    Conflict,
    Expired,
    Fenced,
    FenceOutcome,
    New,
    Outcome,
    Receipt,
    ReceiptsProtocol,
    Repeat,
    State,
    Terms,
)

NOW = 1_800_000_000.0
DAY = 86_400.0


def call_id(number: int, *, at: float = NOW) -> bytes:
    """The id of a call made `number` milliseconds after `at`."""
    return uuid7(millis=int(at * 1000) + number, random=bytes(10))


def ended(receipts: ReceiptsProtocol, *numbers: int) -> None:
    for number in numbers:
        assert receipts.begin(call_id(number), b"digest", now_wall=NOW) == New()
        receipts.end(call_id(number), b"answer", now_wall=NOW)


def test_a_call_goes_from_new_to_its_answer() -> None:
    receipts = ReceiptsProtocol()
    assert receipts.begin(call_id(1), b"digest", now_wall=NOW) == New()
    assert receipts.begin(call_id(1), b"digest", now_wall=NOW) == Repeat(State.ACCEPTED, None)
    receipts.started(call_id(1))
    receipts.started(call_id(1))
    assert receipts.begin(call_id(1), b"digest", now_wall=NOW) == Repeat(State.STARTED, None)
    receipts.end(call_id(1), b"answer", now_wall=NOW)
    assert receipts.begin(call_id(1), b"digest", now_wall=NOW) == Repeat(State.ENDED, b"answer")
    assert receipts.get(call_id(1)) == Receipt(call_id(1), b"digest", State.ENDED, b"answer")


def test_other_arguments_under_the_same_id_are_a_conflict_in_every_state() -> None:
    receipts = ReceiptsProtocol()
    receipts.begin(call_id(1), b"digest", now_wall=NOW)
    assert receipts.begin(call_id(1), b"other", now_wall=NOW) == Conflict()
    receipts.end(call_id(1), b"answer", now_wall=NOW)
    assert receipts.begin(call_id(1), b"other", now_wall=NOW) == Conflict()


def test_a_cancel_that_overtakes_its_call_fences_it() -> None:
    receipts = ReceiptsProtocol()
    assert receipts.fence(call_id(1), now_wall=NOW) is FenceOutcome.FENCED
    assert receipts.begin(call_id(1), b"digest", now_wall=NOW) == Fenced()
    assert receipts.fence(call_id(1), now_wall=NOW) is FenceOutcome.FENCED
    assert receipts.open_count == 0


def test_a_fence_says_how_far_a_call_has_come_and_changes_nothing() -> None:
    receipts = ReceiptsProtocol()
    receipts.begin(call_id(1), b"digest", now_wall=NOW)
    assert receipts.fence(call_id(1), now_wall=NOW) is FenceOutcome.ACCEPTED
    receipts.started(call_id(1))
    assert receipts.fence(call_id(1), now_wall=NOW) is FenceOutcome.STARTED
    receipts.end(call_id(1), b"answer", now_wall=NOW)
    assert receipts.fence(call_id(1), now_wall=NOW) is FenceOutcome.ENDED
    assert receipts.begin(call_id(1), b"digest", now_wall=NOW) == Repeat(State.ENDED, b"answer")


def test_an_id_that_is_no_uuid7_is_invalid() -> None:
    receipts = ReceiptsProtocol()
    with pytest.raises(Invalid, match="call id .* is not a UUIDv7"):
        receipts.begin(bytes(16), b"digest", now_wall=NOW)
    with pytest.raises(Invalid, match="call id .* is not a UUIDv7"):
        receipts.fence(bytes(16), now_wall=NOW)


def test_a_state_never_goes_back() -> None:
    receipts = ReceiptsProtocol()
    ended(receipts, 1)
    with pytest.raises(AssertionError, match="is ended: its answer stands"):
        receipts.started(call_id(1))
    with pytest.raises(AssertionError, match="is ended: its answer stands"):
        receipts.end(call_id(1), b"other", now_wall=NOW)
    receipts.fence(call_id(2), now_wall=NOW)
    with pytest.raises(AssertionError, match="is fenced: its answer stands"):
        receipts.started(call_id(2))


def test_a_call_without_a_receipt_cannot_start_or_end() -> None:
    receipts = ReceiptsProtocol()
    with pytest.raises(CallError, match="no receipt for call 01a3185c") as error:
        receipts.started(call_id(1))
    assert error.value.code is Code.UNKNOWN_CALL


def test_an_answer_over_64_kib_is_refused_and_the_call_stays_open() -> None:
    receipts = ReceiptsProtocol()
    receipts.begin(call_id(1), b"digest", now_wall=NOW)
    with pytest.raises(LimitExceeded, match="bytes of an answer: 65537, at most 65536"):
        receipts.end(call_id(1), bytes(65_537), now_wall=NOW)
    assert receipts.open_count == 1
    receipts.end(call_id(1), None, now_wall=NOW)
    assert receipts.begin(call_id(1), b"digest", now_wall=NOW) == Repeat(State.ENDED, None)


def test_too_many_open_calls_are_refused_without_a_trace() -> None:
    receipts = ReceiptsProtocol(max_open=2)
    receipts.begin(call_id(1), b"digest", now_wall=NOW)
    receipts.begin(call_id(2), b"digest", now_wall=NOW)
    with pytest.raises(LimitExceeded, match="open calls: 3, at most 2"):
        receipts.begin(call_id(3), b"digest", now_wall=NOW)
    assert receipts.begin(call_id(2), b"digest", now_wall=NOW) == Repeat(State.ACCEPTED, None)
    receipts.end(call_id(1), b"answer", now_wall=NOW)
    assert receipts.begin(call_id(3), b"digest", now_wall=NOW) == New()


def test_the_oldest_id_is_forgotten_first_and_is_expired_from_then_on() -> None:
    receipts = ReceiptsProtocol(max_receipts=3)
    ended(receipts, 2, 3, 1, 4)
    millis = int(NOW * 1000) + 1
    assert receipts.low_water == millis
    assert receipts.begin(call_id(1), b"digest", now_wall=NOW) == Expired(millis)
    assert receipts.begin(call_id(0), b"digest", now_wall=NOW) == Expired(millis)
    assert receipts.fence(call_id(0), now_wall=NOW) is FenceOutcome.EXPIRED
    assert receipts.get(call_id(1)) is None
    assert receipts.begin(call_id(2), b"digest", now_wall=NOW) == Repeat(State.ENDED, b"answer")


def test_an_id_older_than_the_mark_is_known_while_it_is_remembered() -> None:
    receipts = ReceiptsProtocol(max_receipts=2)
    receipts.begin(call_id(1), b"digest", now_wall=NOW)
    ended(receipts, 5, 6)
    assert receipts.low_water == int(NOW * 1000) + 5
    assert receipts.begin(call_id(1), b"digest", now_wall=NOW) == Repeat(State.ACCEPTED, None)


def test_open_calls_are_never_forgotten() -> None:
    receipts = ReceiptsProtocol(max_receipts=2)
    receipts.begin(call_id(1), b"digest", now_wall=NOW)
    receipts.begin(call_id(2), b"digest", now_wall=NOW)
    with pytest.raises(LimitExceeded, match="receipts: 3, at most 2"):
        receipts.begin(call_id(3), b"digest", now_wall=NOW + 10 * DAY)
    with pytest.raises(LimitExceeded, match="receipts: 3, at most 2"):
        receipts.fence(call_id(3), now_wall=NOW)
    assert receipts.get(call_id(1)) is not None


def test_a_fence_may_be_forgotten_and_still_holds() -> None:
    receipts = ReceiptsProtocol(max_receipts=1)
    receipts.fence(call_id(1), now_wall=NOW)
    ended(receipts, 2)
    low_water = int(NOW * 1000) + 1
    assert receipts.begin(call_id(1), b"digest", now_wall=NOW) == Expired(low_water)


def test_an_ended_call_is_remembered_for_a_day_after_its_end() -> None:
    receipts = ReceiptsProtocol()
    receipts.begin(call_id(1), b"digest", now_wall=NOW)
    receipts.end(call_id(1), b"answer", now_wall=NOW + 2 * DAY)
    before = receipts.begin(call_id(1), b"digest", now_wall=NOW + 3 * DAY - 1)
    assert before == Repeat(State.ENDED, b"answer")
    after = receipts.begin(call_id(1), b"digest", now_wall=NOW + 3 * DAY)
    assert after == Expired(int(NOW * 1000) + 1)


def test_a_long_call_may_hold_back_what_ended_meanwhile() -> None:
    """Receipts are forgotten in the order of their ids, so that one order of them is enough."""
    receipts = ReceiptsProtocol()
    receipts.begin(call_id(1), b"digest", now_wall=NOW)
    ended(receipts, 2)
    receipts.end(call_id(1), b"answer", now_wall=NOW + 600)
    late = receipts.begin(call_id(2), b"digest", now_wall=NOW + DAY + 599)
    assert late == Repeat(State.ENDED, b"answer")
    gone = receipts.begin(call_id(2), b"digest", now_wall=NOW + DAY + 600)
    assert gone == Expired(int(NOW * 1000) + 2)


def test_an_open_call_holds_back_nothing() -> None:
    receipts = ReceiptsProtocol()
    receipts.begin(call_id(1), b"digest", now_wall=NOW)
    ended(receipts, 2)
    gone = receipts.begin(call_id(2), b"digest", now_wall=NOW + DAY + 1)
    assert gone == Expired(int(NOW * 1000) + 2)


def test_the_mark_does_not_sink_when_an_older_id_is_forgotten_later() -> None:
    receipts = ReceiptsProtocol()
    for number, end in [(2, NOW), (1, NOW + 10)]:
        receipts.begin(call_id(number), b"digest", now_wall=NOW)
        receipts.end(call_id(number), b"answer", now_wall=end)
    later = NOW + DAY + 10
    expired = Expired(int(NOW * 1000) + 2)
    assert receipts.begin(call_id(1), b"digest", now_wall=later) == expired
    assert receipts.begin(call_id(2), b"digest", now_wall=later) == expired


def test_a_caller_whose_clock_is_ahead_does_not_expire_the_others() -> None:
    receipts = ReceiptsProtocol(max_receipts=3)
    hour = 3_600_000
    ended(receipts, hour, 1, 2, 3, 4)
    assert receipts.low_water == int(NOW * 1000) + 2
    later = NOW + DAY  # its receipt lives for a day from the time that its id claims
    assert receipts.begin(call_id(5, at=later), b"digest", now_wall=later) == New()
    assert receipts.get(call_id(hour)) is not None


def test_answers_together_are_bounded_and_the_oldest_goes_first() -> None:
    receipts = ReceiptsProtocol(max_answers_bytes=13)
    ended(receipts, 1, 2, 3)
    assert receipts.begin(call_id(1), b"digest", now_wall=NOW) == Repeat(State.ENDED, None)
    assert receipts.begin(call_id(2), b"digest", now_wall=NOW) == Repeat(State.ENDED, b"answer")
    assert receipts.begin(call_id(3), b"digest", now_wall=NOW) == Repeat(State.ENDED, b"answer")


def test_a_large_answer_takes_the_place_of_many() -> None:
    receipts = ReceiptsProtocol(max_answers_bytes=40)
    ended(receipts, *range(1, 7))
    receipts.begin(call_id(7), b"digest", now_wall=NOW)
    receipts.end(call_id(7), bytes(30), now_wall=NOW)
    assert receipts.answers_bytes == 36
    kept = [number for number in range(1, 8) if receipts.get(call_id(number)).answer]  # type: ignore[union-attr]
    assert kept == [6, 7]


def test_forgotten_answers_make_room_for_others() -> None:
    receipts = ReceiptsProtocol(max_receipts=2, max_answers_bytes=13)
    ended(receipts, 1, 2, 3, 4)
    assert receipts.begin(call_id(3), b"digest", now_wall=NOW) == Repeat(State.ENDED, b"answer")
    assert receipts.begin(call_id(4), b"digest", now_wall=NOW) == Repeat(State.ENDED, b"answer")


def test_what_orders_the_receipts_does_not_grow_with_the_calls() -> None:
    receipts = ReceiptsProtocol(max_receipts=4)
    ended(receipts, *range(1000))
    assert len(receipts) == 4
    assert len(receipts._by_id) < 50


def test_one_that_an_earlier_life_never_began_runs_once_when_it_comes_again() -> None:
    receipts = ReceiptsProtocol(max_open=1)
    receipts.restore(Receipt(call_id(1), b"digest", State.ACCEPTED))
    receipts.begin_life(now_wall=NOW, is_whole=True)
    assert receipts.open_count == 0
    assert receipts.left_open() == []
    assert receipts.begin(call_id(1), b"other", now_wall=NOW) == Conflict()
    assert receipts.begin(call_id(1), b"digest", now_wall=NOW) == New()
    assert receipts.open_count == 1
    assert receipts.begin(call_id(1), b"digest", now_wall=NOW) == Repeat(State.ACCEPTED, None)


def test_one_that_an_earlier_life_never_began_is_fenced_by_a_cancel() -> None:
    receipts = ReceiptsProtocol()
    receipts.restore(Receipt(call_id(1), b"digest", State.ACCEPTED))
    receipts.begin_life(now_wall=NOW, is_whole=True)
    assert receipts.fence(call_id(1), now_wall=NOW) is FenceOutcome.FENCED
    assert receipts.begin(call_id(1), b"digest", now_wall=NOW) == Fenced()


def test_one_that_never_comes_again_is_forgotten_in_time_and_not_while_it_is_open() -> None:
    receipts = ReceiptsProtocol()
    for number in (1, 2):
        receipts.restore(Receipt(call_id(number), b"digest", State.ACCEPTED))
    receipts.begin_life(now_wall=NOW, is_whole=True)
    assert receipts.begin(call_id(2), b"digest", now_wall=NOW) == New()
    later = NOW + DAY + 1
    expired = Expired(int(NOW * 1000) + 1)
    assert receipts.begin(call_id(1), b"digest", now_wall=later) == expired
    assert receipts.begin(call_id(2), b"digest", now_wall=later) == Repeat(State.ACCEPTED, None)
    receipts.end(call_id(2), b"answer", now_wall=later)
    much_later = later + DAY - 1
    ended = receipts.begin(call_id(2), b"digest", now_wall=much_later)
    assert ended == Repeat(State.ENDED, b"answer")


def test_one_that_an_earlier_life_started_is_left_open() -> None:
    receipts = ReceiptsProtocol()
    terms = Terms("exec.run", NOW)
    left = Receipt(call_id(1), b"digest", State.STARTED, None, terms, b"note")
    receipts.restore(left)
    receipts.begin_life(now_wall=NOW, is_whole=True)
    assert receipts.left_open() == [left]
    assert receipts.begin(call_id(1), b"digest", now_wall=NOW) == Repeat(State.STARTED, None)
    receipts.end(call_id(1), b"answer", now_wall=NOW)
    ended = Receipt(call_id(1), b"digest", State.ENDED, b"answer")
    assert receipts.get(call_id(1)) == ended


def test_where_something_is_missing_what_was_accepted_may_have_begun() -> None:
    receipts = ReceiptsProtocol()
    receipts.restore(Receipt(call_id(1), b"digest", State.ACCEPTED))
    receipts.restore(Receipt(call_id(2), b"digest", State.ENDED, b"answer", settled=NOW), size=6)
    receipts.begin_life(now_wall=NOW + 1, is_whole=False)
    (left,) = receipts.left_open()
    assert (left.call_id, left.state) == (call_id(1), State.STARTED)
    ended = receipts.begin(call_id(2), b"digest", now_wall=NOW)
    assert ended == Repeat(State.ENDED, b"answer")
    expired = Expired(int(NOW * 1000) + 1000)
    assert receipts.begin(call_id(3), b"digest", now_wall=NOW) == expired
    assert receipts.fence(call_id(3), now_wall=NOW) is FenceOutcome.EXPIRED
    assert receipts.begin(call_id(1001), b"digest", now_wall=NOW) == New()


def test_what_is_restored_replaces_what_was_known_and_its_answer() -> None:
    receipts = ReceiptsProtocol(max_answers_bytes=10)
    for answer in (b"first", b"second"):
        ended = Receipt(call_id(1), b"digest", State.ENDED, answer, settled=NOW)
        receipts.restore(ended, size=len(answer))
    assert receipts.answers_bytes == 6
    assert receipts.get(call_id(1)) == ended


def test_a_later_note_replaces_an_earlier_one_and_none_keeps_it() -> None:
    receipts = ReceiptsProtocol()
    receipts.begin(call_id(1), b"digest", now_wall=NOW)
    for note in (b"first", None, b"second", None):
        receipts.started(call_id(1), note)
    left = receipts.get(call_id(1))
    assert left is not None
    assert left.note == b"second"
    with pytest.raises(LimitExceeded, match="bytes of a note: 4097, at most 4096"):
        receipts.started(call_id(1), bytes(4097))


class ReceiptsMachine(RuleBasedStateMachine):
    """Four receipts, ten seconds. The model: a dict, and which ids ever ran."""

    def __init__(self) -> None:
        super().__init__()
        self.receipts = ReceiptsProtocol(max_receipts=4, max_open=3, max_age=10.0)
        self.now = NOW
        self.states: dict[bytes, State] = {}
        self.ran: set[bytes] = set()

    @rule(number=st.integers(0, 12), digest=st.sampled_from([b"one", b"one", b"two"]))
    def begin(self, number: int, digest: bytes) -> None:
        id = call_id(number)
        try:
            outcome: Outcome = self.receipts.begin(id, digest, now_wall=self.now)
        except LimitExceeded:
            assert id not in self.states or self.states[id] in (State.ENDED, State.FENCED)
            return
        if isinstance(outcome, New):
            assert id not in self.ran, "a call ran twice"
            assert id not in self.states
            self.ran.add(id)
            self.states[id] = State.ACCEPTED
        elif isinstance(outcome, Repeat):
            assert outcome.state is self.states[id]
            assert outcome.answer == (id if outcome.state is State.ENDED else None)
        elif isinstance(outcome, Fenced):
            assert self.states[id] is State.FENCED
        elif isinstance(outcome, Conflict):
            assert id in self.ran
        else:
            assert self.states.get(id) not in (State.ACCEPTED, State.STARTED)

    @rule(number=st.integers(0, 12))
    def advance(self, number: int) -> None:
        id = call_id(number)
        if self.states.get(id) is State.ACCEPTED:
            self.receipts.started(id)
            self.states[id] = State.STARTED
        elif self.states.get(id) is State.STARTED:
            self.receipts.end(id, id, now_wall=self.now)
            self.states[id] = State.ENDED

    @rule(number=st.integers(0, 12))
    def fence(self, number: int) -> None:
        id = call_id(number)
        try:
            outcome = self.receipts.fence(id, now_wall=self.now)
        except LimitExceeded:
            return
        if outcome is FenceOutcome.FENCED:
            assert id not in self.ran, "fenced after it ran"
            self.states[id] = State.FENCED
        elif outcome is not FenceOutcome.EXPIRED:
            assert outcome.value == self.states[id].value

    @rule(seconds=st.sampled_from([0.5, 6.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def open_calls_are_remembered(self) -> None:
        open_ids = {
            id for id, state in self.states.items() if state in (State.ACCEPTED, State.STARTED)
        }
        assert self.receipts.open_count == len(open_ids)
        assert all(self.receipts.get(id) is not None for id in open_ids)
        assert len(self.receipts) <= 4


ReceiptsMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
test_no_call_runs_twice = ReceiptsMachine.TestCase
