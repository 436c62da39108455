"""Streams in motion: a `Sender` pumps a source into an outbox, a `Receiver` hands bytes over.

`protocol.streams` decides, these two do; platform and sidecar use the same pair. A sender is
bound to the outbox of whoever asked last and outlives connections and attachments: unbound,
it waits. What has to be sent again is read from the source again.

Sources, besides those of files and spools: `pushing` (bytes that somebody writes here) and
`toolsource` (what a tool of hands writes).

Digests are computed beside the bytes, in a thread (`sidecar.digest`).
"""

from __future__ import annotations

from sidecar.streaming.receiving import Receiver
from sidecar.streaming.sending import BytesSource, Sender, Source

__all__ = ["BytesSource", "Receiver", "Sender", "Source"]
