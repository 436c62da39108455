"""How far a log is."""

from __future__ import annotations

from typing import NamedTuple


class Upto(NamedTuple):
    """A ticket (the count of records since the log was opened), and the latest number that the
    owner gave up to there."""

    ticket: int = 0
    number: int = 0


class Progress:
    """From `appended` down, each is at most the one before it."""

    def __init__(self) -> None:
        self.appended = Upto()
        self.promised = Upto()  # said to be safe: written, or written before the mark is cleared
        self.written = Upto()
        self.synced = Upto()

    def append(self, number: int) -> int:
        """The ticket of one more record."""
        self.appended = Upto(self.appended.ticket + 1, number or self.appended.number)
        return self.appended.ticket

    def number_on(self, number: int) -> None:
        """The latest number is this, and it is as safe as can be."""
        self.appended = self.appended._replace(number=number)
        self.promised = self.promised._replace(number=number)
        self.written = self.written._replace(number=number)
        self.synced = self.synced._replace(number=number)
