"""No path leads out of the workspace: not `..`, not an absolute name, not a symbolic link.

Files are meant, the `files.*` commands. A program runs as the user it runs as, and may do what
that user may: to confine programs is the sandbox's own task.
"""

from __future__ import annotations

from pathlib import Path

from sidecar.cli.demo.report import Line, first_problem
from sidecar.cli.demo.stage import Stage
from sidecar.client import CallError, Code

TARGET = "/etc/passwd"
LINK = "way-out"


async def try_to_leave(stage: Stage) -> list[Line]:
    """Ask for a file outside in every way there is, and try to leave one there."""
    (await stage.run.exec(["ln", "-s", "/etc", LINK])).check()
    up = "/".join([".."] * (len(stage.workspace.parts) - 1))  # as far as the root
    ways = ("../../etc/passwd", up + TARGET, TARGET, f"{LINK}/passwd")
    answers = {path: await _read(stage, path) for path in ways}
    outside = stage.workspace.parent / "left-outside"
    answers[f"../{outside.name} (a write)"] = await _write(stage, outside)
    for path, answer in answers.items():
        stage.screen.say(f"{path}: {answer}")
    let_out = [path for path, answer in answers.items() if answer != Code.OUTSIDE]
    problem = first_problem(
        (not let_out, f"{', '.join(let_out)}: not refused with {Code.OUTSIDE}"),
    )
    refused = len(answers) - len(let_out)
    figure = f"{refused} of {len(answers)} ways out refused"
    return [Line("confined", "no path leads out of the workspace", figure, problem)]


async def _read(stage: Stage, path: str) -> str:
    try:
        return f"{len(await stage.run.files.read(path))} bytes came"
    except CallError as error:
        return error.code


async def _write(stage: Stage, outside: Path) -> str:
    try:
        await stage.run.files.write(f"../{outside.name}", b"written outside")
    except CallError as error:
        return error.code
    return "written"
