"""A sidecar as a child of ours, for `dev` and `demo`: how it starts, and how it ends.

It has a session of its own, because Ctrl-C at a terminal goes to the whole group, and ending it
is for us: it drains while the hub still runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import anyio
from anyio.abc import Process

import sidecar


def interpreter() -> list[str]:
    """Begins a command with our interpreter, which reads nothing of the environment (-I) if we do
    not: a self-contained folder has its own Python in an image that may have settings for another.
    """
    return [sys.executable, "-I"] if sys.flags.isolated else [sys.executable]


async def start(
    command: Sequence[str], settings: Mapping[str, str], output: int | IO[bytes]
) -> Process:
    """Run `command` with our environment, `settings` in place of our own, and all that it
    prints in `output`."""
    return await anyio.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=_environment(settings),
        # `python -m` looks here first, so that it is the same sidecar that we are.
        cwd=Path(sidecar.__path__[0]).parent,
        start_new_session=True,
    )


async def end(process: Process, *, grace: float) -> None:
    """TERM, and after `grace` seconds KILL. Harmless when it has ended."""
    with anyio.CancelScope(shield=True):
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with anyio.move_on_after(grace):
            await process.wait()
        if process.returncode is None:
            process.kill()
        await process.aclose()


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    return ours | {f"SIDECAR_{name.upper()}": value for name, value in settings.items()}
