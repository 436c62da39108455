"""The window of an attachment: totals, limits, and that loss neither leaks nor locks."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.protocol.envelope import Blocked, Head, Window
from sidecar.protocol.window import ReceiveWindow, SendWindow, share

A = b"a" * 16


@pytest.mark.parametrize(
    "attachments, granted",
    [
        (0, (4 << 20, 128)),
        (1, (4 << 20, 128)),
        (2, (4 << 20, 128)),
        (4, (2 << 20, 125)),
        (16, (512 << 10, 31)),
        (30, (512 << 10, 16)),
    ],
)
def test_attachments_share_one_session_of_the_hub(
    attachments: int, granted: tuple[int, int]
) -> None:
    assert share(attachments) == granted


@pytest.mark.parametrize("attachments", range(1, 31))
def test_what_is_granted_together_stays_below_the_limits_of_the_hub(attachments: int) -> None:
    size_bytes, size_messages = share(attachments)
    assert attachments * size_bytes < 16_000_000
    assert attachments * size_messages < 1000


# sending --------------------------------------------------------------------------------------


def test_each_message_states_the_running_totals() -> None:
    window = SendWindow(A, 100, 3)
    assert window.head(40) == Head(A, 40, 1)
    assert window.head(50) == Head(A, 90, 2)
    assert (window.room(), window.in_flight) == (10, 90)


def test_bytes_and_messages_close_the_window_both() -> None:
    by_bytes = SendWindow(A, 100, 3)
    by_bytes.head(100)
    assert by_bytes.room() == 0
    by_messages = SendWindow(A, 100, 3)
    for _ in range(3):
        by_messages.head(1)
    assert by_messages.room() == 0


def test_an_older_window_changes_nothing() -> None:
    window = SendWindow(A, 100, 3)
    window.head(40)
    window.receive(Window(40, 1, 140, 4))
    window.receive(Window(0, 0, 100, 3))
    assert (window.room(), window.in_flight) == (100, 0)


def test_nobody_can_have_seen_what_was_never_sent() -> None:
    window = SendWindow(A, 100, 3)
    window.head(40)
    window.receive(Window(1 << 40, 1 << 40, 100, 3))
    assert (window.seen_bytes, window.seen_messages, window.in_flight) == (40, 1, 0)


def test_a_closed_window_is_told_of_each_second() -> None:
    window = SendWindow(A, 10, 3)
    window.head(10)
    assert window.blocked(5.0) is None
    assert window.blocked_at == 6.0
    assert window.blocked(5.9) is None
    assert window.blocked(6.0) == Blocked(offset=10)
    assert window.blocked(6.9) is None
    assert window.blocked(7.0) == Blocked(offset=10)


def test_any_word_of_the_receiver_ends_being_blocked() -> None:
    window = SendWindow(A, 10, 3)
    window.blocked(5.0)
    window.receive(Window(0, 0, 20, 3))
    assert window.blocked_at is None


# receiving ------------------------------------------------------------------------------------


def receiving(size_bytes: int = 1 << 20, size_messages: int = 10) -> ReceiveWindow:
    return ReceiveWindow(size_bytes, size_messages, now=0.0)


def test_what_was_seen_is_stated_after_20_ms() -> None:
    window = receiving()
    window.receive(Head(A, 1000, 1), now=5.0)
    assert window.next_deadline() == 5.02
    assert window.statement(now=5.019) is None
    assert window.statement(now=5.02) == Window(1000, 1, (1 << 20) + 1000, 11)
    assert window.next_deadline() == pytest.approx(35.02)


def test_384_kib_are_stated_at_once() -> None:
    window = ReceiveWindow(4 << 20, 10, now=0.0)
    window.receive(Head(A, 384 * 1024 - 1, 1), now=5.0)
    assert window.statement(now=5.0) is None
    window.receive(Head(A, 384 * 1024, 2), now=5.0)
    assert window.statement(now=5.0) == Window(393216, 2, (4 << 20) + 393216, 12)


def test_a_quarter_of_a_small_window_is_stated_at_once() -> None:
    window = receiving()
    window.receive(Head(A, 256 * 1024, 1), now=5.0)
    assert window.statement(now=5.0) == Window(262144, 1, (1 << 20) + 262144, 11)


def test_half_the_messages_are_stated_at_once() -> None:
    window = receiving()
    window.receive(Head(A, 4, 4), now=5.0)
    assert window.statement(now=5.0) is None
    window.receive(Head(A, 5, 5), now=5.0)
    assert window.statement(now=5.0) == Window(5, 5, (1 << 20) + 5, 15)


def test_the_window_is_stated_every_30_s_as_a_sign_of_life() -> None:
    window = receiving()
    assert window.statement(now=29.9) is None
    assert window.statement(now=30.0) == Window(0, 0, 1 << 20, 10)
    assert window.statement(now=59.9) is None
    assert window.statement(now=60.0) == Window(0, 0, 1 << 20, 10)


def test_a_message_that_carries_only_a_window_is_no_news() -> None:
    window = receiving()
    window.receive(Head(A, 0, 0), now=5.0)
    assert window.next_deadline() == 30.0
    assert window.lost_messages == 0


def test_messages_that_never_came_are_counted_and_leak_nothing() -> None:
    window = receiving()
    window.receive(Head(A, 10, 1), now=0.0)
    window.receive(Head(A, 10, 1), now=0.0)  # only a window
    window.receive(Head(A, 500, 4), now=0.0)
    assert window.lost_messages == 2
    assert window.statement(now=1.0) == Window(500, 4, (1 << 20) + 500, 14)


def test_totals_that_come_late_change_nothing() -> None:
    window = receiving()
    window.receive(Head(A, 500, 4), now=0.0)
    window.receive(Head(A, 10, 1), now=0.0)
    assert (window.seen_bytes, window.seen_messages) == (500, 4)


def test_a_blocked_peer_is_answered_at_once() -> None:
    window = receiving()
    window.urge(now=3.0)
    assert window.statement(now=3.0) == Window(0, 0, 1 << 20, 10)


def test_the_window_does_not_open_for_what_waits_for_a_slow_consumer() -> None:
    window = receiving(size_bytes=1000)
    window.receive(Head(A, 600, 2), now=0.0)
    window.hold(600)
    assert window.statement(now=0.02) == Window(600, 2, 1000, 11)
    window.release(600, now=1.0)
    assert window.next_deadline() == 1.02
    assert window.statement(now=1.02) == Window(600, 2, 1600, 12)


def test_a_smaller_window_takes_back_nothing_that_was_granted() -> None:
    window = receiving(size_bytes=1000, size_messages=10)
    window.resize(400, 4)
    window.receive(Head(A, 500, 5), now=0.0)
    assert window.statement(now=0.02) == Window(500, 5, 1000, 10)
    window.receive(Head(A, 900, 9), now=0.1)
    assert window.statement(now=0.2) == Window(900, 9, 1300, 13)


# both, over a bad wire ------------------------------------------------------------------------


class Pair(RuleBasedStateMachine):
    """Two sides that send to each other over a wire that loses, repeats and delays.

    A message is (head, window or None, blocked or None): a message without bytes carries only
    what is exempt from the window.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.sends = [SendWindow(A, 1000, 5), SendWindow(A, 1000, 5)]
        self.receives = [ReceiveWindow(1000, 5, now=0.0), ReceiveWindow(1000, 5, now=0.0)]
        self.wire: list[tuple[int, Head, Window | None, Blocked | None]] = []

    @rule(side=st.integers(0, 1), size=st.integers(1, 1000))
    def send(self, side: int, size: int) -> None:
        window = self.sends[side]
        if size <= window.room():
            self.wire.append((side, window.head(size), None, None))

    @rule(side=st.integers(0, 1), seconds=st.floats(0.01, 2.0))
    def time_passes(self, side: int, seconds: float) -> None:
        self.now += seconds
        self.state(side)

    def state(self, side: int) -> None:
        sender = self.sends[side]
        statement = self.receives[side].statement(now=self.now)
        blocked = sender.blocked(self.now) if not sender.room() else None
        if statement is not None or blocked is not None:
            head = Head(A, sender.bytes, sender.messages)
            self.wire.append((side, head, statement, blocked))

    @precondition(lambda self: self.wire)
    @rule(place=st.integers(0, 1 << 30), lost=st.booleans(), twice=st.booleans())
    def deliver(self, place: int, lost: bool, twice: bool) -> None:
        message = self.wire.pop(place % min(3, len(self.wire)))
        for _ in range(0 if lost else 2 if twice else 1):
            self.take(*message)

    def take(self, side: int, head: Head, window: Window | None, blocked: Blocked | None) -> None:
        other = 1 - side
        self.receives[other].receive(head, now=self.now)
        if window is not None:
            self.sends[other].receive(window)
        if blocked is not None:
            self.receives[other].urge(now=self.now)

    @invariant()
    def nobody_has_more_in_flight_than_was_granted(self) -> None:
        for sender in self.sends:
            assert sender.in_flight <= 1000
            assert sender.messages - sender.seen_messages <= 5

    def teardown(self) -> None:
        """Whatever was lost, with everything shut: on a good wire both windows open fully."""
        self.wire.clear()
        for side in (0, 1):
            while self.sends[side].room():
                self.sends[side].head(self.sends[side].room())
        for _ in range(5):
            self.now += 0.6
            for side in (0, 1):
                self.state(side)
            wire, self.wire = self.wire, []
            for message in wire:
                self.take(*message)
        for sender in self.sends:
            assert (sender.in_flight, sender.room()) == (0, 1000)
            assert sender.limit_messages - sender.messages == 5


TestPair = Pair.TestCase
TestPair.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
