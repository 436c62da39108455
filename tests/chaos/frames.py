"""Where WebSocket messages begin in a stream of bytes (RFC 6455 §5.2), after the HTTP upgrade."""

from __future__ import annotations

_LONG, _LONGER = 126, 127  # lengths that say: see the next 2, 8 bytes


class FrameCounter:
    """One direction of one connection."""

    def __init__(self) -> None:
        self._head = bytearray()  # of the HTTP message, then of the frame that has begun
        self._is_upgraded = False
        self._left = 0  # bytes of the frame's body that are still to come

    def scan(self, data: bytes) -> list[int]:
        """Feed what follows; the places in it at which a frame begins."""
        starts = []
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            if self._is_upgraded and not self._head:
                starts.append(at)
            self._head.append(data[at])
            at += 1
            self._look_at_head()
        return starts

    def _look_at_head(self) -> None:
        head = self._head
        if not self._is_upgraded:
            if head.endswith(b"\r\n\r\n"):
                self._is_upgraded = True
                head.clear()
            return
        if len(head) < 2:
            return
        length = head[1] & 0x7F
        extra = {_LONG: 2, _LONGER: 8}.get(length, 0)
        if len(head) < 2 + extra:
            return
        if extra:
            length = int.from_bytes(head[2 : 2 + extra])
        self._left = length + (4 if head[1] & 0x80 else 0)
        head.clear()
