"""How much to have in flight: measured bandwidth times round trip, on paths made of numbers."""

from __future__ import annotations

import pytest

from sidecar.protocol.flow import MAX_CHUNK, MAX_WINDOW, MIN_CHUNK, SAMPLES, Flow

KIB = 1024


def run_path(flow: Flow, *, rate: float, trip: float, seconds: float, start: float = 0.0) -> float:
    """Keep `flow` full over a path of `rate` bytes a second and `trip` seconds; the time after."""
    now = free = start
    total = seen = flow._delivered  # totals go on when the path changes
    arrivals: list[tuple[float, int]] = []
    while now < start + seconds:
        while total - seen + flow.chunk <= flow.window:
            total += flow.chunk
            flow.sent(total, now=now)
            free = max(free, now) + flow.chunk / rate  # the path carries one chunk at a time
            arrivals.append((free + trip, total))
        now, seen = arrivals.pop(0)
        flow.seen(seen, now=now)
    for now, seen in arrivals:  # the rest arrives, too
        flow.seen(seen, now=now)
    return now


def test_before_anything_is_known_the_bounds_are_the_initial_ones() -> None:
    flow = Flow()
    assert (flow.window, flow.chunk, flow.rate, flow.trip) == (512 * KIB, 64 * KIB, 0.0, None)


def test_one_message_tells_the_round_trip_and_a_rate() -> None:
    flow = Flow()
    flow.sent(100_000, now=10.0)
    flow.seen(100_000, now=10.1)
    assert flow.trip == pytest.approx(0.1)
    assert flow.rate == pytest.approx(1_000_000)


@pytest.mark.parametrize(
    "rate, trip",
    [
        pytest.param(250e3, 0.05, id="250-kB-s"),
        pytest.param(1e6, 0.1, id="1-MB-s"),
        pytest.param(8e6, 0.05, id="8-MB-s"),
        pytest.param(50e6, 0.02, id="50-MB-s"),
        pytest.param(50e6, 0.15, id="50-MB-s-far"),
    ],
)
def test_the_rate_of_the_path_is_found_and_the_window_fits_it(rate: float, trip: float) -> None:
    flow = Flow()
    flow.sent(100, now=0.0)  # as in life, something small goes first
    flow.seen(100, now=trip)
    run_path(flow, rate=rate, trip=trip, seconds=10.0, start=trip)
    assert flow.rate == pytest.approx(rate, rel=0.15)
    # Full, and with a queue in front of a keystroke of a quarter round trip and three chunks.
    queue = flow.window / rate - trip
    assert 0 < queue <= 0.35 * trip + 3.5 * flow.chunk / rate


def test_chunks_are_what_the_path_carries_in_10_ms() -> None:
    flow = Flow()
    run_path(flow, rate=4e6, trip=0.05, seconds=5.0)
    assert flow.chunk == pytest.approx(40_000, rel=0.15)


def test_chunks_and_window_stay_within_their_bounds() -> None:
    slow, fast = Flow(), Flow()
    run_path(slow, rate=10e3, trip=0.05, seconds=300.0)
    run_path(fast, rate=10e9, trip=0.5, seconds=5.0)
    assert (slow.chunk, slow.window >= 4 * MIN_CHUNK) == (MIN_CHUNK, True)
    assert (fast.chunk, fast.window) == (MAX_CHUNK, MAX_WINDOW)


def test_a_path_that_becomes_slower_gets_a_smaller_window() -> None:
    flow = Flow()
    now = run_path(flow, rate=20e6, trip=0.05, seconds=5.0)
    before = flow.window
    run_path(flow, rate=2e6, trip=0.05, seconds=5.0, start=now)
    assert flow.window < before / 5
    assert flow.rate == pytest.approx(2e6, rel=0.2)


def test_a_path_that_becomes_faster_gets_a_larger_window() -> None:
    flow = Flow()
    now = run_path(flow, rate=2e6, trip=0.05, seconds=5.0)
    run_path(flow, rate=20e6, trip=0.05, seconds=5.0, start=now)
    assert flow.rate == pytest.approx(20e6, rel=0.2)


def test_time_without_traffic_does_not_count_against_the_path() -> None:
    flow = Flow()
    flow.sent(100_000, now=0.0)
    flow.seen(100_000, now=0.1)
    flow.sent(200_000, now=60.0)
    flow.seen(200_000, now=60.1)
    assert flow.rate == pytest.approx(1_000_000)


def test_a_report_of_nothing_new_changes_nothing() -> None:
    flow = Flow()
    flow.sent(100_000, now=0.0)
    flow.seen(99_999, now=0.1)
    assert flow.trip is None
    flow.seen(100_000, now=0.2)
    flow.seen(100_000, now=9.0)
    assert flow.trip == pytest.approx(0.2)


def test_a_report_that_takes_no_time_divides_by_nothing() -> None:
    flow = Flow()
    flow.sent(100_000, now=1.0)
    flow.seen(100_000, now=1.0)
    assert flow.window <= MAX_WINDOW


def test_a_receiver_that_never_reports_costs_bounded_memory() -> None:
    flow = Flow()
    for total in range(1, 20_000):
        flow.sent(total, now=1.0)
    flow.seen(19_999, now=2.0)
    assert flow.trip == pytest.approx(1.0)
    assert SAMPLES == 4096
