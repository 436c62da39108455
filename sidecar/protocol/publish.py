"""What is handed to the channel to be published, by whom, and what became of it.

Whoever hands over a `Publish` is told exactly once how it ended, by `settled`. LOST means that
the hub may or may not have had it: its connection ended before an acknowledgement came, and the
owner decides whether it is sent again (results, `accepted`) or rewound (readers, streams).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from sidecar.protocol.record import Record, record


class Outcome(StrEnum):
    """How a publish ended."""

    ACKED = "acked"  # the hub has it; that says nothing of the receivers
    LOST = "lost"  # nobody can know; the same bytes may be published again
    REFUSED = "refused"  # the hub will not take it, now or later


@record
class Publish(Record):
    """One message to a group.

    `ttl` is how long the hub may keep it for a receiver that is away, in seconds (at most 300);
    None is for ever. `urgent` messages (control, keystrokes) may overdraw the rate and pass when
    the bounds leave no room for bulk. `settled` is called in the event loop; it must be quick and
    must not raise.
    """

    group: str
    data: bytes
    ttl: int | None
    settled: Callable[[Outcome], None]
    urgent: bool


@record
class Settled(Record):
    """A publish ended; whoever passes this on calls `settled(outcome)`."""

    settled: Callable[[Outcome], None]
    outcome: Outcome


class Source(Protocol):
    """What feeds the channel."""

    def next_publish(self, *, now: float, urgent_only: bool) -> Publish | None:
        """The publish that goes next, or None if nothing is ready.

        With `urgent_only` the bounds leave room for control and keystrokes only. After None,
        the source calls `Channel.wake` once it has something.
        """
        ...
