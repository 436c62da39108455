"""The task tree of `sidecar run`.

It reads top to bottom as the story of the program: protect the process, take the state folder,
dial, say hello, load what serves calls and open the state (`serving`), and on SIGTERM drain and
end. What is not needed for `hello` is loaded after it.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio

from sidecar import __version__
from sidecar.allocator import tune_malloc
from sidecar.channel import Channel
from sidecar.clock import Clock, SystemClock
from sidecar.draining import drain, is_over
from sidecar.ending import EX_NOPERM, EX_SOFTWARE, Teller
from sidecar.exchange import Exchange
from sidecar.hardening import protect_memory, raise_descriptor_limit
from sidecar.identity import new_id
from sidecar.parts import Parts
from sidecar.protocol.attach import Identity
from sidecar.protocol.ids import show
from sidecar.protocol.names import Subject
from sidecar.protocol.ratelimit import RateLimit
from sidecar.protocol.webpubsub import codec_for
from sidecar.protocol.webpubsub.frames import JSON_SUBPROTOCOL, PROTOBUF_SUBPROTOCOL
from sidecar.settings import Settings
from sidecar.standing import Standing
from sidecar.startup import warn_of_problems
from sidecar.statefile import NAME, Noted, State, read
from sidecar.statefolder import StateUnusable, state_folder
from sidecar.threads import in_thread
from sidecar.tokens.forms import url_for_log
from sidecar.tokens.hooks import TokenHooks
from sidecar.tokensource import token_source

log = logging.getLogger(__name__)

HELLO_FIRST = 1.0  # seconds until we load the rest without it: health tells why there is none
OVER = "run %s was ended by %s on %s: nothing to do; remove %s to serve it again"


async def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. Raises `StateUnusable`, `StateLocked`."""
    tune_malloc()
    protect_memory()
    raise_descriptor_limit()
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(state_folder(settings.state_folder))
        before = await in_thread(read, folder, settings.run)
        if before is not None and is_over(before):
            log.warning(OVER, settings.run, before.told_by, before.since, folder / NAME)
            return 0
        await in_thread(warn_of_problems, settings)
        parts = assemble(settings, folder, SystemClock(), before)
        try:
            return await _serve_until_told(parts, stack)
        except ExceptionGroup as group:
            reason = _reason(group)
            await _note_failure(parts, reason)
            raise reason from None


def _reason(group: ExceptionGroup) -> Exception:
    """The one sentence about the state, if that is why all tasks ended; else all that failed."""
    found: Exception | None = group.subgroup(StateUnusable)
    while isinstance(found, ExceptionGroup):
        found = found.exceptions[0]
    return found or group


async def _note_failure(parts: Parts, reason: Exception) -> None:
    """For who finds no process any more, and no log."""
    if isinstance(reason, StateUnusable):
        await parts.state.move(State.STOPPED, str(reason), exit_status=EX_NOPERM)
    else:
        why = "a defect ended the sidecar, its log says which"
        await parts.state.move(State.STOPPED, why, exit_status=EX_SOFTWARE)


def assemble(settings: Settings, folder: Path, clock: Clock, before: Noted | None = None) -> Parts:
    """What says hello, connected; nothing runs yet."""
    incarnation = new_id(clock)
    form, trust = ("socket", "unknown") if settings.hands else ("in-process", "shared")
    identity = Identity(Subject(settings.run), incarnation, settings.generation, form, trust)
    exchange = Exchange(identity, clock)
    hooks = TokenHooks(generation=partial(_count_start, exchange))
    tokens = token_source(settings, folder, clock, incarnation=show(incarnation), hooks=hooks)
    channel = Channel(
        provider=tokens,
        codec=codec_for(
            PROTOBUF_SUBPROTOCOL if settings.subprotocol == "protobuf" else JSON_SUBPROTOCOL
        ),
        source=exchange,
        receiver=exchange,
        clock=clock,
        rate=RateLimit(),
        handover=settings.handover,
    )
    exchange.connect(channel.wake)
    hooks.switched = channel.hand_over
    now = clock.now()
    return Parts(settings, folder, exchange, channel, tokens, incarnation, now, clock, before)


def _count_start(exchange: Exchange, generation: int) -> None:
    """The platform has counted this start: it is in every hello from now on."""
    exchange.identity = replace(exchange.identity, generation=generation)


async def _serve_until_told(parts: Parts, stack: AsyncExitStack) -> int:
    exit_status = 0
    async with anyio.create_task_group() as group:
        group.start_soon(_listen_for_signals, parts)
        group.start_soon(parts.state.save)
        group.start_soon(connect, parts)
        group.start_soon(_serve, parts, stack)
        await parts.ending.told()
        exit_status = await drain(parts)
        group.cancel_scope.cancel()
    return exit_status


async def connect(parts: Parts) -> None:
    """Dial, say hello, keep the channel: until cancelled."""
    async with anyio.create_task_group() as group:
        group.start_soon(Standing(parts).run)
        group.start_soon(parts.exchange.run)
        group.start_soon(parts.tokens.run)
        group.start_soon(parts.channel.run)


async def _serve(parts: Parts, stack: AsyncExitStack) -> None:
    with anyio.move_on_after(HELLO_FIRST):
        await parts.exchange.first_hello.wait()
    _greet(parts)
    serve = await in_thread(_load_serving)
    await serve(parts, stack)


def _greet(parts: Parts) -> None:
    """Who we are: after what is wrong, if anything is, which whoever looks shall see first."""
    channel = parts.channel.status()
    if channel.state != "open" and channel.reason is None:
        log.warning(
            "no answer yet from %s: is egress to it allowed, or is a proxy needed (https_proxy)?",
            url_for_log(parts.settings.endpoint or parts.settings.hub) or "the hub",
        )
    log.info(
        "sidecar %s for run %s, incarnation %s, %s %s",
        __version__,
        parts.settings.run,
        show(parts.incarnation),
        "hands at" if parts.settings.hands else "workspace",
        parts.settings.hands or parts.settings.workspace,
    )


def _load_serving() -> Callable[[Parts, AsyncExitStack], Awaitable[None]]:
    from sidecar.serving import serve

    return serve


async def _listen_for_signals(parts: Parts) -> None:
    """The first one is an order, a second one kills."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("%s", number.name)
            parts.ending.tell(Teller.SIGNAL, timeout=parts.settings.drain)
            break
        async for number in signals:
            log.warning("%s again: ending at once", number.name)
            _die(number)


def _die(number: signal.Signals) -> None:
    """Of a signal, as who waits for us expects it. PID 1 does not die of any that it sends itself
    (kill(2), NOTES): it says by its exit status that it would have."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)
