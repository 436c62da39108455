"""The task tree of `sidecar run`.

It reads top to bottom as the story of the program: protect the process, take the state folder,
open the workspace, dial, say hello, load the catalogue, serve, and on SIGTERM drain and end.
What is not needed for `hello` is loaded after it.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import anyio

from sidecar import __version__
from sidecar.allocator import tune_malloc
from sidecar.channel import Channel
from sidecar.clock import Clock, SystemClock
from sidecar.context import Means
from sidecar.dispatch import Dispatcher
from sidecar.exchange import Exchange, Identity
from sidecar.hands.local import LocalHands
from sidecar.hardening import protect_memory
from sidecar.identity import new_id
from sidecar.journal import MemoryJournal
from sidecar.localsocket import LocalSocket
from sidecar.policy import Policy
from sidecar.protocol import envelope as wire
from sidecar.protocol.ids import show
from sidecar.protocol.names import Subject
from sidecar.protocol.ratelimit import RateLimit
from sidecar.protocol.webpubsub import codec_for
from sidecar.protocol.webpubsub.frames import JSON_SUBPROTOCOL, PROTOBUF_SUBPROTOCOL
from sidecar.reaper import reap_strangers
from sidecar.receipts import MemoryReceipts
from sidecar.settings import Settings
from sidecar.spool import SpoolBudget
from sidecar.statefolder import state_folder
from sidecar.tokens import FixedToken, TokenFile, TokenProvider, parse_token

log = logging.getLogger(__name__)

EX_UNAVAILABLE = 69  # sysexits.h: the channel never came up, what was left is lost
FAREWELL = 1.0  # seconds for the last events to be handed to those who read them now
EX_TEMPFAIL = 75  # something was left over when the drain ended


@dataclass(slots=True)
class Parts:
    """A running sidecar, for whoever looks into it."""

    settings: Settings
    means: Means
    exchange: Exchange
    dispatcher: Dispatcher
    channel: Channel
    journal: MemoryJournal
    incarnation: bytes
    started: float
    clock: Clock


async def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. Raises `StateUnusable`, `StateLocked`."""
    tune_malloc()
    protect_memory()
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(state_folder(settings.state_folder))
        environment: Literal["clean", "inherited"] = (
            "inherited" if settings.environment == "inherited" else "clean"
        )
        hands = await stack.enter_async_context(
            LocalHands.open_root(settings.workspace, environment=environment)
        )
        parts = assemble(settings, hands, folder, SystemClock())
        return await _serve_until_told(parts, hands, folder)


def assemble(settings: Settings, hands: LocalHands, folder: Path, clock: Clock) -> Parts:
    """Every part of a sidecar, connected; nothing runs yet."""
    incarnation = new_id(clock)
    identity = Identity(
        Subject(settings.run), incarnation, settings.generation, hands.form, trust="shared"
    )
    journal = MemoryJournal(new_id(clock))
    exchange = Exchange(identity, journal, clock)

    def emit(name: str, data: Any, *, call: bytes | None = None) -> int:
        time_ms = int(clock.wall() * 1000)
        return journal.append(lambda seq: wire.encode(wire.Event(seq, time_ms, name, call, data)))

    means = Means(
        hands=hands,
        clock=clock,
        policy=Policy(),
        emit=emit,
        wake=exchange.wake,
        wake_soon=exchange.wake_soon,
        state_folder=folder,
        spools=SpoolBudget(),
        facts=lambda: facts(parts),
    )
    dispatcher = Dispatcher(
        means,
        MemoryReceipts(),
        incarnation=incarnation,
        loose=exchange.loose,
        last_seq=lambda: journal.last,
    )
    channel = Channel(
        provider=token_provider(settings),
        codec=codec_for(
            PROTOBUF_SUBPROTOCOL if settings.subprotocol == "protobuf" else JSON_SUBPROTOCOL
        ),
        source=exchange,
        receiver=exchange,
        clock=clock,
        rate=RateLimit(),
    )
    exchange.connect(dispatcher, channel.wake)
    parts = Parts(
        settings, means, exchange, dispatcher, channel, journal, incarnation, clock.now(), clock
    )
    emit("sidecar.started", {"version": __version__, "incarnation": incarnation})
    return parts


def token_provider(settings: Settings) -> TokenProvider:
    """Where the token comes from: a file that is read at every dial, or the one given."""
    if settings.token_file:
        return TokenFile(
            Path(settings.token_file), settings.hub or None, allow_plain=settings.insecure
        )
    token = parse_token(settings.token, settings.hub or None, allow_plain=settings.insecure)
    return FixedToken(token.url, token.value, allow_plain=settings.insecure)


async def _serve_until_told(parts: Parts, hands: LocalHands, folder: Path) -> int:
    async def health(_: Mapping[str, Any]) -> Mapping[str, Any]:
        return health_of(parts)

    exit_status = 0
    async with anyio.create_task_group() as group:
        group.start_soon(serve, parts)
        group.start_soon(LocalSocket(folder / "admin.sock", {"health": health}, admin=True).run)
        group.start_soon(LocalSocket(folder / "agent.sock", {"health": health}).run)
        log.info(
            "sidecar %s for run %s, incarnation %s, workspace %s",
            __version__,
            parts.settings.run,
            show(parts.incarnation),
            parts.settings.workspace,
        )
        await _until_told_to_end(hands)
        exit_status = await _drain(parts)
        group.cancel_scope.cancel()
    return exit_status


async def serve(parts: Parts) -> None:
    """Dial, say hello, take calls: until cancelled."""
    async with anyio.create_task_group() as group:
        group.start_soon(parts.exchange.run)
        group.start_soon(parts.dispatcher.run)
        group.start_soon(parts.channel.run)
        group.start_soon(_load_catalogue, parts)


async def _load_catalogue(parts: Parts) -> None:
    """Only now, because it takes as long as all the rest of the start."""
    await parts.exchange.first_hello.wait()

    def load() -> Callable[[], dict[str, Any]]:
        from sidecar.catalogue import bound_commands

        return bound_commands

    bound_commands = await anyio.to_thread.run_sync(load)
    parts.dispatcher.install(bound_commands())


async def _until_told_to_end(hands: LocalHands) -> None:
    """SIGTERM or SIGINT. As PID 1, strangers are reaped meanwhile."""
    watched = [signal.SIGTERM, signal.SIGINT]
    if os.getpid() == 1:
        watched.append(signal.SIGCHLD)
    with anyio.open_signal_receiver(*watched) as signals:
        async for number in signals:
            if number != signal.SIGCHLD:
                log.info("%s: draining", number.name)
                return
            ours = {pid for _, pid in await hands.running()}
            await anyio.to_thread.run_sync(reap_strangers, ours.__contains__)


async def _drain(parts: Parts) -> int:
    """Flush, bounded: until the hub has acknowledged all, and durable readers have acked all.

    Without a durable reader nobody's ack is waited for; those who read now get a moment.
    """
    parts.journal.append(
        lambda seq: wire.encode(
            wire.Event(seq, int(parts.clock.wall() * 1000), "sidecar.draining", None, None)
        )
    )
    with anyio.move_on_after(parts.settings.drain):
        with anyio.move_on_after(FAREWELL):
            await parts.exchange.caught_up()
        await parts.journal.wait_acked(parts.journal.last)
        await parts.channel.flushed()
        return 0
    return EX_TEMPFAIL if parts.channel.status().connection_id else EX_UNAVAILABLE


def facts(parts: Parts) -> dict[str, Any]:
    """What `sidecar.info` answers, without the capabilities of hands."""
    return {
        "version": __version__,
        "run": parts.settings.run,
        "incarnation": parts.incarnation,
        "generation": parts.settings.generation,
        "uptime": parts.clock.now() - parts.started,
        "form": "in-process",
        "trust": "shared",
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
