"""How a program ended, and the exit status that tells of it, as timeout(1) and the shells have it.

its own     the program ended           128 + n     signal n ended it, or us
124         it ran too long             125         sidecar itself failed, or we left before
126         it cannot be executed                   it ended
127         there is no such program    141         nobody reads our output
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.cli.output import complain, explain
from sidecar.errors import CallError, Code

if TYPE_CHECKING:
    from sidecar.client import Completed

TIMED_OUT = 124
FAILED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127

_NAMES = {1: "stdout", 2: "stderr"}


@dataclass(slots=True)
class Outcome:
    """How it ended: of these, one is set."""

    completed: Completed | None = None
    error: CallError | None = None
    signal: int | None = None  # that we got
    failure: OSError | None = None  # of our own output
    has_left: bool = False  # by the detach keys: the program goes on

    @property
    def is_known(self) -> bool:
        """The program has ended, or there is none."""
        return self.completed is not None or self.error is not None


def exit_status(outcome: Outcome, *, name: str | bytes | None = None, is_told: bool = False) -> int:
    """The status, and what there is to say on stderr. `name` is the program's, as it was given;
    `is_told` says that an error was shown already."""
    if outcome.signal is not None:
        return 128 + outcome.signal
    if outcome.failure is not None:
        if isinstance(outcome.failure, BrokenPipeError):
            return 128 + signal.SIGPIPE
        explain(outcome.failure)
        return FAILED
    if outcome.error is not None:
        if not is_told:
            complain(str(outcome.error))
        return _status_of_error(outcome.error, name)
    if outcome.completed is None:
        return FAILED
    for n, count in outcome.completed.dropped.items():
        complain(f"{count} bytes of its {_NAMES[n]} were not kept")
    for n, offsets in outcome.completed.gaps.items():
        where = ", ".join(map(str, offsets))
        complain(f"some bytes of its {_NAMES[n]} were lost with a killed sidecar, at {where}")
    return outcome.completed.returncode


def _status_of_error(error: CallError, name: str | bytes | None) -> int:
    if error.code is Code.TIMEOUT:
        return TIMED_OUT
    # A working directory that is not there is no missing program.
    if name is None or os.fsencode(error.details.get("path") or b"") != os.fsencode(name):
        return FAILED
    if error.code is Code.NOT_FOUND:
        return NOT_FOUND
    is_refused = error.code in (Code.PERMISSION_DENIED, Code.IS_DIRECTORY)
    return NOT_EXECUTABLE if is_refused or error.details.get("errno") == "ENOEXEC" else FAILED
