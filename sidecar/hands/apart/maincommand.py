"""The command that a container is there for, as a child of hands.

What a container's entry point was moves behind `sidecar hands --`, and is to notice nothing: it
has our standard files, gets the signals that are sent to us, and we end as it ends. It has a
process group of its own, in the foreground of a terminal if there is one, so that Ctrl-C
reaches it once and not a second time through us (as tini has it).
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from sidecar.hands.local import orphans
from sidecar.hands.local.reaping import Reaper
from sidecar.hands.local.record import Record
from sidecar.hardening import give_back_descriptor_limit

FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
OWN_VARIABLES = "SIDECAR_"


class MainCommand:
    """Started when it is made, on the event loop. Raises `OSError` like `subprocess.Popen`."""

    def __init__(self, argv: Sequence[str]) -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)
        }
        child = subprocess.Popen(argv, env=environment, process_group=0)
        give_back_descriptor_limit(child.pid)
        orphans.spare(child.pid)
        child.returncode = 0  # it is ours to wait for; Popen would when it is collected
        self._record = Record(b"", child.pid, 0)
        self._reaper = Reaper(lambda record: None)
        self._reaper.watch(self._record)
        _bring_to_foreground(child.pid)

    def signal(self, number: int) -> None:
        """Nothing happens if it has ended."""
        self._record.signal(number, group=False)

    async def wait(self) -> int:
        """Its exit status, as a shell has it: 128 and the number of a signal that ended it."""
        await self._record.ended.wait()
        ended = self._record.exit
        if ended is None:
            return 128
        return 128 + ended.signal if ended.signal is not None else ended.status or 0

    def close(self) -> None:
        """Watch no more; if it runs, it runs on."""
        self._reaper.release(self._record)


def _bring_to_foreground(group: int) -> None:
    if os.isatty(0):
        with suppress(OSError):  # not our controlling terminal
            os.tcsetpgrp(0, group)
            os.killpg(group, signal.SIGCONT)  # it may have been stopped for reading too soon
