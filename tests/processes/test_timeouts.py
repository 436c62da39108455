"""When a program has run long enough."""

from __future__ import annotations

from sidecar.processes.timeouts import Timeouts


def test_without_timeouts_there_is_nothing_to_wait_for() -> None:
    assert not Timeouts(100.0, total=None, idle=None)


def test_the_total_timeout_counts_from_the_beginning_whatever_happens() -> None:
    timeouts = Timeouts(100.0, total=10.0, idle=None)
    assert timeouts
    assert not timeouts.needs_activity
    timeouts.note_activity(109.0)
    assert timeouts.left(109.0) == 1.0
    assert timeouts.expired(109.9) is None
    assert timeouts.expired(110.0) == "total"


def test_the_idle_timeout_counts_from_the_last_byte() -> None:
    timeouts = Timeouts(100.0, total=None, idle=5.0)
    assert timeouts.needs_activity
    assert timeouts.left(100.0) == 5.0
    timeouts.note_activity(104.0)
    assert timeouts.left(104.0) == 5.0
    assert timeouts.expired(108.9) is None
    assert timeouts.expired(109.0) == "idle"


def test_of_two_the_earlier_one_counts() -> None:
    timeouts = Timeouts(100.0, total=10.0, idle=6.0)
    assert timeouts.left(100.0) == 6.0
    assert timeouts.expired(106.0) == "idle"
    timeouts.note_activity(105.0)
    assert timeouts.left(105.0) == 5.0
    assert timeouts.expired(110.0) == "total"
