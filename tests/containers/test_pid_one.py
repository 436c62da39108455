"""`sidecar run` is the first process of its container, or the child of an init: it reaps what
others leave behind, and ends as it is told to."""

from __future__ import annotations

import signal
from pathlib import Path

import anyio
import pytest
import stack
from boxes import Box, names_of_processes, open_box, until
from podman import Engine

from sidecar.client import CallError, Code, Run, Started

with_and_without_init = pytest.mark.parametrize(
    "flags", [pytest.param((), id="alone"), pytest.param(("--init",), id="with an init")]
)


@with_and_without_init
async def test_orphans_are_reaped_and_take_no_status_along(
    engine: Engine, agent_image: str, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    async with open_box(engine, agent_image, tmp_path, *flags) as box:
        run = await box.attach()
        for status in range(20):  # each leaves two behind: one that ends first, one that ends later
            script = f"(setsid sh -c 'exit 9' &) ; (setsid sleep 0.1 &) ; exit {status}"
            assert (await run.exec(["sh", "-c", script])).status == status
        assert (await run.exec(["sh", "-c", "kill -SEGV $$"])).signal == signal.SIGSEGV

        ours = ["podman-init", "sidecar"] if flags else ["sidecar"]

        async def are_alone() -> bool:
            return list((await names_of_processes(run)).values()) == ours

        await until(are_alone)
        assert (await names_of_processes(run))[1] == ours[0]


@with_and_without_init
async def test_sigterm_delivers_what_there_is_and_ends_with_0(
    engine: Engine, agent_image: str, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    async with open_box(engine, agent_image, tmp_path, *flags) as box:
        run = await box.attach()
        names: list[str] = []
        told: list[CallError] = []

        async def listen() -> None:
            async for event in run.events(reader="platform"):
                names.append(event.name)

        async def sleep() -> None:
            with pytest.raises(CallError) as caught:
                await run.exec(["sleep", "600"])
            told.append(caught.value)

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            group.start_soon(sleep)
            await stack.until(lambda: "exec.started" in names)
            await run.files.write("last.txt", b"words")
            began = anyio.current_time()
            await box.podman("stop", "--time=20", box.name)
            took = anyio.current_time() - began
            group.cancel_scope.cancel()

        assert await box.ended() == 0
        assert took < 10, "it neither waited for the whole grace period nor was killed at its end"
        assert [error.code for error in told] == [Code.CANCELLED]
        assert told[0].started is Started.YES
        assert names[-4:] == ["exec.started", "files.written", "sidecar.draining", "exec.ended"]


async def hang_on(box: Box, run: Run) -> None:
    """A durable reader that hears nothing any more: a drain waits for it."""
    async with anyio.create_task_group() as group:

        async def listen() -> None:
            async for _ in run.events(reader="platform"):
                group.cancel_scope.cancel()

        group.start_soon(listen)
    await run.files.write("unheard.txt", b"x")


@with_and_without_init
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(
    engine: Engine,
    agent_image: str,
    tmp_path: Path,
    flags: tuple[str, ...],
    number: signal.Signals,
) -> None:
    async with open_box(engine, agent_image, tmp_path, *flags) as box:
        await hang_on(box, await box.attach())
        await box.podman("kill", f"--signal={number}", box.name)

        async def is_draining() -> bool:
            return "draining" in (await box.log())[-1]

        await until(is_draining)
        assert (await box.state())["Running"]
        await box.podman("kill", f"--signal={number}", box.name)
        assert await box.ended() == 128 + number
