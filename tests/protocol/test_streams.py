"""One byte stream, one direction: each rule alone, then all of them against a plain model."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.errors import CallError, Code, Invalid, LimitExceeded
from sidecar.protocol.envelope import (
    Blocked,
    Credit,
    Data,
    End,
    Envelope,
    Reset,
    Rewind,
    Skip,
)
from sidecar.protocol.streams import (
    Ended,
    ReceiveStream,
    SendStream,
    error_of,
    reset_for,
    reset_with,
)

ID = b"i" * 16
SHA = b"s" * 32


def sending(limit: int = 100, start: int = 0) -> SendStream:
    return SendStream(ID, 1, limit=limit, start=start)


def receiving(window: int = 100, start: int = 0) -> ReceiveStream:
    return ReceiveStream(ID, 1, window=window, start=start)


# sending --------------------------------------------------------------------------------------


def test_a_sender_may_send_up_to_its_credit() -> None:
    stream = sending(limit=10)
    assert stream.allowance == 10
    assert stream.sent(10) == 10
    assert stream.allowance == 0


def test_credit_only_grows() -> None:
    stream = sending(limit=10)
    assert stream.receive_credit(Credit(ID, 1, 0, 30))
    assert not stream.receive_credit(Credit(ID, 1, 0, 20))
    assert stream.allowance == 30


def test_received_only_grows_while_the_receiver_is_the_same() -> None:
    stream = sending()
    stream.sent(50)
    stream.receive_credit(Credit(ID, 1, 40, 100))
    stream.receive_credit(Credit(ID, 1, 30, 100))
    assert stream.received == 40


def test_what_was_never_sent_cannot_have_been_received() -> None:
    stream = sending()
    stream.sent(5)
    with pytest.raises(Invalid, match="credit for 6 bytes received, 5 were sent"):
        stream.receive_credit(Credit(ID, 1, 6, 100))


def test_credit_for_bytes_sent_before_a_rewind_is_fine() -> None:
    stream = sending()
    stream.sent(50)
    stream.rewind(0)
    stream.receive_credit(Credit(ID, 1, 50, 100))
    assert stream.received == 50


def test_a_rewind_goes_back_and_the_digest_lacks_nothing() -> None:
    stream = sending()
    stream.sent(50)
    assert stream.rewind(20)
    assert stream.next == 20
    assert stream.sent(10) == 0  # hashed the first time
    assert stream.sent(30) == 10  # the last 10 are new


@pytest.mark.parametrize("offset", [50, 51, 39])
def test_an_old_rewind_changes_nothing(offset: int) -> None:
    stream = sending()
    stream.sent(50)
    stream.receive_credit(Credit(ID, 1, 40, 100))
    assert not stream.rewind(offset)
    assert stream.next == 50


def test_a_skip_begins_the_digest_anew() -> None:
    stream = sending()
    stream.sent(10)
    assert stream.skip_to(60) == Skip(ID, 1, 10, 60)
    assert (stream.next, stream.start, stream.allowance) == (60, 60, 40)
    assert stream.sent(5) == 5
    assert stream.end(SHA) == End(ID, 1, 65, 60, SHA)


def test_a_skip_past_the_credit_leaves_none() -> None:
    stream = sending(limit=20)
    stream.skip_to(60)
    assert stream.allowance == 0


def test_a_receiver_that_comes_back_keeps_the_digest() -> None:
    stream = sending()
    stream.sent(50)
    assert not stream.resume(30, 0, 130)
    assert (stream.next, stream.start, stream.allowance) == (30, 0, 100)
    assert stream.sent(20) == 0


def test_another_receiver_begins_the_digest_anew() -> None:
    stream = sending()
    stream.sent(50)
    assert stream.resume(30, 30, 130)
    assert stream.sent(20) == 20
    assert stream.end(SHA) == End(ID, 1, 50, 30, SHA)


def test_another_receiver_may_have_less_and_grant_less() -> None:
    stream = sending(limit=1000)
    stream.sent(500)
    stream.receive_credit(Credit(ID, 1, 500, 2000))
    stream.resume(100, 100, 150)
    assert (stream.next, stream.received, stream.allowance) == (100, 100, 50)


@pytest.mark.parametrize("received, start", [(51, 0), (20, 21)])
def test_a_resume_that_cannot_be_is_refused(received: int, start: int) -> None:
    stream = sending()
    stream.sent(50)
    with pytest.raises(Invalid, match="50 bytes were sent"):
        stream.resume(received, start, 1000)
    assert stream.next == 50


def test_a_sender_without_credit_says_so_each_second() -> None:
    stream = sending(limit=5)
    stream.sent(5)
    assert stream.blocked_at is None
    assert stream.blocked(10.0) is None
    assert stream.blocked_at == 11.0
    assert stream.blocked(10.9) is None
    assert stream.blocked(11.0) == Blocked(ID, 1, 5)
    assert stream.blocked(11.5) is None
    assert stream.blocked(12.0) == Blocked(ID, 1, 5)


def test_new_credit_ends_being_blocked() -> None:
    stream = sending(limit=5)
    stream.sent(5)
    stream.blocked(10.0)
    stream.receive_credit(Credit(ID, 1, 5, 10))
    assert stream.blocked_at is None
    assert stream.blocked(11.0) is None


# receiving ------------------------------------------------------------------------------------


def test_data_in_order_is_new() -> None:
    stream = receiving()
    assert stream.receive_data(0, b"abc", now=0.0) == b"abc"
    assert stream.receive_data(3, b"de", now=0.0) == b"de"
    assert (stream.received, stream.waiting, stream.answers()) == (5, 5, [])


def test_data_that_came_before_is_trimmed() -> None:
    stream = receiving()
    stream.receive_data(0, b"abc", now=0.0)
    assert stream.receive_data(0, b"abc", now=0.0) == b""
    assert stream.receive_data(1, b"bcde", now=0.0) == b"de"
    assert stream.received == 5


def test_data_above_a_hole_is_dropped_and_the_hole_asked_for_once() -> None:
    stream = receiving()
    assert stream.receive_data(5, b"x", now=0.0) == b""
    assert stream.receive_data(6, b"y", now=0.1) == b""
    assert stream.answers() == [Rewind(ID, 1, 0)]


def test_a_hole_is_asked_for_again_after_1_2_and_4_seconds() -> None:
    stream = receiving()
    asked = []
    for now in (0.0, 0.9, 1.0, 2.9, 3.0, 6.9, 7.0, 14.9):
        stream.receive_data(5, b"x", now=now)
        asked += [now for _ in stream.answers()]
    assert asked == [0.0, 1.0, 3.0, 7.0]


def test_a_stream_whose_hole_is_never_filled_is_broken() -> None:
    stream = receiving()
    now = 0.0
    for step in range(8):
        stream.receive_data(5, b"x", now=now)
        now += 2.0**step
    with pytest.raises(Invalid, match="8 requests for offset 0 brought nothing"):
        stream.receive_data(5, b"x", now=now)


def test_a_new_hole_is_asked_for_at_once() -> None:
    stream = receiving()
    stream.receive_data(5, b"x", now=0.0)
    stream.receive_data(0, b"abcde", now=0.1)
    stream.receive_data(9, b"x", now=0.2)
    assert stream.answers() == [Rewind(ID, 1, 0), Rewind(ID, 1, 5)]


def test_data_beyond_the_credit_breaks_the_rule() -> None:
    stream = receiving(window=10)
    assert stream.receive_data(0, b"x" * 10, now=0.0) == b"x" * 10
    with pytest.raises(LimitExceeded, match="stream data beyond its credit: 11, at most 10"):
        stream.receive_data(10, b"x", now=0.0)


def test_credit_is_restated_after_half_a_window() -> None:
    stream = receiving(window=10)
    stream.receive_data(0, b"x" * 10, now=0.0)
    stream.consume(4)
    assert stream.answers() == []
    stream.consume(1)
    assert stream.answers() == [Credit(ID, 1, 10, 15)]
    assert stream.waiting == 5


def test_credit_of_a_large_window_is_restated_after_384_kib() -> None:
    stream = receiving(window=1 << 20)
    stream.receive_data(0, b"x" * (1 << 20), now=0.0)
    stream.consume(384 * 1024 - 1)
    assert stream.answers() == []
    stream.consume(1)
    assert stream.answers() == [Credit(ID, 1, 1 << 20, (1 << 20) + 384 * 1024)]


def test_the_end_is_answered_with_what_was_received() -> None:
    stream = receiving()
    stream.receive_data(0, b"abc", now=0.0)
    stream.receive_end(End(ID, 1, 3, 0, SHA), now=0.0)
    assert stream.ended is not None
    assert (stream.ended.offset, stream.ended.sha256) == (3, SHA)
    assert stream.answers() == [Credit(ID, 1, 3, 100, ended=True)]


def test_the_end_is_answered_again_when_the_answer_was_lost() -> None:
    stream = receiving()
    stream.receive_end(End(ID, 1, 0, 0, SHA), now=0.0)
    stream.answers()
    stream.receive_end(End(ID, 1, 0, 0, SHA), now=1.0)
    assert stream.answers() == [Credit(ID, 1, 0, 100, ended=True)]


def test_a_stream_of_no_bytes_ends() -> None:
    stream = receiving()
    stream.receive_end(End(ID, 1, 0, 0, SHA), now=0.0)
    assert stream.ended is not None


def test_an_end_above_a_hole_asks_for_it_and_is_kept() -> None:
    stream = receiving()
    stream.receive_end(End(ID, 1, 3, 0, SHA), now=0.0)
    assert stream.ended is None
    assert stream.answers() == [Rewind(ID, 1, 0)]
    stream.receive_data(0, b"abc", now=0.0)
    assert stream.ended is not None
    assert stream.answers() == [Credit(ID, 1, 3, 100, ended=True)]


def test_the_latest_end_before_the_last_byte_counts() -> None:
    stream = receiving(start=2)
    stream.receive_end(End(ID, 1, 5, 0, SHA), now=0.0)
    stream.receive_end(End(ID, 1, 5, 2, b"t" * 32), now=0.0)
    stream.receive_data(2, b"abc", now=0.0)
    assert stream.ended is not None
    assert (stream.ended.start, stream.ended.sha256) == (2, b"t" * 32)


@pytest.mark.parametrize("offset", [2, 4])
def test_an_end_elsewhere_is_a_lie(offset: int) -> None:
    stream = receiving()
    stream.receive_data(0, b"abc", now=0.0)
    stream.receive_end(End(ID, 1, 3, 0, SHA), now=0.0)
    with pytest.raises(Invalid, match=f"an end at {offset}, 3 expected"):
        stream.receive_end(End(ID, 1, offset, 0, SHA), now=0.0)


def test_data_after_the_end_is_a_lie() -> None:
    stream = receiving()
    stream.receive_end(End(ID, 1, 3, 0, SHA), now=0.0)
    with pytest.raises(Invalid, match="stream data up to 4, after an end at 3"):
        stream.receive_data(0, b"abcd", now=0.0)


def test_a_skip_moves_the_stream_and_the_digest_and_restates_credit() -> None:
    stream = receiving(window=100)
    stream.receive_data(0, b"abc", now=0.0)
    assert stream.receive_skip(3, 50, now=0.0)
    assert (stream.received, stream.start, stream.waiting) == (50, 50, 3)
    assert stream.skipped == [(3, 50)]
    # Three bytes wait, and the skip holds none of the window.
    assert stream.answers() == [Credit(ID, 1, 50, 147)]


def test_a_skip_that_came_before_changes_nothing_and_is_answered() -> None:
    stream = receiving(window=100)
    stream.receive_skip(0, 50, now=0.0)
    stream.receive_data(50, b"abc", now=0.0)
    stream.answers()
    assert not stream.receive_skip(0, 50, now=0.0)
    assert (stream.received, stream.start) == (53, 50)
    assert stream.answers() == [Credit(ID, 1, 53, 150)]


def test_a_skip_to_where_it_is_begins_the_digest_anew() -> None:
    stream = receiving(window=100)
    stream.receive_data(0, b"abc", now=0.0)
    assert stream.receive_skip(1, 3, now=0.0)
    assert (stream.received, stream.start, stream.skipped) == (3, 3, [])
    assert stream.answers() == [Credit(ID, 1, 3, 100)]


def test_a_skip_that_comes_after_the_end_changes_nothing() -> None:
    stream = receiving()
    stream.receive_data(0, b"abc", now=0.0)
    stream.receive_end(End(ID, 1, 3, 0, SHA), now=0.0)
    assert not stream.receive_skip(1, 3, now=0.0)
    assert (stream.start, stream.ended) == (0, Ended(3, 0, SHA))


def test_what_is_gone_at_the_source_is_told_before_it_is_agreed() -> None:
    stream = SendStream(ID, 1, limit=100)
    stream.sent(50)
    stream.rewind(10)
    assert stream.skip(20) == Skip(ID, 1, 10, 20)
    assert (stream.next, stream.start) == (10, 0)
    stream.receive_credit(Credit(ID, 1, 30, 130))
    stream.advance()
    assert (stream.next, stream.start) == (30, 0)


def test_a_skip_above_a_hole_asks_for_it() -> None:
    stream = receiving()
    assert not stream.receive_skip(3, 50, now=0.0)
    assert stream.answers() == [Rewind(ID, 1, 0)]


def test_a_skip_to_the_end_ends_the_stream() -> None:
    stream = receiving()
    stream.receive_end(End(ID, 1, 50, 50, SHA), now=0.0)
    stream.answers()
    stream.receive_skip(0, 50, now=0.0)
    assert stream.ended is not None
    assert stream.answers() == [Credit(ID, 1, 50, 150, ended=True)]


@pytest.mark.parametrize("offset, to", [(5, 4), (0, 51)])
def test_a_skip_backwards_or_past_the_end_is_a_lie(offset: int, to: int) -> None:
    stream = receiving()
    stream.receive_end(End(ID, 1, 50, 0, SHA), now=0.0)
    with pytest.raises(Invalid):
        stream.receive_skip(offset, to, now=0.0)


def test_a_bounded_number_of_skips_is_remembered() -> None:
    stream = receiving()
    stream.receive_skip(0, 1, now=0.0)
    stream.receive_skip(1, 2, now=0.0)
    assert stream.skipped == [(0, 2)]
    for at in range(2, 400, 2):
        stream.receive_data(at, b"x", now=0.0)
        stream.receive_skip(at + 1, at + 2, now=0.0)
        stream.consume(1)
    assert len(stream.skipped) == 64
    assert stream.skipped[-1][1] == 400  # tells too much rather than too little


def test_a_receiver_that_comes_back_says_what_it_has() -> None:
    stream = receiving(window=100, start=7)
    stream.receive_data(7, b"abc", now=0.0)
    stream.consume(3)
    assert stream.resume() == [10, 7, 110]
    assert stream.receive_data(10, b"x" * 100, now=0.0) == b"x" * 100


def test_a_hole_is_forgotten_when_the_stream_is_taken_up_again() -> None:
    stream = receiving()
    stream.receive_data(5, b"x", now=0.0)
    stream.answers()
    stream.resume()
    stream.receive_data(5, b"x", now=0.1)
    assert stream.answers() == [Rewind(ID, 1, 0)]


def test_a_reset_has_a_bounded_sentence() -> None:
    assert reset_for(ID, 1, Code.LIMIT, "x" * 501) == Reset(ID, 1, "limit", "x" * 500)


def test_a_reset_tells_the_details_of_its_error_unless_they_are_large() -> None:
    error = CallError(Code.DENIED, "spent", which="run", limit=5)
    reset = reset_with(ID, 1, error)
    assert reset == Reset(ID, 1, "denied", "spent", {"which": "run", "limit": 5})
    assert error_of(reset).details == error.details
    assert error_of(Reset(ID, 1, "denied", "spent")).details == {}
    error = CallError(Code.DENIED, "spent", answer=b"x" * 1024)
    assert reset_with(ID, 1, error) == Reset(ID, 1, "denied", "spent")


# both, over a bad wire ------------------------------------------------------------------------


class Pair(RuleBasedStateMachine):
    """A sender and a receiver over a wire that loses, repeats and reorders, against plain bytes.

    The source may lose its oldest bytes (a spool that is full), and the receiver may come back
    with a resume, which is the one repair that always arrives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.content = bytes(range(251)) * 4
        self.gone = 0  # the source has nothing below
        self.now = 0.0
        self.send = SendStream(ID, 1, limit=64)
        self.receive = ReceiveStream(ID, 1, window=64)
        self.send_hash = hashlib.sha256()
        self.receive_hash = hashlib.sha256()
        self.there: list[Envelope | Data] = []
        self.back: list[Envelope] = []
        self.got: dict[int, bytes] = {}
        self.buffered = 0

    @rule(size=st.integers(1, 40))
    def send_a_chunk(self, size: int) -> None:
        at = self.send.next
        if at < self.gone:
            self.there.append(self.send.skip_to(self.gone))
            self.send_hash = hashlib.sha256()
            at = self.gone
        data = self.content[at : at + min(size, self.send.allowance)]
        if data:
            fresh = self.send.sent(len(data))
            self.send_hash.update(data[len(data) - fresh :])
            self.there.append(Data(ID, 1, at, data))
        if self.send.next == len(self.content):
            self.there.append(self.send.end(self.send_hash.digest()))

    @precondition(lambda self: self.there)
    @rule(place=st.integers(0, 1 << 30), twice=st.booleans(), lost=st.booleans())
    def deliver(self, place: int, twice: bool, lost: bool) -> None:
        envelope = self.there.pop(place % min(len(self.there), 4))
        for _ in range(0 if lost else 2 if twice else 1):
            self.take(envelope)

    @precondition(lambda self: self.there)
    @rule()
    def deliver_all_in_order(self) -> None:
        there, self.there = self.there, []
        for envelope in there:
            self.take(envelope)

    def take(self, envelope: Envelope | Data) -> None:
        self.now += 0.3
        match envelope:
            case Data(offset=offset, data=data):
                at = self.receive.received
                fresh = self.receive.receive_data(offset, data, now=self.now)
                self.receive_hash.update(fresh)
                self.got[at] = fresh or self.got.get(at, b"")
                self.buffered += len(fresh)
            case Skip(offset=offset, to=to):
                if self.receive.receive_skip(offset, to, now=self.now):
                    self.receive_hash = hashlib.sha256()
            case End():
                self.receive.receive_end(envelope, now=self.now)
        self.back += self.receive.answers()

    @rule(size=st.integers(1, 64))
    def consume(self, size: int) -> None:
        size = min(size, self.buffered)
        self.buffered -= size
        self.receive.consume(size)
        self.back += self.receive.answers()

    @precondition(lambda self: self.back)
    @rule(place=st.integers(0, 1 << 30), lost=st.booleans())
    def answer(self, place: int, lost: bool) -> None:
        envelope = self.back.pop(place % min(len(self.back), 4))
        if lost:
            return
        match envelope:
            case Credit():
                self.send.receive_credit(envelope)
            case Rewind(offset=offset):
                self.send.rewind(offset)

    @rule()
    def lose_everything_and_resume(self) -> None:
        self.there.clear()
        self.back.clear()
        received, start, limit = self.receive.resume()
        if self.send.resume(received, start, limit):
            self.send_hash = hashlib.sha256()

    @rule(size=st.integers(1, 100))
    def the_source_forgets(self, size: int) -> None:
        self.gone = min(self.gone + size, len(self.content))

    @invariant()
    def what_was_received_is_what_was_sent(self) -> None:
        for at, data in self.got.items():
            assert self.content[at : at + len(data)] == data

    @invariant()
    def nothing_is_missing_but_what_was_skipped(self) -> None:
        held = sum(map(len, self.got.values())) + sum(b - a for a, b in self.receive.skipped)
        assert held == self.receive.received

    @invariant()
    def the_buffer_is_bounded(self) -> None:
        assert self.receive.waiting == self.buffered <= 64

    @invariant()
    def a_matching_end_has_a_matching_digest(self) -> None:
        ended = self.receive.ended
        if ended is not None:
            assert ended.offset == self.receive.received == len(self.content)
            if ended.start == self.receive.start:
                assert ended.sha256 == self.receive_hash.digest()

    def teardown(self) -> None:
        """Whatever happened: over a good wire it now comes to its end."""
        self.lose_everything_and_resume()
        for _ in range(200):
            if self.receive.ended is not None:
                break
            self.send_a_chunk(40)
            self.deliver_all_in_order()
            self.consume(64)
            while self.back:
                self.answer(0, False)
        assert self.receive.ended is not None
        self.a_matching_end_has_a_matching_digest()
        self.nothing_is_missing_but_what_was_skipped()


TestPair = Pair.TestCase
TestPair.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_a_sender_that_stays_blocked_behind_bytes_we_lack_is_asked_for_them() -> None:
    stream = ReceiveStream(ID, 1, window=100)
    stream.receive_data(0, b"a" * 10, now=0.0)
    stream.receive_blocked(Blocked(ID, 1, 100), now=1.0)
    assert stream.answers() == [Credit(ID, 1, 10, 100)]  # they may be on their way
    stream.receive_blocked(Blocked(ID, 1, 100), now=2.0)
    assert stream.answers() == [Credit(ID, 1, 10, 100), Rewind(ID, 1, 10)]


def test_one_that_is_blocked_while_bytes_come_is_not() -> None:
    stream = ReceiveStream(ID, 1, window=100)
    for received in (10, 20, 30):
        stream.receive_data(received - 10, b"a" * 10, now=received)
        stream.receive_blocked(Blocked(ID, 1, 100), now=received)
    assert not [answer for answer in stream.answers() if isinstance(answer, Rewind)]
