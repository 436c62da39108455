"""`sidecar exec -t` and `sidecar attach`: a program that outlives us, and our part in it.

The program is started by one call and attached to by another, so that whoever loses the
connection, or leaves, finds it as it was.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import anyio

from sidecar.cli.conversation import CREDIT, Conversation, repaint
from sidecar.cli.ending import Outcome
from sidecar.cli.loop import beside
from sidecar.cli.order import Order
from sidecar.cli.output import complain
from sidecar.cli.piping import OwnOutput, feed, pass_on, read_chunks
from sidecar.cli.processid import find, short
from sidecar.cli.target import Target, attached
from sidecar.cli.tty import size_of, term
from sidecar.client import CallError, Options, Process, ProcessInfo, RemoteProcess, Terminal


async def start_and_hold(target: Target, order: Order, keys: bytes) -> Outcome:
    """Start a program with a terminal of our size, and be at it until it ends or we leave."""
    conversation = Conversation(keys)
    outcome = conversation.outcome
    async with beside(conversation.heed), attached(target) as run:
        size = size_of(0)
        options: Options = {**order.options, "terminal": Terminal(*size, term())}
        try:
            remote = await run.start(order.program, **options)
        except CallError as error:
            outcome.error = error
            return outcome
        with _way_back(target, remote, outcome):
            async with remote.attach(stderr=None, input=True, credit=CREDIT) as process:
                await conversation.hold(process, size)
    return outcome


async def come_back(
    target: Target, id: str, keys: bytes, *, start: int | None, has_input: bool
) -> Outcome:
    """Be at a program that runs already, until it ends or we leave: from offset `start` of its
    output on, or from now."""
    conversation = Conversation(keys)
    outcome = conversation.outcome
    async with beside(conversation.heed), attached(target) as run:
        info, remote = await find(run, id)
        with _way_back(target, remote, outcome):
            has_input = has_input and info.has_input
            if info.terminal and has_input and os.isatty(0):
                await _hold_again(conversation, info, remote, start)
            else:
                await _look_on(info, remote, outcome, start, has_input)
    return outcome


async def _hold_again(
    conversation: Conversation, info: ProcessInfo, remote: RemoteProcess, start: int | None
) -> None:
    size = size_of(0)
    try:
        offset = await repaint(remote, *size)
    except CallError:  # it has just ended, and the attachment will tell how
        offset = info.sizes[1]
    start = offset if start is None else start
    attaching = remote.attach(stdout=start, stderr=None, input=True, credit=CREDIT)
    async with attaching as process:
        await conversation.hold(process, size)


async def _look_on(
    info: ProcessInfo, remote: RemoteProcess, outcome: Outcome, start: int | None, has_input: bool
) -> None:
    """Its output to ours, and our standard input to it."""
    stdout, stderr = (info.sizes.get(n, 0) if start is None else start for n in (1, 2))
    attaching = remote.attach(stdout=stdout, stderr=stderr, input=has_input)
    async with attaching as process, anyio.create_task_group() as group:
        if has_input:
            group.start_soon(_type_on if info.terminal else feed, process)
        await pass_on(process, OwnOutput(), outcome)
        group.cancel_scope.cancel()


async def _type_on(process: Process) -> None:
    """Our standard input to a terminal, which has no end of input."""
    with suppress(anyio.BrokenResourceError, OSError):
        async for data in read_chunks(0):
            await process.write(data)


@contextmanager
def _way_back(target: Target, remote: RemoteProcess, outcome: Outcome) -> Iterator[None]:
    """Who goes before the program does is told how to come back."""
    try:
        yield
    finally:
        # A terminal that is held up would hold up whoever writes to it, for ever.
        if not outcome.is_known and select.select([], [2], [], 0)[1]:
            with suppress(OSError):  # nobody may be there to read it
                back = f"sidecar attach {target.said()}{short(remote.id)}"
                complain(f"left running; come back with: {back}")
