from __future__ import annotations

from sidecar.protocol.backoff import Backoff


def test_the_ceiling_doubles_up_to_the_longest() -> None:
    backoff = Backoff(lambda: 1.0, first=0.25, longest=5.0)
    assert [backoff.next() for _ in range(7)] == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_each_delay_is_drawn_between_nothing_and_the_ceiling() -> None:
    numbers = iter([0.0, 0.5, 0.1])
    backoff = Backoff(lambda: next(numbers), first=1.0, longest=60.0)
    assert [backoff.next() for _ in range(3)] == [0.0, 1.0, 0.4]


def test_a_success_makes_the_next_delay_short_again() -> None:
    backoff = Backoff(lambda: 1.0, first=0.25, longest=5.0)
    backoff.next()
    backoff.next()
    backoff.reset()
    assert backoff.next() == 0.25


def test_it_never_overflows() -> None:
    backoff = Backoff(lambda: 1.0, first=0.25, longest=5.0)
    assert [backoff.next() for _ in range(5000)][-1] == 5.0
