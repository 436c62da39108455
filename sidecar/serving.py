"""The half of the task tree that is loaded after `hello`: state, hands, calls, local sockets.

Loading it takes a quarter of the start, and nobody can call before the hello is heard. It
reads top to bottom: open the state, open the workspace, take calls, load the catalogue, answer
locally, reap.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import anyio

from sidecar import __version__
from sidecar.context import Means
from sidecar.dispatch import Dispatcher
from sidecar.draining import resume_ending, tell_to_end
from sidecar.durable.journal import open_journal
from sidecar.durable.receipts import open_receipts
from sidecar.durable.recovery import boot_id
from sidecar.durable.writer import LogWriter
from sidecar.egress import Egress
from sidecar.egressfile import open_count
from sidecar.ending import Teller
from sidecar.hands.interface import Hands
from sidecar.identity import new_id
from sidecar.localsocket import LocalSocket
from sidecar.parts import Parts, facts, health_of
from sidecar.policy import EgressLimits, Policy
from sidecar.processes.store import ProgramStore
from sidecar.processes.table import Processes
from sidecar.receipts import Receipts
from sidecar.settings import LONGEST_DRAIN
from sidecar.statefile import State
from sidecar.threads import in_thread
from sidecar.uploadnotes import UploadNotes
from sidecar.uploads import Uploads

Opened = tuple[Hands, Callable[[], Coroutine[Any, Any, None]] | None]


async def serve(parts: Parts, stack: AsyncExitStack) -> None:
    """Until cancelled. State and hands are left to `stack`: they are closed when all tasks have
    ended, hands first. Raises `StateUnusable`."""
    receipts = await open_state(parts, stack)
    open_hands = await in_thread(_load_hands, bool(parts.settings.hands))
    hands, keep_connected = await open_hands(parts, stack)
    complete(parts, hands, receipts)
    async with anyio.create_task_group() as group:
        group.start_soon(take_calls, parts)
        group.start_soon(_answer_locally, parts)
        if keep_connected is not None:
            group.start_soon(keep_connected)


async def open_state(parts: Parts, stack: AsyncExitStack) -> Receipts:
    """The journal, in which this start is the next event, what is known of programs, and the
    receipts. `stack` closes them: from then on nothing may be emitted. Raises `StateUnusable`."""
    folder, clock = parts.folder, parts.clock
    boot = await in_thread(boot_id)
    writer = await stack.enter_async_context(LogWriter())
    journal = await open_journal(
        folder / "journal", writer, clock, new_series=partial(new_id, clock), boot=boot
    )
    stack.push_async_callback(journal.aclose)
    receipts = await open_receipts(folder / "receipts", writer, clock, boot=boot)
    stack.push_async_callback(receipts.aclose)
    open_programs = partial(ProgramStore.open, folder, series=journal.series, last=journal.last)
    parts.programs = await in_thread(open_programs)
    parts.uploads = await in_thread(UploadNotes.open, folder / "uploads")
    parts.egress = await in_thread(_open_egress, parts)
    stack.push_async_callback(in_thread, parts.egress.close)
    parts.journal = journal
    parts.opened.set()
    parts.emit("sidecar.started", {"version": __version__, "incarnation": parts.incarnation})
    journal.announce(parts.emit)
    return receipts


def _open_egress(parts: Parts) -> Egress:
    """The count of what leaves. Without a limit it may be one that does not last."""
    settings = parts.settings
    limits = EgressLimits(settings.egress_call or None, settings.egress_run or None)
    count = open_count(parts.folder / "egress", is_needed=limits.run is not None)
    return Egress(Policy(limits), count)


def _load_hands(is_apart: bool) -> Callable[[Parts, AsyncExitStack], Awaitable[Opened]]:
    """The one form that is needed."""
    if is_apart:
        from sidecar.handsapart import open_hands as apart

        return apart
    from sidecar.handshere import open_hands as here

    return here


def complete(parts: Parts, hands: Hands, receipts: Receipts) -> None:
    """Make the parts that calls need; nothing of them runs yet."""
    parts.means = Means(
        hands=hands,
        clock=parts.clock,
        policy=parts.egress.policy,
        egress=parts.egress,
        emit=parts.emit,
        wake=parts.exchange.wake,
        wake_soon=parts.exchange.wake_soon,
        processes=Processes(hands, parts.clock, store=parts.programs, emit=parts.emit),
        facts=lambda: facts(parts),
        end_run=partial(tell_to_end, parts, Teller.RUN_END),
        forget_reader=parts.journal.forget,
        uploads=Uploads(hands, parts.clock, parts.uploads),
    )
    parts.dispatcher = Dispatcher(
        parts.means,
        receipts,
        incarnation=parts.incarnation,
        loose=parts.exchange.loose,
        last_seq=lambda: parts.journal.last,
    )
    parts.dispatcher.refuse_new(parts.refusal)


async def take_calls(parts: Parts) -> None:
    """Until cancelled; those that came early are first. They wait for the catalogue.

    Calls end before the table of programs does: their cleaning up needs it.
    """
    async with parts.means.processes.running(), anyio.create_task_group() as group:
        await group.start(parts.dispatcher.run)
        group.start_soon(parts.means.uploads.run)
        parts.dispatcher.recover()
        parts.exchange.begin(parts.dispatcher, parts.journal)
        bound_commands = await in_thread(_load_catalogue)
        parts.dispatcher.install(bound_commands())
        if parts.state.state is State.STARTING:
            await parts.state.move(State.RUNNING)
        resume_ending(parts)


def _load_catalogue() -> Callable[[], dict[str, Any]]:
    """Last, because its pydantic takes as long as all the rest of the start."""
    from sidecar.catalogue import bound_commands

    return bound_commands


async def _answer_locally(parts: Parts) -> None:
    async def health(_: Mapping[str, Any]) -> Mapping[str, Any]:
        return health_of(parts)

    async def drain(request: Mapping[str, Any]) -> Mapping[str, Any]:
        return await tell_to_end(parts, Teller.DRAIN, _timeout(request))

    operations = {"health": health}
    admin = {**operations, "drain": drain, "repoint": parts.tokens.repoint}
    async with anyio.create_task_group() as group:
        group.start_soon(LocalSocket(parts.folder / "admin.sock", admin, admin=True).run)
        group.start_soon(LocalSocket(parts.folder / "agent.sock", operations).run)


def _timeout(request: Mapping[str, Any]) -> float | None:
    """Of a request to drain: seconds; None, or what makes no sense: as it is set."""
    found = request.get("timeout")
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return float(found) if 0 <= found <= LONGEST_DRAIN else None
