"""Pipes of forgotten programs that somebody still prints into.

They are read and nothing is kept, so that what a program left behind does not die of SIGPIPE.
"""

from __future__ import annotations

from sidecar.pipes import PipeReader
from sidecar.protocol.limits import DRAINED_PIPES


class Drains:
    """Readers that discard."""

    def __init__(self) -> None:
        self._readers: list[PipeReader] = []  # oldest first

    def __len__(self) -> int:
        return len(self._readers)

    def add(self, reader: PipeReader) -> None:
        """Keep it while its pipe is open; over the limit, the oldest is closed."""
        self._readers = [one for one in self._readers if not one.is_finished]
        self._readers.append(reader)
        if len(self._readers) > DRAINED_PIPES:
            self._readers.pop(0).stop()

    def close(self) -> None:
        for reader in self._readers:
            reader.stop()
        self._readers.clear()
