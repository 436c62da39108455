"""Answers that are not written yet: kept in memory until they are, within a bound."""

from __future__ import annotations

from collections import OrderedDict

from sidecar.protocol.limits import MEMORY_ANSWERS_BYTES


class HeldAnswers:
    """By call id. A disk that fails for long costs the oldest of them."""

    def __init__(self, *, max_bytes: int = MEMORY_ANSWERS_BYTES) -> None:
        self._max_bytes = max_bytes
        self._answers: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()
        self._bytes = 0

    def hold(self, call_id: bytes, answer: bytes, ticket: int) -> None:
        """Until `let_go` of this ticket or a later one."""
        self._forget(call_id)
        self._answers[call_id] = (answer, ticket)
        self._bytes += len(answer)
        while self._bytes > self._max_bytes:
            self._forget(next(iter(self._answers)))

    def get(self, call_id: bytes) -> bytes | None:
        held = self._answers.get(call_id)
        return None if held is None else held[0]

    def let_go(self, call_id: bytes, ticket: int) -> None:
        """What was appended with `ticket` is written."""
        held = self._answers.get(call_id)
        if held is not None and held[1] <= ticket:
            self._forget(call_id)

    def _forget(self, call_id: bytes) -> None:
        answer, _ = self._answers.pop(call_id, (b"", 0))
        self._bytes -= len(answer)
