"""Runs one seed: starts everything, brings the faults, lets the work end, hands over the evidence.

A watchdog bounds it: a seed that does not come to its end has hung, which is a violation.
"""

from __future__ import annotations

import os
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from tests.chaos.faults import Fault, Kind, Unit
from tests.chaos.proxy import Trigger
from tests.chaos.stage import Stage, ending
from tests.chaos.strikes import Strikes

WATCHDOG = 75.0  # seconds of one seed
REACH = 8.0  # seconds until a fault's count must be reached
FINISH = 30.0  # seconds for the work to end once the faults are over
START = 30.0  # seconds until the controller is attached for the first time
TAIL = 3  # operations that have to end after the last fault


@dataclass(slots=True)
class Struck:
    """A fault that came, and how much was under way."""

    fault: Fault
    at: float
    over: float
    open_calls: int


@dataclass(slots=True)
class Evidence:
    """What the judge gets, besides the files."""

    folder: Path
    seed: int
    is_apart: bool
    struck: list[Struck] = field(default_factory=list)
    unreached: list[Fault] = field(default_factory=list)
    statuses: dict[str, int | None] = field(default_factory=dict)
    peak_memory: int = 0
    leftovers: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def struck_during(self, kinds: set[Kind], begin: float, end: float) -> bool:
        """Whether one of these kinds struck, or lasted, in this time."""
        return any(
            one.fault.kinds & kinds and one.at <= end and one.over >= begin for one in self.struck
        )


class Conductor:
    """One seed, once."""

    def __init__(
        self,
        stage: Stage,
        faults: list[Fault],
        *,
        strikes: type[Strikes] = Strikes,
        watchdog: float = WATCHDOG,
        patience: float = FINISH,
    ) -> None:
        self.evidence = Evidence(stage.folder, stage.seed, stage.is_apart)
        self._watchdog = watchdog
        self._patience = patience
        self._stage = stage
        self._faults = faults
        self._strikes = strikes(stage, self._listen_anew)
        self._open: set[str] = set()
        self._counted: dict[str, int] = {}
        self._heard = anyio.Event()
        self._trigger: tuple[Unit, int] | None = None
        self._struck: Struck | None = None
        self._fault: Fault | None = None
        self._lives = 0

    async def run(self) -> Evidence:
        began = time.monotonic()
        with ending(self._stage):
            with anyio.move_on_after(self._watchdog) as watchdog:
                async with AsyncExitStack() as exits:
                    for link in self._stage.links.values():
                        await exits.enter_async_context(link.serve())
                    self._stage.furnish()
                    await self._play()
            if watchdog.cancelled_caught:
                self._problem(f"hung: not over after {self._watchdog:g} s")
        self.evidence.seconds = time.monotonic() - began
        return self.evidence

    async def _play(self) -> None:
        async with anyio.create_task_group() as group:
            self._group = group
            await self._stage.start_all()
            self._listen_anew()
            if await self._reached("attached", 1, START):
                for fault in self._faults:
                    await self._bring(fault)
                await self._reached("done", self._count("done") + TAIL, self._patience)
                await self._finish()
            else:
                self._problem(f"no controller was attached after {START:g} s")
            group.cancel_scope.cancel()

    # faults -------------------------------------------------------------------------------

    async def _bring(self, fault: Fault) -> None:
        self._fault, self._struck = fault, None
        if fault.unit in (Unit.BYTES, Unit.FRAMES):
            by_frame = fault.unit is Unit.FRAMES
            trigger = Trigger(fault.way, self._strike, fault.count, by_frame, fault.into)
            self._stage.links[fault.link].arm(trigger)
        else:
            self._trigger = (fault.unit, self._count(fault.unit) + fault.count)
        with anyio.move_on_after(REACH):
            while self._struck is None:
                await self._wait_heard()
        self._trigger = None
        for link in self._stage.links.values():
            link.disarm()
        if self._struck is None:
            self.evidence.unreached.append(fault)
            return
        await self._strikes.mend(fault)
        self._struck.over = time.monotonic()

    def _strike(self) -> None:
        """At the very byte, or count."""
        assert self._fault is not None
        now = time.monotonic()
        self._struck = Struck(self._fault, now, now, len(self._open))
        self.evidence.struck.append(self._struck)
        self._strikes.strike(self._fault)
        self._heard.set()

    # the controller's words ---------------------------------------------------------------

    def _listen_anew(self) -> None:
        self._open.clear()
        self._lives += 1
        self._group.start_soon(self._listen)

    async def _listen(self) -> None:
        output = self._stage.children["controller"].process.stdout
        assert output is not None
        fd, rest = output.fileno(), b""
        os.set_blocking(fd, False)
        while True:
            await anyio.wait_readable(fd)
            data = os.read(fd, 65536)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(line.decode())

    def _take(self, line: str) -> None:
        what, _, id = line.partition(" ")
        self._counted[what] = self._count(what) + 1
        if what == "call":
            self._open.add(id)
        elif what == "done":
            self._open.discard(id)
        if self._trigger is not None:
            unit, count = self._trigger
            if self._count(unit) >= count:
                self._trigger = None
                self._strike()
        self._heard.set()

    def _count(self, what: str) -> int:
        return self._counted.get(what, 0)

    async def _reached(self, what: str, count: int, patience: float) -> bool:
        with anyio.move_on_after(patience):
            while self._count(what) < count:
                await self._wait_heard()
            return True
        return False

    async def _wait_heard(self) -> None:
        self._heard = anyio.Event()
        await self._heard.wait()

    # the end ------------------------------------------------------------------------------

    async def _finish(self) -> None:
        controller = self._stage.children["controller"]
        if not controller.is_alive:
            self._problem(f"the controller ended by itself: {controller.process.returncode}")
        else:
            assert controller.process.stdin is not None
            controller.process.stdin.write(b"finish\n")
            controller.process.stdin.flush()
            if not await controller.ended(self._patience):
                names = ", ".join(sorted(self._open)) or "none"
                self._problem(f"hung: not finished in {self._patience:g} s; open calls: {names}")
        if self._stage.children["core"].is_alive:
            self.evidence.peak_memory = self._stage.peak_memory()
        self.evidence.statuses = await self._stage.end_all()
        with anyio.move_on_after(5.0):
            while self._stage.leftovers():  # noqa: ASYNC110
                await anyio.sleep(0.02)
        self.evidence.leftovers = self._stage.leftovers()

    def _problem(self, what: str) -> None:
        self.evidence.problems.append(what)
