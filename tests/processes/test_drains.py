"""Pipes of forgotten programs: read on, and bounded."""

from __future__ import annotations

import os
from pathlib import Path

from stack import until

from sidecar.clock import ManualClock
from sidecar.pipes import PipeReader
from sidecar.processes.drains import Drains
from sidecar.protocol.limits import DRAINED_PIPES
from sidecar.spool import Spool
from sidecar.spoolbudget import SpoolBudget


def drained(folder: Path) -> tuple[PipeReader, int]:
    """A reader that discards, and the other end of its pipe."""
    fd, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    spool = Spool(folder / "spool", ManualClock(), SpoolBudget())
    reader = PipeReader(spool, on_data=lambda: None, on_full=lambda: None)
    reader.discard()
    reader.connect(fd)
    spool.close()
    return reader, writer


async def test_the_oldest_of_too_many_is_closed_and_those_that_ended_do_not_count(
    tmp_path: Path,
) -> None:
    drains = Drains()
    pipes = [drained(tmp_path) for _ in range(DRAINED_PIPES + 2)]
    ended, writer = pipes[0]
    drains.add(ended)
    os.close(writer)
    await until(lambda: ended.is_finished)
    for reader, _ in pipes[1:]:
        drains.add(reader)
    assert len(drains) == DRAINED_PIPES
    assert [reader.is_finished for reader, _ in pipes[:3]] == [True, True, False]
    drains.close()
    assert all(reader.is_finished for reader, _ in pipes)
    for _, writer in pipes[1:]:
        os.close(writer)
