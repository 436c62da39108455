"""New ids are unique and in order, whatever the calendar does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from sidecar import identity
from sidecar.clock import ManualClock, SystemClock
from sidecar.identity import new_id
from sidecar.protocol.ids import is_uuid7, uuid7_millis


@pytest.fixture(autouse=True)
def of_a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_latest", None)


def test_ids_of_one_moment_are_different_and_sorted() -> None:
    clock = ManualClock()
    ids = [new_id(clock) for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert ids == sorted(ids)
    assert all(is_uuid7(id) for id in ids)


def test_ids_stay_in_order_when_the_calendar_is_set_back() -> None:
    before = new_id(ManualClock(wall=1_900_000_000.0))
    after = new_id(ManualClock(wall=1_800_000_000.0))
    assert after > before
    assert uuid7_millis(after) == 1_900_000_000_000


def test_threads_get_different_ids() -> None:
    clock = SystemClock()
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda _: new_id(clock), range(2000)))
    assert len(set(ids)) == 2000
