from __future__ import annotations

import pytest

from sidecar.protocol.ratelimit import RateLimit, TokenBucket

SLOW = RateLimit(messages=10.0, bytes=1000.0, burst_messages=3, burst_bytes=5000)


def test_a_burst_passes_at_once_and_then_bulk_waits() -> None:
    bucket = TokenBucket(SLOW, now=0.0)
    for _ in range(3):
        assert bucket.is_ready(now=0.0)
        bucket.take(10, now=0.0)
    assert not bucket.is_ready(now=0.0)
    assert bucket.ready_at() == pytest.approx(0.1)


def test_it_is_ready_at_the_time_it_said() -> None:
    bucket = TokenBucket(RateLimit(messages=0.3, burst_messages=1), now=0.0)
    bucket.take(1, now=0.1)
    at = bucket.ready_at()
    assert at is not None
    assert bucket.is_ready(now=at)
    assert bucket.ready_at() is None


def test_one_large_message_may_go_and_its_debt_is_waited_for() -> None:
    bucket = TokenBucket(SLOW, now=0.0)
    bucket.take(6000, now=0.0)
    assert bucket.ready_at() == pytest.approx(1.0)


def test_what_is_urgent_overdraws_but_at_most_by_a_burst() -> None:
    bucket = TokenBucket(SLOW, now=0.0)
    for _ in range(1000):
        bucket.take(10, now=0.0)
    # 5,000 bytes of debt at 1,000 bytes a second, however much more was sent
    assert bucket.ready_at() == pytest.approx(5.0)


def test_no_more_than_a_burst_is_saved_up() -> None:
    bucket = TokenBucket(SLOW, now=0.0)
    for _ in range(3):
        bucket.take(1, now=3600.0)
    assert not bucket.is_ready(now=3600.0)


def test_the_sustained_rate_holds() -> None:
    bucket = TokenBucket(SLOW, now=0.0)
    sent, now = 0, 0.0
    while now < 100.0:
        if bucket.is_ready(now=now):
            bucket.take(1, now=now)
            sent += 1
        now += 0.01
    assert sent == pytest.approx(3 + 100 * 10, abs=2)


def test_a_clock_that_steps_back_gives_nothing() -> None:
    bucket = TokenBucket(SLOW, now=100.0)
    for _ in range(3):
        bucket.take(1, now=100.0)
    assert not bucket.is_ready(now=50.0)
    assert bucket.is_ready(now=100.1)
