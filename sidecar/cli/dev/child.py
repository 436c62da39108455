"""The sidecar of `sidecar dev`: a child process, started again when it dies.

It is what a sandbox would run, `sidecar run`, and so are its log and its exit status.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import ByteReceiveStream

from sidecar.cli import childprocess
from sidecar.cli.dev.screen import Screen
from sidecar.cli.here import read_note
from sidecar.protocol.backoff import Backoff

DRAIN = 2.0  # seconds that it may take to send what is left
END = 10.0  # seconds from TERM to KILL: its programs have 5 of them to end
LIVED = 10.0  # seconds after which a death is not taken for a failure to start
DEATHS = 5  # in a row, each within that time, until we give up
FINAL = (77, 78)  # exit statuses that trying again does not mend
LINE = 8192  # bytes; a longer line of the log is cut

_LOG = re.compile(r"\S+Z (debug|info|warning|error|critical) ([\w.]+): (.*)", re.DOTALL)


class SidecarFailed(Exception):
    """The sidecar does not stay up; the sentence says how it ended."""


class Supervisor:
    """Keeps one `sidecar run` alive with `settings`, and shows its log."""

    def __init__(self, settings: Mapping[str, str], screen: Screen) -> None:
        self._settings = settings
        self._screen = screen

    async def run(self) -> None:
        """Until cancelled, or until somebody has ended the run; then the sidecar has ended too.
        Raises `SidecarFailed`."""
        backoff = Backoff(random.random, first=0.25, longest=5.0)
        deaths = 0
        while True:
            began = anyio.current_time()
            status = await self._run_once()
            note = await anyio.to_thread.run_sync(read_note, Path(self._settings["state"]))
            if note.get("state") == "ended" and note.get("exit_status") == status:
                self._screen.warn(f"the run was ended by {note.get('told_by')}")
                return
            if anyio.current_time() - began >= LIVED:
                deaths = 0
                backoff.reset()
            deaths += 1
            how = _describe(status)
            if status in FINAL or deaths >= DEATHS:
                raise SidecarFailed(f"the sidecar {how}" + (f", {deaths} times" * (deaths > 1)))
            self._screen.warn(f"the sidecar {how}; starting it again")
            await anyio.sleep(backoff.next())

    async def _run_once(self) -> int:
        command = [*childprocess.interpreter(), "-m", "sidecar", "run"]
        command += ["--with-parent", str(os.getpid())]
        process = await childprocess.start(command, self._settings, subprocess.PIPE)
        try:
            assert process.stdout is not None
            await _each_line(process.stdout, self._show)
            return await process.wait()
        finally:
            await childprocess.end(process, grace=END)

    def _show(self, line: str) -> None:
        """A line of its log: the time is ours, what is wrong stands out."""
        match = _LOG.match(line)
        if match is None:
            self._screen.warn(line)
            return
        level, name, message = match.groups()
        if level in ("debug", "info"):
            self._screen.note(name, message)
        else:
            self._screen.warn(message)


async def _each_line(stream: ByteReceiveStream, show: Callable[[str], None]) -> None:
    """Until the stream ends. A process may end within a line, or print one without end."""
    buffer = b""
    with suppress(anyio.EndOfStream):
        while True:
            *lines, buffer = (buffer + await stream.receive()).split(b"\n")
            for line in lines:
                show(line[:LINE].decode(errors="replace"))
            if len(buffer) > LINE:
                show(buffer[:LINE].decode(errors="replace"))
                buffer = b""
    if buffer:
        show(buffer.decode(errors="replace"))


def _describe(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"
