"""The parts of a running sidecar, and what they tell together."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar import __version__
from sidecar.channel import Channel
from sidecar.clock import Clock
from sidecar.exchange import Exchange
from sidecar.journal import Journal
from sidecar.protocol import envelope as wire
from sidecar.protocol.ids import show
from sidecar.settings import Settings

if TYPE_CHECKING:
    from sidecar.context import Means
    from sidecar.dispatch import Dispatcher


@dataclass(slots=True)
class Parts:
    """First what says hello; the rest is there once `serving` has been loaded and has opened the
    state. Nothing is emitted before."""

    settings: Settings
    folder: Path  # the state folder
    exchange: Exchange
    channel: Channel
    incarnation: bytes
    started: float
    clock: Clock
    journal: Journal = field(init=False)
    means: Means = field(init=False)
    dispatcher: Dispatcher = field(init=False)

    @property
    def has_state(self) -> bool:
        """Whether the state has been opened: from then on events may be emitted."""
        return hasattr(self, "journal")

    def emit(self, name: str, data: Any, *, call: bytes | None = None) -> int:
        """Append an event to the journal; its sequence number."""
        time_ms = int(self.clock.wall() * 1000)
        return self.journal.append(
            lambda seq: wire.encode(wire.Event(seq, time_ms, name, call, data))
        )


def facts(parts: Parts) -> dict[str, Any]:
    """What `sidecar.info` answers, without the capabilities of hands."""
    return {
        "version": __version__,
        "run": parts.settings.run,
        "incarnation": parts.incarnation,
        "generation": parts.settings.generation,
        "uptime": parts.clock.now() - parts.started,
        "form": parts.means.hands.form,
        "trust": parts.means.hands.trust,
        "hands": dict(parts.means.hands.status()),
        "channel": asdict(parts.channel.status()),
        "attached": parts.exchange.attached,
        "readers": parts.exchange.readers,
        "calls": {"open": parts.dispatcher.open_calls, **parts.dispatcher.counts},
        "events": {
            "first": parts.journal.first,
            "last": parts.journal.last,
            "durable": parts.journal.durable,
        },
        "dropped": dict(parts.exchange.dropped),
    }


def health_of(parts: Parts) -> dict[str, Any]:
    """`facts` as JSON can carry them, and whether all is well."""
    found = facts(parts)
    channel = found["channel"]
    return {
        **found,
        "healthy": channel["state"] == "open",
        "incarnation": show(parts.incarnation),
        "pid": os.getpid(),
    }
