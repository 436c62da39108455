"""A call with an effect, and a process that dies at every operation of the disk.

The model is the world outside: how often the effect happened, and what the caller was told.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from callbench import ID, Bench, running
from disks import MortalDisk

from sidecar.clock import ManualClock
from sidecar.context import CallContext
from sidecar.durable import log, writer
from sidecar.durable.receipts import open_receipts
from sidecar.durable.writer import LogWriter
from sidecar.errors import Code, Started
from sidecar.protocol import calls
from sidecar.protocol import envelope as wire
from sidecar.statefolder import StateUnusable

BOOT, NEXT_BOOT = b"b" * 16, b"c" * 16
LATER = 1_800_000_010.0  # after the id was made


@pytest.fixture(autouse=True)
def no_long_goodbyes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not answer is waited for at the end of a process."""
    for module in (log, writer):
        monkeypatch.setattr(module, "CLOSE_TIME", 0.05)


class World:
    """What a caller knows and what was done, over all lives of the sidecar."""

    def __init__(self) -> None:
        self.disk: MortalDisk
        self.effects = 0
        self.may_forget = False  # what was written and not synced is gone
        self.accepted = False
        self.result: wire.Result | None = None

    async def handler(self, ctx: CallContext, arguments: Any) -> dict[str, Any]:
        await ctx.started()
        if not self.disk.is_dead:  # what is dead may go on for a moment; the world sees no effect
            self.effects += 1
        return {"effects": self.effects}

    def hear(self, bench: Bench) -> None:
        """As a client would, which sends a call again until it is accepted."""
        for said in bench.said():
            if self.disk.is_dead:
                return
            if isinstance(said, wire.Accepted):
                self.accepted = True
            elif isinstance(said, wire.Result):
                assert self.result in (None, said), "another answer than a moment ago"
                self.result = said
            elif isinstance(said, wire.State):
                self._hear_state(bench, said.state)

    def _hear_state(self, bench: Bench, state: str) -> None:
        if state == "unknown_call" and self.accepted:
            assert self.may_forget, "an accepted call is unknown"
            self.result = calls.failure(ID, calls.outcome_unknown(ID))
        elif state in ("unknown_call", "resend"):
            self.accepted = False
            bench.call(1)

    async def live(self, disk: MortalDisk, *, boot: bytes = BOOT) -> None:
        """One life: until the call has its answer, or death."""
        self.disk = disk
        async with LogWriter(sync_delay=0.0) as threads:
            clock = ManualClock(wall=LATER)
            try:
                receipts = await open_receipts(disk.folder, threads, clock, boot=boot, disk=disk)
            except StateUnusable:
                assert disk.is_dead
            else:
                await self._call(Bench(receipts, clock=clock))
                await receipts.aclose()
        disk.bury()

    async def _call(self, bench: Bench) -> None:
        heard = self.result
        self.result = None
        async with running(bench.dispatcher):
            bench.dispatcher.recover()
            bench.install(self.handler)
            if self.accepted or heard is not None:
                bench.dispatcher.ask(wire.Ask(ID), bench.origin)
            else:
                bench.call(1)
            with anyio.fail_after(10):
                while self.result is None and not self.disk.is_dead:
                    await anyio.sleep(0.001)
                    self.hear(bench)
        if heard is not None:
            assert self.may_forget or self.result in (None, heard), "the answer has changed"
            self.result = heard

    def check(self) -> None:
        """At the end the caller has the truth."""
        assert self.effects <= 1, "it ran twice"
        assert self.result is not None
        if self.result.error is None:
            assert wire.loads(self.result.value or b"") == {"effects": 1}
            assert self.effects == 1
        else:
            error = wire.error_from(self.result.error)
            assert error.code in (Code.OUTCOME_UNKNOWN, Code.EXPIRED_ID)
            assert error.started is Started.UNKNOWN


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("is_cut", [False, True])
async def test_it_runs_at_most_once_and_its_caller_hears_the_truth(
    tmp_path: Path, part: float, is_cut: bool
) -> None:
    outcomes: set[str] = set()
    for dies_at in count(1):
        world = World()
        folder = tmp_path / f"{dies_at}"
        disk = MortalDisk(folder, dies_at=dies_at, part=part)
        await world.live(disk)
        if not disk.has_died:
            break
        if is_cut:
            world.may_forget = True
            disk.cut_power()
        await world.live(MortalDisk(folder), boot=NEXT_BOOT if is_cut else BOOT)
        world.check()
        outcomes.add("answer" if world.result and world.result.error is None else "unknown")
    assert dies_at > 8
    assert outcomes == {"answer", "unknown"}


async def test_dying_again_while_starting_changes_nothing(tmp_path: Path) -> None:
    for first in range(4, 16, 3):
        for second in count(1):
            world = World()
            folder = tmp_path / f"{first}-{second}"
            disk = MortalDisk(folder, dies_at=first)
            await world.live(disk)
            if not disk.has_died:
                break
            disk = MortalDisk(folder, dies_at=second)
            await world.live(disk)
            if not disk.has_died:
                break
            await world.live(MortalDisk(folder))
            world.check()
