"""Hub and sidecar are killed with -9 while one program prints a million lines: nothing is lost.

The program runs under a `sidecar hands`, which nobody kills. The sidecar's tokens live 20 s, and
the hub ends connections whose token has lapsed; so the sidecar has to renew them all the time.
What is counted here is what a controller got, who called once and only waited.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from sidecar.cli.childprocess import interpreter
from sidecar.cli.demo.follower import Follower
from sidecar.cli.demo.household import CONTROLLER, RUN, Household, open_household
from sidecar.cli.demo.report import Line, first_problem
from sidecar.cli.demo.stage import Stage
from sidecar.client import Controller, Event, Run

STARTS = "starts"  # a file in the workspace, a line for each start of the program
ATTACH_TIME = 15.0  # seconds
CATCH_UP = 10.0  # seconds for the last events

# Prints numbered lines for so many seconds, and notes that it was started.
PROGRAM = """
import sys, time
lines, seconds, starts = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
with open(starts, "a") as file:
    file.write("started\\n")
began = time.monotonic()
for first in range(0, lines, 500):
    last = min(first + 500, lines)
    sys.stdout.write("".join(f"{n}\\n" for n in range(first, last)))
    sys.stdout.flush()
    time.sleep(max(0.0, began + seconds * last / lines - time.monotonic()))
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is printed for how long, how long a token lives (seconds) and how often it has to
    be renewed at least, and after which part of the lines who is killed."""

    lines: int = 1_000_000
    seconds: float = 38.0
    token_life: float = 20.0
    renewals: int = 3
    hub_at: float = 0.3
    sidecar_at: float = 0.85


WHOLE = Plan()
SHORT = Plan(100_000, 8.0, 4.0, 1)  # enough to see that a broken promise is noticed
WITHOUT_RENEWAL = Plan(100_000, 8.0, 600.0, 1)


class Tally:
    """Numbered lines as they come: how often each came, without keeping any."""

    def __init__(self) -> None:
        self.next = 0  # the number that is due
        self.delivered = 0
        self.doubled = 0
        self.missing = 0
        self.silence = 0.0  # the longest time without a byte, seconds
        self._rest = b""
        self._last = anyio.current_time()

    def take(self, chunk: bytes) -> None:
        now = anyio.current_time()
        self.silence, self._last = max(self.silence, now - self._last), now
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            number = int(line)
            self.delivered += 1
            if number < self.next:
                self.doubled += 1
                continue
            self.missing += number - self.next
            self.next = number + 1

    def finish(self, lines: int) -> None:
        """The program has printed so many."""
        self.missing += lines - self.next


async def outlast(stage: Stage) -> list[Line]:
    """One program, printing; its hub killed, its sidecar killed, its tokens lapsing."""
    plan = WITHOUT_RENEWAL if stage.breaks("renewed") else SHORT if stage.broken else WHOLE
    folder = stage.scratch / "lasting"
    async with (
        open_household(folder, token_life=plan.token_life) as household,
        Controller.connect(household.provider(), controller=CONTROLLER) as controller,
    ):
        run = await controller.attach(RUN, timeout=ATTACH_TIME)
        async with Follower.follow(run, skip_one=stage.breaks("numbered")) as follower:
            return await _Watch(stage, plan, household, run, follower).watch()


class _Watch:
    """The run of the program, and what is counted on the way."""

    def __init__(
        self, stage: Stage, plan: Plan, household: Household, run: Run, follower: Follower
    ) -> None:
        self._stage = stage
        self._plan = plan
        self._household = household
        self._run = run
        self._follower = follower
        self._tally = Tally()
        self._renewals = 0
        self._killed: list[str] = []
        self._first = run.incarnation

    async def watch(self) -> list[Line]:
        plan = self._plan
        program = [*interpreter(), "-c", PROGRAM, str(plan.lines), str(plan.seconds), STARTS]
        what = f"printing {plan.lines:,} lines in {plan.seconds:.0f} s"
        with self._stage.screen.busy(what):
            async with self._run.process(program) as process:
                async for _, chunk in process.output():
                    self._tally.take(chunk)
                    await self._strike(chunk)
                completed = await process.wait()
                lost = [*process.skipped.values(), *completed.gaps.values()]
        self._tally.finish(plan.lines)
        await self._count_renewals()
        return [
            self._lines(gaps=sum(map(len, lost))),
            self._survived(completed.status, await self._starts()),
            self._renewed(),
            await self._numbered(),
        ]

    async def _strike(self, chunk: bytes) -> None:
        """Whoever is due."""
        part = self._tally.next / self._plan.lines
        if not self._killed and part >= self._plan.hub_at:
            await self._kill("hub", self._household.start_hub)
        elif self._killed == ["hub"] and part >= self._plan.sidecar_at:
            await self._count_renewals()
            await self._kill("sidecar", self._household.start_sidecar)
            if self._stage.breaks("lines"):
                self._tally.take(chunk)  # as who does not go by offsets, and reads it again
            if self._stage.breaks("killed"):
                await self._start_again()

    async def _kill(self, name: str, start: Callable[[], Awaitable[None]]) -> None:
        self._killed.append(name)
        await self._household.kill(name)
        await start()
        self._stage.screen.say(f"killed the {name} with -9 at line {self._tally.next:,}")

    async def _start_again(self) -> None:
        """What a platform does that takes a lost connection for a lost program."""
        await self._run.exec([*interpreter(), "-c", PROGRAM, "1", "0", STARTS])

    async def _count_renewals(self) -> None:
        """A sidecar counts those of its own life."""
        self._renewals += (await self._run.info())["token"]["refreshes"]

    async def _starts(self) -> int:
        return (await self._run.files.read(STARTS)).count(b"\n")

    # the lines of the report --------------------------------------------------------------

    def _lines(self, *, gaps: int) -> Line:
        tally, printed = self._tally, self._plan.lines
        figure = (
            f"{printed:,} printed, {tally.delivered:,} delivered, {tally.doubled} doubled,"
            f" {gaps} gaps"
        )
        problem = first_problem(
            (tally.doubled == 0, f"lines came twice: {tally.doubled}"),
            (tally.missing == 0, f"lines did not come: {tally.missing}, gaps: {gaps}"),
        )
        return Line("lines", "no line is lost or doubled, whoever is killed", figure, problem)

    def _survived(self, status: int | None, starts: int) -> Line:
        problem = first_problem(
            (self._killed == ["hub", "sidecar"], f"only {self._killed} was killed"),
            (self._run.incarnation != self._first, "it is the same sidecar as before"),
            (starts == 1, f"the program was started {starts} times"),
            (status == 0, f"the program ended with {status}"),
        )
        figure = f"{starts} start, status {status}, silent {self._tally.silence:.1f} s"
        return Line("killed", "a program outlives the hub and the sidecar", figure, problem)

    def _renewed(self) -> Line:
        figure = f"{self._renewals} renewals of tokens of {self._plan.token_life:.0f} s"
        problem = first_problem(
            (
                self._renewals >= self._plan.renewals,
                f"{self._renewals} renewals, at least {self._plan.renewals} expected",
            )
        )
        return Line("renewed", "tokens are renewed while it runs", figure, problem)

    async def _numbered(self) -> Line:
        last = (await self._run.info())["events"]["last"]
        with anyio.move_on_after(CATCH_UP):
            await self._follower.until(last)
        items = self._follower.items
        came = [item.seq for item in items if isinstance(item, Event)]
        gaps = len(items) - len(came)
        problem = first_problem(
            (gaps == 0, f"{gaps} gaps were told"),
            (came == list(range(1, last + 1)), f"events {came} came, {last} there are"),
        )
        figure = f"{len(came)} of {last} events, {gaps} gaps"
        return Line("numbered", "its events are numbered on, each comes once", figure, problem)
