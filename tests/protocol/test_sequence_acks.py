from __future__ import annotations

from sidecar.protocol.sequence_acks import SequenceAcks


def test_an_ack_is_due_100_ms_after_the_first_message() -> None:
    acks = SequenceAcks()
    assert acks.receive(1, 10, now=5.0)
    assert acks.receive(2, 10, now=5.09)
    assert acks.next_deadline() == 5.1
    acks.handle_deadline(now=5.1)
    assert acks.is_due
    assert acks.take() == 2
    assert acks.next_deadline() is None


def test_an_ack_is_due_after_64_messages() -> None:
    acks = SequenceAcks()
    for number in range(1, 64):
        acks.receive(number, 10, now=0.0)
    assert not acks.is_due
    acks.receive(64, 10, now=0.0)
    assert acks.is_due


def test_an_ack_is_due_after_one_mebibyte() -> None:
    acks = SequenceAcks()
    acks.receive(1, 1024 * 1024 - 1, now=0.0)
    assert not acks.is_due
    acks.receive(2, 1, now=0.0)
    assert acks.is_due


def test_a_repetition_is_not_new_but_acknowledged_again() -> None:
    acks = SequenceAcks()
    acks.receive(7, 10, now=0.0)
    acks.take()
    assert not acks.receive(7, 10, now=1.0)
    assert not acks.receive(6, 10, now=1.0)
    acks.handle_deadline(now=1.1)
    assert acks.take() == 7


def test_nothing_is_restated_before_anything_arrived() -> None:
    acks = SequenceAcks()
    acks.restate()
    assert not acks.is_due
    acks.receive(3, 10, now=0.0)
    acks.take()
    acks.restate()
    assert acks.is_due
    assert acks.take() == 3
