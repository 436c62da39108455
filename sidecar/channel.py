"""The lasting path to the hub, over many connections: the I/O around `protocol.channel`.

The channel *pulls*: it asks its `Source` for the next publish only when the socket's buffer is
low, because whatever lies in that buffer sits in front of a keystroke (late binding).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sidecar.errors import ChannelError
from sidecar.protocol.publish import Outcome, Publish
from sidecar.protocol.webpubsub.frames import Message

__all__ = ["ChannelStatus", "Outcome", "Publish", "Receiver", "Source"]


class Source(Protocol):
    """What feeds the channel."""

    def next_publish(self, *, now: float, urgent_only: bool) -> Publish | None:
        """The publish that goes next, or None if nothing is ready.

        With `urgent_only` the bounds leave room for control and keystrokes only. After None,
        the source calls `Channel.wake` once it has something.
        """
        ...


class Receiver(Protocol):
    """What the channel tells. Called in the event loop: quick, and never raising."""

    def channel_opened(self, *, fresh: bool, now: float) -> None:
        """Messages flow. `fresh`: a new connection; what was unacknowledged came back as LOST.
        Else the same connection, taken up again, and nothing was lost."""
        ...

    def channel_message(self, message: Message, *, now: float) -> None:
        """A message, each once and in order within one connection."""
        ...

    def channel_down(self, error: ChannelError, *, now: float) -> None:
        """The channel ended, or stays down for another reason than it was told before."""
        ...


@dataclass(frozen=True, slots=True)
class ChannelStatus:
    """What an operator wants to know. Times: `connected_since` is on the channel's clock,
    `token_expires_at` in seconds since the epoch, `round_trip` in seconds."""

    state: str
    reason: str | None  # of the last failure: a `ChannelError.reason`
    message: str | None  # its sentence
    connection_id: str | None
    attempts: int  # since the channel was last open
    connected_since: float | None
    token_expires_at: float | None
    round_trip: float | None
    recoveries: int
    reconnects: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    unacked: int
