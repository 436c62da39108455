"""The project's tests run in the sandbox, and their output is seen while they run."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

import anyio

from sidecar.cli.childprocess import interpreter
from sidecar.cli.demo.project import NAME
from sidecar.cli.demo.report import Line, first_problem
from sidecar.cli.demo.stage import Stage

EARLY = 0.5  # the first line has to be there in this part of the time that the program takes

COMMAND = [*interpreter(), "-m", "unittest", "-v"]
ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1"}  # the repository stays clean


@dataclass(slots=True)
class Watched:
    """What a program printed, and when; times are seconds since it was asked for."""

    text: str = ""
    first: float | None = None
    last: float = 0.0
    lines: list[str] = field(default_factory=list)


async def run_suite(stage: Stage) -> list[Line]:
    """`python -m unittest -v` through the sidecar, live."""
    command = _held_back(COMMAND) if stage.breaks("live") else COMMAND
    began = anyio.current_time()
    seen = Watched()
    async with stage.run.process(command, cwd=NAME, env=ENVIRONMENT) as process:
        async for _, chunk in process.output():
            _take(stage, seen, chunk, anyio.current_time() - began)
        completed = await process.wait()
    ended = anyio.current_time() - began
    return [_tests(seen.text, completed.returncode), _live(seen.first, ended)]


def _take(stage: Stage, seen: Watched, chunk: bytes, now: float) -> None:
    """Show each line as soon as it is complete."""
    if seen.first is None:
        seen.first = now
    before = seen.text.count("\n")
    seen.text += chunk.decode(errors="replace")
    for line in seen.text.split("\n")[before:-1]:
        stage.screen.output(now, line)


def _tests(text: str, status: int) -> Line:
    ran = re.search(r"^Ran (\d+) tests?", text, re.MULTILINE)
    count = int(ran[1]) if ran else 0
    problem = first_problem(
        (status == 0, f"it ended with {status}, expected 0"),
        (count > 0, "it ran no test"),
    )
    figure = f"{count} tests, exit status {status}"
    return Line("tests", "its test suite runs in the sandbox", figure, problem)


def _live(first: float | None, ended: float) -> Line:
    promise = "output arrives while the program runs"
    if first is None:
        return Line("live", promise, "no output", "the program printed nothing")
    problem = first_problem(
        (first < ended * EARLY, f"the first output came after {first:.2f} s of {ended:.2f} s"),
    )
    return Line("live", promise, f"first output at {first:.2f} s, end at {ended:.2f} s", problem)


def _held_back(command: list[str]) -> list[str]:
    """The same program, with its output kept until it has ended."""
    inner = shlex.join(command)
    return ["/bin/sh", "-c", f'out=$({inner} 2>&1); status=$?; echo "$out"; exit $status']
