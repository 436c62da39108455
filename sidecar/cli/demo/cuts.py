"""The connections are cut while a program prints, and nothing is lost or doubled.

First the hub lets both sides take their connections up again (recovery). Then it has forgotten
them: both sides dial anew, the controller attaches anew and asks what became of its call. Either
way the program ran once, and every byte it printed arrived once and in order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import anyio

from sidecar.cli.childprocess import interpreter
from sidecar.cli.demo.report import Line, first_problem
from sidecar.cli.demo.stage import Stage

LINES = 600
CUT_AFTER = 150  # lines

# Prints numbered lines for about two seconds, and notes each of its starts in a file.
PROGRAM = f"""
import hashlib, sys, time
with open(sys.argv[1], "a") as starts:
    starts.write("started\\n")
for n in range({LINES}):
    print(n, hashlib.sha256(str(n).encode()).hexdigest(), flush=True)
    time.sleep(0.003)
"""

EXPECTED = [f"{n} {hashlib.sha256(str(n).encode()).hexdigest()}" for n in range(LINES)]


@dataclass(frozen=True, slots=True)
class Case:
    """One way to lose a connection, and what both sides have to count afterwards."""

    name: str
    promise: str
    forget: bool
    recoveries: int
    reconnects: int

    @property
    def starts_file(self) -> str:
        return f"starts-{self.name}"


RECOVERY = Case("recovery", "a cut connection loses and doubles nothing", False, 1, 0)
RECONNECT = Case("reconnect", "nor does one that the hub has forgotten", True, 0, 1)


@dataclass(slots=True)
class Watched:
    """What came, and the longest silence (seconds) from the cut on."""

    received: bytearray = field(default_factory=bytearray)
    is_cut: bool = False
    last: float = 0.0
    silence: float = 0.0

    def take(self, chunk: bytes) -> None:
        now = anyio.current_time()
        if self.is_cut:
            self.silence = max(self.silence, now - self.last)
        self.last = now
        self.received += chunk

    @property
    def is_due(self) -> bool:
        return not self.is_cut and self.received.count(b"\n") >= CUT_AFTER


async def recover(stage: Stage) -> list[Line]:
    """Cut both connections; they are taken up again."""
    return [await _survive(stage, RECOVERY)]


async def reconnect(stage: Stage) -> list[Line]:
    """Cut both connections and forget them; they are made anew."""
    return [await _survive(stage, RECONNECT)]


async def _survive(stage: Stage, case: Case) -> Line:
    before = await _counts(stage)
    with stage.screen.busy(f"cutting both connections at line {CUT_AFTER} of {LINES}"):
        watched = await _watch(stage, case)
    counted = [now - then for now, then in zip(await _counts(stage), before, strict=True)]
    lines = watched.received.decode(errors="replace").splitlines()
    if stage.breaks("recovery") and case is RECOVERY:
        del lines[CUT_AFTER]
    starts = (await stage.run.files.read(case.starts_file)).count(b"\n")
    stage.screen.say(f"{len(lines)} lines, longest silence {watched.silence:.2f} s")
    problem = first_problem(
        (starts == 1, f"the program was started {starts} times"),
        (lines == EXPECTED, _difference(lines)),
        (counted == [case.recoveries, case.reconnects] * 2, f"{_tell(counted)} were counted"),
    )
    figure = f"{len(lines)} of {LINES} lines, {starts} start, silent {watched.silence:.2f} s"
    return Line(case.name, case.promise, figure, problem)


async def _watch(stage: Stage, case: Case) -> Watched:
    """Run the program and cut the connections in the middle of its output."""
    watched = Watched()
    program = [*interpreter(), "-c", PROGRAM, case.starts_file]
    async with stage.run.process(program) as process:
        async for _, chunk in process.output():
            watched.take(chunk)
            if watched.is_due:
                watched.is_cut = True
                await stage.cut(forget=case.forget)
                if stage.breaks("reconnect") and case is RECONNECT:
                    await stage.run.exec(program)  # what a client does that only retries
        (await process.wait()).check()
    return watched


async def _counts(stage: Stage) -> list[int]:
    """Recoveries and new connections so far: the sidecar's, then ours."""
    theirs = (await stage.run.info())["channel"]
    ours = stage.controller.status()
    return [theirs["recoveries"], theirs["reconnects"], ours.recoveries, ours.reconnects]


def _tell(counted: list[int]) -> str:
    sidecar, controller = counted[:2], counted[2:]
    return (
        f"{sidecar[0]} recoveries and {sidecar[1]} new connections of the sidecar,"
        f" {controller[0]} and {controller[1]} of the controller"
    )


def _difference(lines: list[str]) -> str:
    """Where what came first differs from what was printed."""
    for n, (came, printed) in enumerate(zip(lines, EXPECTED, strict=False)):
        if came != printed:
            return f"line {n}: {came[:20]!r}... came instead of {printed[:20]!r}..."
    return f"{len(lines)} lines came, {LINES} were printed"
