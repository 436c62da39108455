"""Six wrong attempts a minute, in bounded memory."""

from __future__ import annotations

from sidecar.hub.platform.attempts import NAMES, Attempts, Strangers


def test_after_six_within_a_minute_the_seventh_has_to_wait() -> None:
    attempts = Attempts()
    for second in range(6):
        assert attempts.wait(now=100.0 + second) == 0.0
        attempts.fail(now=100.0 + second)
    assert attempts.wait(now=106.0) == 54.0
    assert attempts.wait(now=159.5) == 0.5
    assert attempts.wait(now=160.0) == 0.0


def test_the_minute_moves_on_with_each_attempt() -> None:
    attempts = Attempts()
    for _ in range(6):
        attempts.fail(now=100.0)
    attempts.fail(now=160.0)
    assert attempts.wait(now=160.0) == 0.0
    for _ in range(5):
        attempts.fail(now=161.0)
    assert attempts.wait(now=161.0) == 59.0


def test_names_that_do_not_fit_share_one_entry() -> None:
    strangers = Strangers()
    for number in range(NAMES):
        strangers.of(f"run-{number}", now=0.0).fail(now=0.0)
    one = strangers.of("one-more", now=1.0)
    one.fail(now=1.0)
    assert strangers.of("another", now=1.0) is one
    assert len(strangers) == NAMES + 1
    assert strangers.of("run-7", now=1.0) is not one


def test_entries_make_room_when_their_minute_is_over() -> None:
    strangers = Strangers()
    for number in range(NAMES):
        strangers.of(f"run-{number}", now=0.0).fail(now=0.0)
    one, other = strangers.of("one-more", now=60.0), strangers.of("another", now=60.0)
    assert one is not other
    assert len(strangers) == 2
