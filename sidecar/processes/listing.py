"""What `exec.list` says of a program: fields for programs, and bounded.

exec, pid, state       the exec id; running, ended or unknown
owner                  the controller that started it; None for a stateless caller
adopted                it ran before this sidecar did: of `argv` only the first 256 bytes
argv | shell, cut      the command; `cut` bytes of it are left out here
cwd                    as it was asked for; None is the workspace
began_ms, ended_ms     on the calendar, the latter None until it ended
age                    seconds since it began
status, signal, which  of one that ended; `which` timeout ended it
input                  whether its input is open
terminal               None, or its size and the latest resizes with their offsets
stdout, stderr         size, dropped, readers; held: somebody may still print into it
survivors              what it left behind: pid and name; `more_survivors` that are left out
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sidecar.hands.interface import Survivor
from sidecar.processes.output import Output
from sidecar.processes.process import Process
from sidecar.processes.record import describe
from sidecar.protocol.streams import STDERR, STDOUT

SURVIVORS = 32  # of a program that are told


def entry(process: Process, survivors: Sequence[Survivor], *, now: float) -> dict[str, Any]:
    """One program; `now` on our clock."""
    ended = process.ended
    return {
        "exec": process.id,
        "pid": process.pid,
        "state": process.state,
        "owner": process.owner,
        "adopted": process.is_adopted,
        **process.told.command,
        "cwd": process.told.cwd,
        "began_ms": int(process.began_wall * 1000),
        "ended_ms": None if process.ended_wall is None else int(process.ended_wall * 1000),
        "age": now - process.began,
        **({} if ended is None else {**describe(ended), "which": ended.which}),
        "input": process.input is not None and process.input.is_open,
        "terminal": _terminal(process),
        **{
            name: _output(process.outputs[n])
            for n, name in ((STDOUT, "stdout"), (STDERR, "stderr"))
            if n in process.outputs
        },
        "survivors": [
            {"pid": one.pid, "name": one.name.decode(errors="backslashreplace")}
            for one in survivors[:SURVIVORS]
        ],
        "more_survivors": max(0, len(survivors) - SURVIVORS),
    }


def _output(output: Output) -> dict[str, Any]:
    return {
        **output.describe(),
        "readers": output.readers,
        "held": not output.reader.is_finished,
    }


def _terminal(process: Process) -> dict[str, Any] | None:
    terminal = process.spec.program.terminal
    if terminal is None:
        return None
    resizes = [[one.offset, one.rows, one.cols] for one in process.resizes]
    rows, cols = resizes[-1][1:] if resizes else (terminal.rows, terminal.cols)
    return {"rows": rows, "cols": cols, "resizes": resizes}
