"""What a spool keeps, where, and when the program waits; without any bytes."""

from __future__ import annotations

import pytest

from sidecar.errors import Invalid
from sidecar.protocol.spool import OnFull, Placement, SpoolProtocol

KIB = 1024


def spool_with(printed: int = 0, *, on_full: OnFull = OnFull.DROP) -> SpoolProtocol:
    """A head of 10 bytes, a tail of 20, an owner's silence of 30 s; printed at 0.0."""
    spool = SpoolProtocol(head=10, tail=20, hold_time=30.0, on_full=on_full)
    while spool.size < printed:
        write(spool, min(5, printed - spool.size), now=0.0)
    return spool


def write(spool: SpoolProtocol, size: int, *, now: float) -> None:
    for place in spool.accept(size, now=now):
        spool.stored(place.offset, place.size)


def kept(spool: SpoolProtocol) -> list[tuple[int, int]]:
    """The ranges that a reader finds."""
    ranges: list[tuple[int, int]] = []
    place = spool.find(0)
    while place.size:
        end = place.offset + place.size
        if ranges and ranges[-1][1] == place.offset:
            ranges[-1] = (ranges[-1][0], end)
        else:
            ranges.append((place.offset, end))
        place = spool.find(end)
    return ranges


def test_the_head_and_the_ring_have_their_places() -> None:
    spool = SpoolProtocol(head=10, tail=20)
    assert spool.accept(8, now=0.0) == [Placement(0, 0, 8)]
    assert spool.accept(8, now=0.0) == [Placement(8, 8, 2), Placement(10, 10, 6)]
    assert spool.accept(20, now=0.0) == [Placement(16, 16, 14), Placement(30, 10, 6)]


def test_head_and_tail_are_kept_and_the_middle_is_dropped() -> None:
    spool = spool_with(100)
    assert kept(spool) == [(0, 10), (80, 100)]
    assert (spool.size, spool.dropped) == (100, 70)


def test_a_reader_of_dropped_bytes_is_sent_on_to_the_first_kept() -> None:
    spool = spool_with(100)
    assert spool.find(10) == Placement(80, 20, 10)
    assert spool.find(95) == Placement(95, 15, 5)
    assert spool.find(100) == Placement(100, 20, 0)
    with pytest.raises(Invalid, match="offset 101 is outside what was printed: 0 to 100"):
        spool.find(101)


def test_without_an_owner_a_spool_that_drops_always_has_room() -> None:
    spool = spool_with(0)
    assert spool.room(now=0.0) == 30
    write(spool, 30, now=0.0)
    assert spool.room(now=0.0) == 20
    assert spool.next_deadline(now=0.0) is None


def test_a_write_beyond_the_room_is_a_defect() -> None:
    with pytest.raises(AssertionError, match="21 bytes for a spool with room for 20"):
        spool_with(30).accept(21, now=0.0)


def test_nothing_is_printed_after_the_end() -> None:
    spool = spool_with(3)
    spool.end()
    with pytest.raises(AssertionError):
        spool.accept(1, now=0.0)


def test_bytes_that_the_owner_has_not_read_are_not_overwritten() -> None:
    spool = spool_with(0)
    spool.follow(0, now=0.0)
    write(spool, 30, now=0.0)
    assert spool.room(now=1.0) == 0
    spool.progress(10, now=1.0)  # the head is kept anyway: reading it makes no room
    assert spool.room(now=1.0) == 0
    spool.progress(17, now=2.0)
    assert spool.room(now=2.0) == 7
    write(spool, 7, now=2.0)
    assert kept(spool) == [(0, 10), (17, 37)]
    assert spool.dropped == 7


def test_an_owner_silent_for_the_hold_time_loses_its_hold() -> None:
    spool = spool_with(0)
    spool.follow(0, now=0.0)
    write(spool, 30, now=1.0)
    spool.progress(12, now=10.0)
    write(spool, 2, now=10.0)
    assert spool.next_deadline(now=20.0) == 40.0
    assert spool.room(now=39.9) == 0
    assert spool.room(now=40.0) == 20
    assert spool.next_deadline(now=40.0) is None
    write(spool, 20, now=40.0)
    assert kept(spool) == [(0, 10), (32, 52)]


def test_an_owner_that_comes_back_to_life_is_waited_for_again() -> None:
    spool = spool_with(0)
    spool.follow(0, now=0.0)
    write(spool, 30, now=0.0)
    write(spool, 20, now=30.0)
    spool.progress(12, now=31.0)
    assert spool.room(now=31.0) == 0
    spool.progress(33, now=32.0)
    assert spool.room(now=32.0) == 3


def test_progress_to_where_the_owner_was_already_is_no_progress() -> None:
    spool = spool_with(30)
    spool.follow(5, now=0.0)
    spool.progress(5, now=20.0)
    spool.progress(3, now=20.0)
    assert spool.next_deadline(now=20.0) == 30.0


def test_an_owner_at_the_end_is_not_silent_however_quiet_the_program_is() -> None:
    spool = spool_with(5)
    spool.follow(5, now=0.0)
    write(spool, 25, now=100.0)
    assert spool.room(now=129.9) == 0
    assert spool.room(now=130.0) == 20


def test_a_spool_whose_owner_left_goes_on_by_itself() -> None:
    spool = spool_with(30)
    spool.follow(0, now=0.0)
    assert spool.room(now=0.0) == 0
    spool.unfollow()
    assert spool.room(now=0.0) == 20


def test_a_spool_that_holds_stays_full_until_somebody_makes_progress() -> None:
    spool = spool_with(30, on_full=OnFull.HOLD)
    assert spool.room(now=1e9) == 0
    assert spool.next_deadline(now=1e9) is None
    spool.progress(15, now=1e9)
    assert spool.room(now=1e9) == 5


def test_a_new_owner_may_start_further_back_and_is_waited_for() -> None:
    spool = spool_with(100)
    spool.follow(0, now=0.0)
    assert spool.room(now=0.0) == 0
    spool.progress(84, now=1.0)
    assert spool.room(now=1.0) == 4


@pytest.mark.parametrize("offset", [-1, 6])
def test_progress_beyond_what_was_printed_is_invalid(offset: int) -> None:
    spool = spool_with(5)
    with pytest.raises(Invalid, match=f"progress to {offset}, but 5 bytes were printed"):
        spool.follow(offset, now=0.0)
    with pytest.raises(Invalid, match=f"progress to {offset}, but 5 bytes were printed"):
        spool.progress(offset, now=0.0)


def test_bytes_that_the_store_would_not_take_are_dropped_and_counted() -> None:
    spool = spool_with(4)
    spool.accept(4, now=0.0)
    spool.stored(4, 1)
    spool.failed(3)
    write(spool, 4, now=0.0)
    assert kept(spool) == [(0, 5), (8, 12)]
    assert (spool.dropped, spool.unwritten) == (3, 3)


def test_the_ring_overwrites_holes_as_it_does_bytes() -> None:
    spool = spool_with(20)
    spool.accept(5, now=0.0)
    spool.failed(5)
    write(spool, 15, now=0.0)
    assert kept(spool) == [(0, 10), (25, 40)]
    write(spool, 8, now=0.0)
    assert kept(spool) == [(0, 10), (28, 48)]


def test_kept_pieces_are_bounded_and_the_oldest_of_the_tail_goes() -> None:
    spool = SpoolProtocol(head=10, tail=1000)
    write(spool, 10, now=0.0)
    for _ in range(70):
        spool.accept(1, now=0.0)
        spool.failed(1)
        write(spool, 1, now=0.0)
    ranges = kept(spool)
    assert len(ranges) == 64
    assert ranges[0] == (0, 10)
    assert ranges[1] == (25, 26)
    assert ranges[-1] == (149, 150)


def test_a_shrunken_spool_keeps_what_it_has_where_it_is() -> None:
    spool = SpoolProtocol(head=1024 * KIB, tail=4096 * KIB)
    write(spool, 1500 * KIB, now=0.0)
    spool.shrink(2048 * KIB)
    assert spool.capacity == 2048 * KIB
    assert kept(spool) == [(0, 1500 * KIB)]
    assert spool.find(1400 * KIB).position == 1400 * KIB
    write(spool, 600 * KIB, now=0.0)
    assert kept(spool) == [(0, 1024 * KIB), (1076 * KIB, 2100 * KIB)]


def test_a_spool_does_not_shrink_below_what_it_has() -> None:
    spool = SpoolProtocol(head=1024 * KIB, tail=4096 * KIB)
    write(spool, 1500 * KIB, now=0.0)
    spool.shrink(1100 * KIB)
    assert spool.capacity == 1500 * KIB


def test_a_spool_that_shrinks_in_its_head_has_a_tail_at_the_floor() -> None:
    spool = SpoolProtocol(head=1024 * KIB, tail=4096 * KIB)
    write(spool, 100 * KIB, now=0.0)
    spool.shrink(200 * KIB)
    assert spool.capacity == 264 * KIB
    write(spool, 164 * KIB, now=0.0)
    write(spool, 50 * KIB, now=0.0)
    assert kept(spool) == [(0, 200 * KIB), (250 * KIB, 314 * KIB)]


def test_a_spool_that_gets_nothing_keeps_the_floor() -> None:
    spool = SpoolProtocol()
    spool.shrink(0)
    assert spool.capacity == 128 * KIB


def test_a_spool_whose_ring_came_round_does_not_shrink() -> None:
    with pytest.raises(AssertionError, match="the ring has come round"):
        spool_with(100).shrink(20)
