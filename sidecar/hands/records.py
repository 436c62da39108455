"""What a tool of hands writes into its pipe, record by record. No I/O in here.

A record is a frame as in `apart.wire`: 4 bytes, big endian, how long the rest is; the rest is one
CBOR value. Hands may be hostile, so a record has a bound, and what it says is checked by whoever
reads it: a record that is too long or no CBOR is a `ProtocolError`, and nothing after it counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sidecar.errors import ProtocolError
from sidecar.protocol.envelope import dumps, loads

HEADER_BYTES = 4
RECORD_BYTES = 128 * 1024


def framed(value: Any) -> bytes:
    """A record as it is written."""
    content = dumps(value)
    return len(content).to_bytes(HEADER_BYTES, "big") + content


class Records:
    """Bytes in, records out."""

    def __init__(self, *, limit: int = RECORD_BYTES) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def receive(self, data: bytes) -> Iterator[Any]:
        """The records that are complete with `data`. Raises `ProtocolError`."""
        self._buffer += data
        while len(self._buffer) >= HEADER_BYTES:
            size = int.from_bytes(self._buffer[:HEADER_BYTES], "big")
            if not 0 < size <= self._limit:
                raise ProtocolError(f"a record of {size} bytes, 1 to {self._limit} expected")
            end = HEADER_BYTES + size
            if len(self._buffer) < end:
                return
            content = bytes(self._buffer[HEADER_BYTES:end])
            del self._buffer[:end]
            yield loads(content)

    def check_end(self) -> None:
        """Raises `ProtocolError` if the pipe ended within a record."""
        if self._buffer:
            raise ProtocolError(f"the last record ended after {len(self._buffer)} bytes")
