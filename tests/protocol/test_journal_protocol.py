"""Numbers, cursors, retention and gaps, without any records."""

from __future__ import annotations

import pytest

from sidecar.errors import Invalid, LimitExceeded
from sidecar.protocol.journal import Gap, GapReason, JournalProtocol

SERIES = bytes.fromhex("017f22e279b07cc398c4dc0c0c07398f")
OTHER_SERIES = bytes.fromhex("017f22e279b07cc398c4dc0c0c073990")


def journal_with(events: int, *, evicted: int = 0) -> JournalProtocol:
    """Events of 10 bytes each, the oldest of them evicted."""
    journal = JournalProtocol(SERIES, max_bytes=1000, max_events=100)
    for seq in range(1, events + 1):
        journal.appended(seq, 10)
    if evicted:
        journal.evicted(evicted, 10 * evicted)
    return journal


def test_an_empty_journal_has_first_1_and_last_0() -> None:
    journal = journal_with(0)
    assert (journal.first, journal.last, journal.bytes) == (1, 0, 0)
    assert journal.gap_after(0) is None


def test_an_event_over_64_kib_is_refused_and_changes_nothing() -> None:
    journal = journal_with(1)
    with pytest.raises(LimitExceeded, match="bytes of one event: 65537, at most 65536"):
        journal.appended(2, 65_537)
    journal.appended(2, 65_536)
    assert journal.last == 2


def test_an_encoder_that_appends_is_a_defect() -> None:
    journal = journal_with(3)
    with pytest.raises(AssertionError, match="event 3 after 3"):
        journal.appended(3, 10)


@pytest.mark.parametrize("max_bytes, max_events", [(25, 100), (1000, 2)])
def test_the_oldest_must_go_at_either_bound(max_bytes: int, max_events: int) -> None:
    journal = JournalProtocol(SERIES, max_bytes=max_bytes, max_events=max_events)
    was_over = []
    for seq in [1, 2, 3]:
        journal.appended(seq, 10)
        was_over.append(journal.is_over)
    assert was_over == [False, False, True]
    journal.evicted(1, 10)
    assert (journal.first, journal.last, journal.bytes) == (2, 3, 20)
    assert journal.is_over is False


def test_the_newest_event_is_kept_even_if_it_alone_is_over_the_bound() -> None:
    journal = JournalProtocol(SERIES, max_bytes=5, max_events=100)
    journal.appended(1, 10)
    assert not journal.is_over


@pytest.mark.parametrize("after", [-1, 4])
def test_a_cursor_outside_the_journal_is_invalid(after: int) -> None:
    with pytest.raises(Invalid, match=f"cursor {after} is outside this journal: 0 to 3"):
        journal_with(3).check_cursor(after)


def test_a_cursor_before_the_first_event_has_a_gap() -> None:
    journal = journal_with(10, evicted=4)
    assert journal.gap_after(0) == Gap(1, 4, 40, GapReason.EVICTED)
    assert journal.gap_after(3) == Gap(4, 4, None, GapReason.EVICTED)
    assert journal.gap_after(4) is None
    assert journal.gap_after(10) is None


def test_what_was_evicted_before_it_was_acked_is_lost_and_its_bytes_are_known() -> None:
    journal = journal_with(10)
    journal.open_reader("platform", after=None, series=None)
    journal.ack("platform", 2, offset=20)
    journal.evicted(2, 20)
    assert journal.lost is None
    journal.evicted(5, 30)
    assert journal.lost == Gap(3, 5, 30, GapReason.EVICTED)


def test_nothing_is_held_or_lost_while_no_durable_reader_ever_attached() -> None:
    journal = journal_with(10, evicted=4)
    journal.open_reader(None, after=4, series=None)
    assert journal.acked is None
    assert journal.lost is None


def test_the_slowest_durable_reader_decides_what_is_acked() -> None:
    journal = journal_with(10)
    journal.open_reader("platform", after=None, series=None)
    journal.open_reader("archive", after=None, series=None)
    journal.ack("platform", 9, offset=90)
    journal.ack("archive", 4, offset=40)
    assert journal.acked == 4
    journal.forget("archive")
    assert journal.acked == 9
    journal.forget("archive")


def test_an_older_ack_changes_nothing() -> None:
    journal = journal_with(10)
    journal.open_reader("platform", after=None, series=None)
    journal.ack("platform", 9, offset=90)
    journal.ack("platform", 4, offset=40)
    assert journal.acked == 9


def test_an_ack_of_what_was_never_sent_is_invalid() -> None:
    journal = journal_with(3)
    journal.open_reader("platform", after=None, series=None)
    with pytest.raises(Invalid, match="cursor 4 is outside"):
        journal.ack("platform", 4, offset=None)
    assert journal.acked == 0


def test_an_ack_by_a_name_that_nobody_has_is_invalid() -> None:
    with pytest.raises(Invalid, match="no durable reader is named 'platform'"):
        journal_with(3).ack("platform", 1, offset=10)


def test_readers_start_where_they_say_or_where_they_left_off() -> None:
    journal = journal_with(10)
    assert journal.open_reader(None, after=None, series=None) == (10, None)
    assert journal.open_reader(None, after=3, series=SERIES) == (3, None)
    assert journal.open_reader("platform", after=None, series=None) == (0, None)
    journal.ack("platform", 7, offset=70)
    assert journal.open_reader("platform", after=None, series=None) == (7, None)
    assert journal.open_reader("platform", after=5, series=None) == (5, None)
    assert journal.acked == 7


def test_the_first_cursor_of_a_durable_reader_counts_as_its_ack() -> None:
    journal = journal_with(10)
    assert journal.open_reader("platform", after=5, series=None) == (5, None)
    assert journal.acked == 5


@pytest.mark.parametrize("name", [None, "platform"])
def test_a_cursor_of_another_series_gets_a_gap_and_the_beginning(name: str | None) -> None:
    journal = journal_with(10)
    gap = Gap(5001, None, None, GapReason.NEW_SERIES)
    assert journal.open_reader(name, after=5000, series=OTHER_SERIES) == (0, gap)


def test_sixteen_readers_may_be_open() -> None:
    journal = journal_with(1)
    for _ in range(16):
        journal.open_reader(None, after=0, series=None)
    with pytest.raises(LimitExceeded, match="open readers: 17, at most 16"):
        journal.open_reader(None, after=0, series=None)
    journal.reader_closed()
    journal.open_reader(None, after=0, series=None)


def test_sixteen_durable_names_may_hold_retention() -> None:
    journal = journal_with(1)
    for number in range(16):
        journal.open_reader(f"reader-{number}", after=0, series=None)
        journal.reader_closed()
    with pytest.raises(LimitExceeded, match="durable readers: 17, at most 16"):
        journal.open_reader("one-more", after=0, series=None)
    journal.open_reader("reader-3", after=0, series=None)


def test_the_name_of_a_durable_reader_is_an_id() -> None:
    with pytest.raises(Invalid, match="reader name 'Plat.form' is not an id"):
        journal_with(0).open_reader("Plat.form", after=None, series=None)


def test_a_reader_that_was_refused_does_not_count_as_open() -> None:
    journal = JournalProtocol(SERIES, max_bytes=100, max_events=10, max_readers=1)
    with pytest.raises(Invalid):
        journal.open_reader(None, after=1, series=None)
    with pytest.raises(Invalid):
        journal.open_reader("No", after=None, series=None)
    journal.open_reader(None, after=0, series=None)
