"""How a program ended is told as it was observed: a status, or the signal that killed it."""

from __future__ import annotations

import signal

from sidecar.cli.demo.report import Line, first_problem
from sidecar.cli.demo.stage import Stage

STATUS = 7
KILLED = 128 + signal.SIGKILL  # as a shell counts it


async def exit_status(stage: Stage) -> list[Line]:
    """A program that ends with 7."""
    program = f"exit {STATUS}" + (" | cat" if stage.breaks("status") else "")
    completed = await stage.run.exec(["/bin/sh", "-c", program])
    stage.screen.say(f"sh -c 'exit {STATUS}' ended with {completed.status}")
    problem = first_problem(
        (completed.status == STATUS, f"ended with {completed.status}, expected {STATUS}")
    )
    figure = f"status {completed.status}"
    return [Line("status", "an exit status arrives as it was", figure, problem)]


async def death_by_signal(stage: Stage) -> list[Line]:
    """A program that is killed with KILL, which leaves it no status."""
    program = "kill -KILL $$"
    if stage.breaks("signal"):
        program = f"sh -c '{program}'; exit 1"  # a wrapper that keeps to itself how it ended
    completed = await stage.run.exec(["/bin/sh", "-c", program])
    stage.screen.say(f"sh -c 'kill -KILL $$' ended with {completed.returncode}")
    problem = first_problem(
        (completed.signal == signal.SIGKILL, f"signal {completed.signal}, expected 9"),
        (completed.returncode == KILLED, f"{completed.returncode}, expected {KILLED}"),
    )
    figure = f"signal {completed.signal}, {completed.returncode} to a shell"
    return [Line("signal", "so does a death by signal", figure, problem)]
