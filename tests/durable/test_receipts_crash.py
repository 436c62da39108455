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
from dyingdisk import Died, DyingDisk

from sidecar.clock import ManualClock
from sidecar.context import CallContext
from sidecar.durable import log, writer
from sidecar.durable.disk import Disk
from sidecar.durable.receipts import open_receipts
from sidecar.durable.writer import LogWriter
from sidecar.errors import Code, Started
from sidecar.protocol import calls
from sidecar.protocol import envelope as wire

# A thread of a process that died has ended by `SystemExit`.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

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
        self.effects = 0
        self.may_forget = False  # what was written and not synced is gone
        self.accepted = False
        self.result: wire.Result | None = None

    async def handler(self, ctx: CallContext, arguments: Any) -> dict[str, Any]:
        await ctx.started()
        self.effects += 1
        return {"effects": self.effects}

    def hear(self, bench: Bench) -> None:
        """As a client would, which sends a call again until it is accepted."""
        for said in bench.said():
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

    async def live(self, folder: Path, disk: Disk, *, boot: bytes = BOOT) -> None:
        """One life: until the call has its answer, or death."""
        threads = LogWriter(sync_delay=0.0)
        try:
            clock = ManualClock(wall=LATER)
            receipts = await open_receipts(folder, threads, clock, boot=boot, disk=disk)
            await self._call(Bench(receipts, clock=clock), disk)
            if not has_died(disk):
                await receipts.aclose()
        except Died:
            pass
        finally:
            if isinstance(disk, DyingDisk) and disk.has_died:
                disk.bury(threads)
            else:
                await threads.aclose()

    async def _call(self, bench: Bench, disk: Disk) -> None:
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
                while self.result is None and not has_died(disk):
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


def has_died(disk: Disk) -> bool:
    return isinstance(disk, DyingDisk) and disk.has_died


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("is_cut", [False, True])
async def test_it_runs_at_most_once_and_its_caller_hears_the_truth(
    tmp_path: Path, half: bool, is_cut: bool
) -> None:
    outcomes: set[str] = set()
    for dies_at in count(1):
        world = World()
        folder, remains = tmp_path / f"{dies_at}", tmp_path / f"{dies_at}+"
        disk = DyingDisk(folder, remains, dies_at, half=half)
        await world.live(folder, disk)
        if not disk.has_died:
            break
        if is_cut:
            world.may_forget = True
            disk.cut_power()
        await world.live(remains, Disk(), boot=NEXT_BOOT if is_cut else BOOT)
        world.check()
        outcomes.add("answer" if world.result and world.result.error is None else "unknown")
    assert dies_at > 8
    assert outcomes == {"answer", "unknown"}


async def test_dying_again_while_starting_changes_nothing(tmp_path: Path) -> None:
    for first in range(4, 16, 3):
        for second in count(1):
            world = World()
            names = [tmp_path / f"{first}-{second}{life}" for life in "abc"]
            disk = DyingDisk(names[0], names[1], first)
            await world.live(names[0], disk)
            if not disk.has_died or not names[1].exists():
                break
            disk = DyingDisk(names[1], names[2], second)
            await world.live(names[1], disk)
            if not disk.has_died:
                break
            await world.live(names[2], Disk())
            world.check()
