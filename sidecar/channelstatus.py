"""How a channel is doing: what an operator wants to know."""

from __future__ import annotations

from sidecar.protocol.channel import ChannelProtocol
from sidecar.protocol.record import Record, record
from sidecar.tokens import Token


@record
class ChannelStatus(Record):
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
    handovers: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    unacked: int


def status_of(protocol: ChannelProtocol, token: Token | None) -> ChannelStatus:
    """`token` is the one that was dialled with last."""
    counters, failure = protocol.counters, protocol.failure
    return ChannelStatus(
        state=str(protocol.state),
        reason=None if failure is None else failure.reason,
        message=None if failure is None else str(failure),
        connection_id=protocol.connection_id,
        attempts=protocol.attempts,
        connected_since=protocol.connected_since,
        token_expires_at=None if token is None else token.expires_at,
        round_trip=counters.round_trip,
        recoveries=counters.recoveries,
        handovers=counters.handovers,
        reconnects=max(0, counters.connections - 1),
        messages_in=counters.messages_in,
        messages_out=counters.messages_out,
        bytes_in=counters.bytes_in,
        bytes_out=counters.bytes_out,
        unacked=protocol.unacked,
    )
