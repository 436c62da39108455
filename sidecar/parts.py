"""The parts of a running sidecar, and what they tell together."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from sidecar import __version__
from sidecar.channel import Channel
from sidecar.clock import Clock
from sidecar.ending import Ending
from sidecar.errors import CallError
from sidecar.exchange import Exchange
from sidecar.journal import Journal
from sidecar.protocol import envelope as wire
from sidecar.protocol.ids import show
from sidecar.settings import Settings
from sidecar.statefile import Noted, State, StateFile, timestamp
from sidecar.tokens.switch import SwitchProvider

if TYPE_CHECKING:
    from sidecar.context import Means
    from sidecar.dispatch import Dispatcher
    from sidecar.egress import Egress
    from sidecar.processes.store import ProgramStore
    from sidecar.uploadnotes import UploadNotes


@dataclass(slots=True, repr=False)
class Parts:
    """First what says hello; the rest is there once `serving` has been loaded and has opened the
    state. Nothing is emitted before."""

    settings: Settings
    folder: Path  # the state folder
    exchange: Exchange
    channel: Channel
    tokens: SwitchProvider
    incarnation: bytes
    started: float
    clock: Clock
    before: Noted | None = None  # what the sidecar before us left in the state folder
    state: StateFile = field(init=False)
    ending: Ending = field(init=False)
    refusal: CallError | None = None  # what new calls are answered, if none is taken
    opened: anyio.Event = field(default_factory=anyio.Event)  # there is a journal
    journal: Journal = field(init=False)
    programs: ProgramStore = field(init=False)
    egress: Egress = field(init=False)
    uploads: UploadNotes = field(init=False)
    means: Means = field(init=False)
    dispatcher: Dispatcher = field(init=False)

    def __post_init__(self) -> None:
        self.ending = Ending(self.clock)
        starting = Noted(
            run=self.settings.run,
            incarnation=show(self.incarnation),
            generation=self.exchange.identity.generation,
            pid=os.getpid(),
            state=State.STARTING,
            since=timestamp(self.clock),
        )
        self.state = StateFile(
            self.folder, starting, clock=self.clock, facts=lambda: _noted_facts(self)
        )

    @property
    def has_state(self) -> bool:
        """Whether the state has been opened: from then on events may be emitted."""
        return self.opened.is_set()

    @property
    def is_serving(self) -> bool:
        """Whether calls are taken."""
        return hasattr(self, "dispatcher")

    def refuse(self, error: CallError | None) -> None:
        """Answer new calls with `error` from now on; None: take them again."""
        self.refusal = error
        if self.is_serving:
            self.dispatcher.refuse_new(error)

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
        "generation": parts.exchange.identity.generation,
        "state": parts.state.state,
        "why": parts.state.noted.why,
        "uptime": parts.clock.now() - parts.started,
        "form": parts.means.hands.form,
        "trust": parts.means.hands.trust,
        "hands": dict(parts.means.hands.status()),
        "channel": asdict(parts.channel.status()),
        "token": asdict(parts.tokens.status()),
        "attached": parts.exchange.attached,
        "readers": parts.exchange.readers,
        "calls": {"open": parts.dispatcher.open_calls, **parts.dispatcher.counts},
        "events": {
            "first": parts.journal.first,
            "last": parts.journal.last,
            "written": parts.journal.written,
            "synced": parts.journal.synced,
            "acked": parts.journal.acked,
            "durable": parts.journal.durable,
            "degraded": parts.journal.degraded,
        },
        "receipts": {"durable": parts.dispatcher.durable},
        "egress": parts.egress.facts(),
        "dropped": dict(parts.exchange.dropped),
    }


def progress(parts: Parts) -> dict[str, int]:
    """What an end would wait for now: calls without an answer, events that durable readers have
    not acked, messages that the hub has not."""
    acked = parts.journal.acked if parts.has_state else None
    return {
        "calls": parts.dispatcher.open_calls if parts.is_serving else 0,
        "events": 0 if acked is None else parts.journal.last - acked,
        "messages": parts.channel.status().unacked,
    }


def _noted_facts(parts: Parts) -> dict[str, Any]:
    """What `state.json` tells beside the state."""
    events = None
    if parts.has_state:
        events = {
            "series": show(parts.journal.series),
            "last": parts.journal.last,
            "written": parts.journal.written,
            "acked": parts.journal.acked,
        }
    return {"generation": parts.exchange.identity.generation, "events": events}


def health_of(parts: Parts) -> dict[str, Any]:
    """`facts` as JSON can carry them, and whether all is well."""
    found = facts(parts)
    channel = found["channel"]
    return {
        **found,
        "healthy": channel["state"] == "open" and parts.state.state is not State.SUPERSEDED,
        "waits_for": progress(parts),
        "incarnation": show(parts.incarnation),
        "pid": os.getpid(),
    }
