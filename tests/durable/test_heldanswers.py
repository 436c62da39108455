"""Answers on their way to the disk."""

from __future__ import annotations

from sidecar.durable.heldanswers import HeldAnswers

ONE, TWO, THREE = b"1" * 16, b"2" * 16, b"3" * 16


def test_an_answer_is_held_until_its_own_record_is_written() -> None:
    held = HeldAnswers()
    held.hold(ONE, b"answer", ticket=7)
    held.let_go(ONE, 6)  # what was appended before, of the same call
    assert held.get(ONE) == b"answer"
    held.let_go(ONE, 7)
    assert held.get(ONE) is None
    held.let_go(ONE, 8)


def test_the_oldest_go_first_when_the_disk_is_away_for_long() -> None:
    held = HeldAnswers(max_bytes=10)
    held.hold(ONE, b"12345", ticket=1)
    held.hold(TWO, b"12345", ticket=2)
    held.hold(ONE, b"123", ticket=3)
    held.hold(THREE, b"1234", ticket=4)
    assert (held.get(ONE), held.get(TWO), held.get(THREE)) == (b"123", None, b"1234")
