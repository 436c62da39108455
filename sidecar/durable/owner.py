"""What a log asks of the one it belongs to."""

from __future__ import annotations

from typing import Protocol

from sidecar.durable.recovery import Recovered
from sidecar.protocol.segments import Heading


class LogOwner(Protocol):
    """Always asked in the event loop."""

    def log_recovered(self, recovered: Recovered) -> None:
        """The frames of the folder were given to `on_frames`, in a thread. The log's series is
        known; nothing may be appended yet."""
        ...

    def heading(self) -> Heading:
        """The facts for the head of a segment that begins before the next record."""
        ...

    def prologue(self) -> None:
        """Append what every segment begins with, so that older ones can go. Little."""
        ...

    def refill(self) -> bool | None:
        """Append everything that the disk may lack: it begins anew, or was away. It lies in new
        segments. True: this was a part, ask again when it is written."""
        ...

    def log_changed(self) -> None:
        """How far the log is, its fault, or its series changed."""
        ...
