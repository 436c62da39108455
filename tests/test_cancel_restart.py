"""Calls that are over while the sidecar is away: nothing of them goes on when it is back."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from procs import alive_with, sleep_of_its_own
from stack import Stack, open_stack, until

from sidecar.client import CallError, Code

pytestmark = pytest.mark.slow  # real processes, killed and started again


@pytest.fixture
def socket() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hands-") as folder:
        yield Path(folder) / "socket"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path, sidecars=0) as stack:
        yield stack


def start(stack: Stack, hands: Path) -> subprocess.Popen[bytes]:
    """A sidecar on the state folder of the one before."""
    stack.sidecars.clear()
    return stack.start_sidecar_process(hands=str(hands))


async def kill(core: subprocess.Popen[bytes]) -> None:
    core.kill()
    await anyio.to_thread.run_sync(core.wait)


async def test_a_deadline_that_passes_without_a_sidecar_ends_the_program(
    stack: Stack, socket: Path
) -> None:
    hands = await stack.start_hands_process(socket)
    core = start(stack, socket)
    run = await stack.attach()
    with sleep_of_its_own() as while_, anyio.fail_after(40):
        async with anyio.create_task_group() as group:

            async def call() -> None:
                with pytest.raises(CallError) as caught:
                    await run.call("exec.run", {"shell": f"sleep {while_}"}, deadline=1.0)
                assert caught.value.code is Code.TIMEOUT

            group.start_soon(call)
            await until(lambda: len(alive_with(while_)) == 1)
            await kill(core)
            await anyio.sleep(1.0)
            hands.send_signal(signal.SIGSTOP)
            start(stack, socket)
        assert len(alive_with(while_)) == 1
        hands.send_signal(signal.SIGCONT)
        await until(lambda: not alive_with(while_))


async def test_what_is_cancelled_before_hands_is_back_ends_when_it_is(
    stack: Stack, socket: Path
) -> None:
    hands = await stack.start_hands_process(socket)
    core = start(stack, socket)
    run = await stack.attach()
    with sleep_of_its_own() as while_, anyio.fail_after(40):
        async with run.open("exec.run", {"shell": f"sleep {while_}"}) as call:
            await until(lambda: len(alive_with(while_)) == 1)
            await kill(core)
            hands.send_signal(signal.SIGSTOP)
            before = run.incarnation
            start(stack, socket)
            await until(lambda: run.incarnation != before)
            run.attachment.cancel(call)
            with pytest.raises(CallError):
                await call.wait()
        hands.send_signal(signal.SIGCONT)
        await until(lambda: not alive_with(while_))


async def test_a_cancel_reaches_the_sidecar_that_was_away(stack: Stack, socket: Path) -> None:
    await stack.start_hands_process(socket)
    core = start(stack, socket)
    run = await stack.attach()
    with sleep_of_its_own() as while_, anyio.fail_after(20):
        async with run.open("exec.run", {"shell": f"sleep {while_}"}):
            await until(lambda: len(alive_with(while_)) == 1)
            await kill(core)
        before = run.incarnation
        start(stack, socket)
        await until(lambda: run.incarnation != before)
        await until(lambda: not alive_with(while_))
