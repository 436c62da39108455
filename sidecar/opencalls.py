"""The calls that have not ended, and who has room for how many.

Ids are no secret, because they stand in events. So who may only watch neither stops nor takes
over the call of somebody who may act; and watchers get half of the places at most, and bring no
streams, for no command that only reads takes any.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import anyio

from sidecar.context import CallContext
from sidecar.errors import LimitExceeded, Started
from sidecar.protocol import envelope as wire
from sidecar.protocol import limits
from sidecar.protocol.attach import Origin
from sidecar.protocol.names import Scope


@dataclass(slots=True, eq=False)
class OpenCall:
    """A call that has not ended, or whose streams have not been received to their ends."""

    context: CallContext
    digest: bytes
    origin: Origin
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    started: Started = Started.NO
    is_new: bool = False  # its receipt was begun by this very call, which ends it
    is_written: bool = False  # that receipt is on record
    admitted: bool = False  # the command and its arguments are right
    accepted: bool = False  # the caller has been told
    only_reads: bool = False
    result: wire.Result | None = None
    note: bytes | None = None  # what its resumer is given after a restart
    has_resumer: bool = False
    was_asked: bool = False  # by somebody who is still to be told its state
    lonely_since: float | None = None

    def __post_init__(self) -> None:
        self.context.ends.append(self.scope)

    def may_be_touched(self, origin: Origin) -> bool:
        """Whether `origin` may ask about it, stop it or move it."""
        return origin.scope is Scope.FULL or self.context.scope is Scope.WATCH

    @property
    def is_busy(self) -> bool:
        """Whether it has no answer yet, or somebody is there who receives its streams."""
        return self.result is None or self.context.caller is not None

    @property
    def may_be_left(self) -> bool:
        """Whether this process may end before the call does, and the next one goes on with it:
        by its note, or from the beginning if it only looks."""
        return (self.has_resumer and self.note is not None) or (
            self.only_reads and self.result is None
        )

    @property
    def may_be_given_up(self) -> bool:
        """Whether nothing is lost with it if nobody is there: it has ended, or only looks."""
        return self.result is not None or self.only_reads

    def state(self) -> wire.State:
        """What is told to who asks while it goes on: how far it is, and what we received."""
        received = {n: r.stream.received for n, r in self.context.receivers.items()}
        word = "accepted" if self.started is Started.NO else "started"
        return wire.State(self.context.id, word, received)

    def stream_ends(self) -> dict[int, list[Any]]:
        """Of each stream: where it ends and its digest. Without a digest it still goes on, and
        the offset is only where it is."""
        return {
            n: [s.stream.high, None] if s.final is None or s.sha256 is None else [s.final, s.sha256]
            for n, s in self.context.senders.items()
            if s.error is None
        }


class OpenCalls(dict[bytes, OpenCall]):
    """All of them, by id."""

    def check_call(self, call: wire.Call, scope: Scope) -> None:
        """Raises `LimitExceeded` unless there is room for `call`."""
        if len(call.arguments) > limits.ARGUMENTS_BYTES:
            size, limit = len(call.arguments), limits.ARGUMENTS_BYTES
            raise LimitExceeded("bytes of arguments", size=size, limit=limit)
        _check("open calls", len(self), limits.OPEN_CALLS)
        if scope is Scope.WATCH:
            watching = sum(1 for x in self.values() if x.context.scope is Scope.WATCH)
            _check("watch-only open calls", watching, limits.OPEN_CALLS // limits.WATCH_PART)

    def check_stream(self, call: OpenCall) -> None:
        """Raises `LimitExceeded` unless `call` may be sent one more stream."""
        of_call = 0 if call.context.scope is Scope.WATCH else limits.CALL_STREAMS
        _check("streams to this call", len(call.context.receivers), of_call)
        _check("streams", sum(len(x.context.receivers) for x in self.values()), limits.STREAMS)


def _check(what: str, count: int, limit: int) -> None:
    if count >= limit:
        raise LimitExceeded(what, size=count + 1, limit=limit)
