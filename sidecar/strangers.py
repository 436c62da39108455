"""What has no known sender: dropped and counted, and answered as often as does no harm.

Whoever may send to the run can send what is broken, belongs to no attachment, or asks to attach
for ever. A `hello` makes every controller attach anew, and an answer to `attach` goes before
everything else; so both have a rate, and it is each scope's own: who may only watch neither
sets everybody in motion every second nor takes the answers from who may act. The log gets a
line as often as there may be a hello for those who act; the counts say the rest.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from sidecar.protocol.limits import ATTACH_ANSWERS, ATTACH_BURST
from sidecar.protocol.names import Scope
from sidecar.protocol.ratelimit import RateLimit, TokenBucket

log = logging.getLogger(__name__)

HELLO_EVERY = {Scope.FULL: 1.0, Scope.WATCH: 30.0}  # seconds from one hello to the next
LOG_EVERY = 1.0  # seconds

_ANSWERS = RateLimit(messages=ATTACH_ANSWERS, burst_messages=ATTACH_BURST)


class Strangers:
    """Counts and bounds; `hello` says it to everybody."""

    def __init__(self, hello: Callable[[], None], *, now: float) -> None:
        self.dropped: Counter[str] = Counter()
        self._hello = hello
        self._said_hello = float("-inf")
        self._logged = float("-inf")
        self._answers = {scope: TokenBucket(_ANSWERS, now=now) for scope in Scope}

    def drop(self, why: str, what: str, scope: Scope, *, now: float) -> None:
        """A message of unknown sender that came through the group of `scope`."""
        self.dropped[why] += 1
        if now - self._logged >= LOG_EVERY:
            self._logged = now
            log.warning("dropped %s (%d so far)", what, self.dropped.total())
        if now - self._said_hello >= HELLO_EVERY[scope]:
            self.say_hello(now=now)

    def say_hello(self, *, now: float) -> None:
        """Whatever the rate: the connection is new."""
        self._said_hello = now
        self._hello()

    def may_answer(self, scope: Scope, *, now: float) -> bool:
        """Whether an `attach` through the group of `scope` is answered now. If not, whoever
        asked repeats it, as after any loss."""
        bucket = self._answers[scope]
        if not bucket.is_ready(now=now):
            self.dropped["attach"] += 1
            return False
        bucket.take(0, now=now)
        return True
