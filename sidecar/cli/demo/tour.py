"""The tour: its steps, their order, and how each becomes lines of the report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import anyio

from sidecar.cli.demo.child import DemoError
from sidecar.cli.demo.confinement import try_to_leave
from sidecar.cli.demo.copying import copy_bytes
from sidecar.cli.demo.cuts import reconnect, recover
from sidecar.cli.demo.endings import death_by_signal, exit_status
from sidecar.cli.demo.events import count_events
from sidecar.cli.demo.lasting import outlast
from sidecar.cli.demo.once import repeat_call
from sidecar.cli.demo.ports import look_for_ports
from sidecar.cli.demo.project import bring_project
from sidecar.cli.demo.report import Line
from sidecar.cli.demo.screen import Screen
from sidecar.cli.demo.stage import Stage, open_stage
from sidecar.cli.demo.suite import run_suite
from sidecar.client import CallError, ProgramFailed

TOUR_TIME = 120.0  # seconds for everything
STEP_TIME = 30.0  # seconds for one step, unless it says another time
LASTING_TIME = 75.0


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the tour, the lines it measures, and the steps it builds on."""

    title: str
    names: tuple[str, ...]
    take: Callable[[Stage], Awaitable[list[Line]]]
    needs: tuple[str, ...] = ()
    time: float | None = None  # seconds


STEPS = (
    Step("A project goes into the workspace", ("project",), bring_project),
    Step("Its tests run there, live", ("tests", "live"), run_suite, needs=("project",)),
    Step("Large files go in and out", ("files",), copy_bytes),
    Step("The connections are cut", ("recovery",), recover),
    Step("The connections are cut and forgotten", ("reconnect",), reconnect),
    Step("A call is repeated", ("once",), repeat_call),
    Step("A program ends with a status", ("status",), exit_status),
    Step("A program is killed", ("signal",), death_by_signal),
    Step("Paths try to leave", ("confined",), try_to_leave),
    Step("Is anything listening?", ("ports",), look_for_ports),
    Step(
        "Hub and sidecar are killed",
        ("lines", "killed", "renewed", "numbered"),
        outlast,
        time=LASTING_TIME,
    ),
    Step("The events of all this", ("events",), count_events, needs=("recovery", "reconnect")),
)


def chosen(only: Collection[str]) -> list[Step]:
    """The steps that measure the lines named in `only`, and those they need; all if empty."""
    if not only:
        return list(STEPS)
    wanted = set(only)
    for step in STEPS:
        if wanted & set(step.names):
            wanted |= set(step.needs)
    return [step for step in STEPS if wanted & set(step.names)]


async def take_tour(
    folder: Path, screen: Screen, *, broken: str | None, only: Collection[str]
) -> list[Line]:
    """All lines. Raises `DemoError` if it cannot go on."""
    lines: list[Line] = []
    with anyio.move_on_after(TOUR_TIME) as limit:
        async with open_stage(folder, screen, broken) as stage:
            for step in chosen(only):
                lines += await _take(step, stage)
    if limit.cancelled_caught:
        raise DemoError(f"the demo was not done within {TOUR_TIME:g} s")
    return lines


async def _take(step: Step, stage: Stage) -> list[Line]:
    """The lines of a step; those it could not measure have failed, and say why."""
    stage.screen.title(step.title)
    lines: list[Line] | None = None
    time = STEP_TIME if step.time is None else step.time
    why = f"not done within {time:g} s"
    with anyio.move_on_after(time):
        async with stage.child.while_alive():
            try:
                lines = await step.take(stage)
            except (CallError, ProgramFailed, OSError) as error:
                why = str(error)
    if stage.child.has_ended:
        raise DemoError(f"the sidecar ended: {await stage.child.last_words()}")
    if lines is None:
        stage.screen.say(why)
        lines = [Line(name, step.title.lower(), "not measured", why) for name in step.names]
    return lines
