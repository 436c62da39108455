"""The words that `protocol.channel` and its shell exchange: states, actions, events, times."""

from __future__ import annotations

from enum import StrEnum

from sidecar.errors import ChannelError
from sidecar.protocol.liveness import DEAD_AFTER, PING_AFTER
from sidecar.protocol.publish import Settled
from sidecar.protocol.record import Record, record
from sidecar.protocol.webpubsub.frames import Message


class State(StrEnum):
    STOPPED = "stopped"  # never started
    CONNECTING = "connecting"  # dialling, or waiting for `connected`
    OPEN = "open"  # messages flow
    RECOVERING = "recovering"  # trying to take the dropped connection up again
    WAITING = "waiting"  # before the next dial
    CLOSED = "closed"  # for ever


@record
class Timing(Record):
    """All in seconds. The defaults are the product's; tests shorten them."""

    first_frame: float = 10.0  # from the upgrade until the service must have said something
    ping_after: float = PING_AFTER
    dead_after: float = DEAD_AFTER
    recovery_window: float = 30.0  # the service keeps a dropped connection that long (1.4)
    attempt: float = 10.0  # one dial
    stable_after: float = 10.0  # a link that held so long was a good one
    backoff_first: float = 0.25
    backoff_longest: float = 5.0
    refused_first: float = 1.0  # a refused token seldom becomes good by itself
    refused_longest: float = 60.0


# Actions: what the shell does ------------------------------------------------------------


@record
class Dial(Record):
    """Ask for a token and open a new connection, within `timeout` seconds."""

    timeout: float


@record
class Recover(Record):
    """Take the connection up again, within `timeout` seconds; this needs no access token."""

    connection_id: str
    reconnection_token: str
    timeout: float

    def __repr__(self) -> str:
        return f"Recover({self.connection_id!r}, timeout={self.timeout!r})"


Action = Dial | Recover


# Events: what the shell passes on -------------------------------------------------------


@record
class Opened(Record):
    """Messages flow. Not `fresh`: the connection was recovered and nothing is lost."""

    fresh: bool


@record
class Received(Record):
    message: Message


@record
class Down(Record):
    """The channel went down, or stays down for another reason than the one told before: another
    kind, or a dial that failed otherwise."""

    error: ChannelError


Event = Opened | Received | Down | Settled
