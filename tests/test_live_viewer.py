"""`examples/controller/live_viewer.py`, at a terminal and into a pipe, through losses."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from console import Console
from sandbox import RUN, TIME, Sandbox, open_sandbox

from sidecar.client import Controller, Run

VIEWER = Path(__file__).parent.parent / "examples/controller/live_viewer.py"
COMMAND = [sys.executable, str(VIEWER), RUN]


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with open_sandbox(tmp_path) as sandbox:
        yield sandbox


@pytest.fixture
async def run(sandbox: Sandbox) -> AsyncIterator[Run]:
    """For a controller that has something run."""
    async with Controller.connect(sandbox.url, controller="me") as controller:
        yield await controller.attach(RUN)


def environ_of(sandbox: Sandbox) -> dict[str, str]:
    return {**os.environ, "CLIENT_URL": sandbox.watch_url("viewer")}


class Lines:
    """What a viewer prints where there is no terminal."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self.process = process
        self.text = ""

    async def until(self, wanted: str) -> None:
        """A pattern of what it prints."""
        assert self.process.stdout is not None
        with anyio.fail_after(TIME):
            while not re.search(wanted, self.text):
                self.text += (await self.process.stdout.receive()).decode()


async def view(sandbox: Sandbox) -> Lines:
    return Lines(await anyio.open_process(COMMAND, env=environ_of(sandbox), stderr=None))


async def interrupt(lines: Lines) -> int:
    lines.process.send_signal(signal.SIGINT)
    with anyio.fail_after(TIME):
        status = await lines.process.wait()
    await lines.process.aclose()
    return status


@pytest.mark.slow
async def test_lines_and_events_are_printed_once_also_through_losses(
    sandbox: Sandbox, run: Run
) -> None:
    script = "echo one; until [ -e go ]; do sleep 0.02; done; printf 'two\\033[2J'; exit 3"
    program = await run.start(["sh", "-c", script])
    lines = await view(sandbox)
    await lines.until(r"\| one\n")
    await sandbox.hub.leave(1.0, forget=True)
    await lines.until(r"channel (?!open)\w+")
    (sandbox.workspace / "go").touch()
    await lines.until(r"\| two \[2J\n")
    assert (await run.exec(["echo", "three"])).ok
    await lines.until(r"\| three\n")
    assert await interrupt(lines) == 130
    assert f"{program.pid}| one\n" in lines.text
    for once in ("| one\n", "| two [2J\n", "| three\n", " 2 exec.started", "'status': 3"):
        assert lines.text.count(once) == 1, lines.text
    assert "Traceback" not in lines.text


@pytest.mark.slow
async def test_a_terminal_shows_programs_output_and_events_at_once(
    sandbox: Sandbox, run: Run
) -> None:
    program = await run.start(["sh", "-c", "echo from inside; exec sleep 600"])
    work = anyio.to_thread.run_sync
    with Console(COMMAND, environ_of(sandbox), rows=20, cols=100) as console:
        await work(partial(console.shows, f"{program.pid}| from inside"))
        await work(partial(console.shows, f"run {RUN}, channel open"))
        await work(partial(console.shows, "running  sh -c echo from inside"))
        await work(partial(console.shows, "2 exec.started"))
        await program.kill()
        await work(partial(console.shows, "signal 15"))
        console.type("\x03")
        assert await work(console.ends) == 130
        assert b"Traceback" not in console.raw_output
        assert console.raw_output.rindex(b"\x1b[?25h") > console.raw_output.index(b"\x1b[?25l")
        assert console.is_as_before


async def test_a_token_for_another_run_is_told_in_a_line(sandbox: Sandbox) -> None:
    done = await sandbox.python(str(VIEWER), "another")
    assert done.returncode == 1
    assert done.stderr.startswith("forbidden: ")
    assert "the token is for another run" in done.stderr
