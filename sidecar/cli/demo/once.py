"""A call that is sent again runs nothing and gets the first answer: its id names it."""

from __future__ import annotations

from typing import Any

from sidecar.cli.demo.report import Line, first_problem
from sidecar.cli.demo.stage import Stage
from sidecar.client import CallError, Code
from sidecar.clock import SystemClock
from sidecar.identity import new_id

PATH = "orders"
TIMES = 3
ARGUMENTS: dict[str, Any] = {"shell": f"echo ordered >> {PATH}; echo $$", "live": False}


async def repeat_call(stage: Stage) -> list[Line]:
    """Send one call three times, then its id with other arguments."""
    clock = SystemClock()
    id = new_id(clock)
    answers = []
    for _ in range(TIMES):
        answers.append(await stage.run.call("exec.run", ARGUMENTS, id=id))
        if stage.breaks("once"):
            id = new_id(clock)  # what a client does that takes every attempt for a new call
    runs = (await stage.run.files.read(PATH)).count(b"\n")
    misused = await _misuse(stage, id)
    same = all(answer == answers[0] for answer in answers)
    stage.screen.say(
        f"the same call {TIMES} times: {runs} run; its id with other arguments: {misused}"
    )
    problem = first_problem(
        (runs == 1, f"{TIMES} calls with one id ran {runs} times"),
        (same, "the answers differ"),
        (misused == Code.CONFLICT, f"the id with other arguments: {misused}, expected conflict"),
    )
    figure = f"{TIMES} calls, {runs} run, {'one answer' if same else 'several answers'}"
    return [Line("once", "a repeated call runs nothing twice", figure, problem)]


async def _misuse(stage: Stage, id: bytes) -> str:
    """The id of an earlier call with other arguments; the code of the refusal."""
    try:
        await stage.run.call("exec.run", {**ARGUMENTS, "shell": "true"}, id=id)
    except CallError as error:
        return error.code
    return "accepted"
