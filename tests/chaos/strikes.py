"""How each kind of fault is done to a stage, at once, and how it is mended afterwards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from tests.chaos.faults import Fault, Kind
from tests.chaos.stage import Stage

LAPSED = -1000.0  # seconds; a token that is long gone
BRIEF = 2.0  # seconds that a token lasts where the hub minds
SLOW = 0.03  # seconds by which a slow link is late
VISIT = 1.0  # seconds that a second sidecar stays
BALLAST = 256 * 1024 * 1024  # bytes; more than the state folder's file system has


class Strikes:
    """`strike` is called at the very byte or count, `mend` after it."""

    def __init__(self, stage: Stage, restarted: Callable[[], None]) -> None:
        self._stage = stage
        self._controller_restarted = restarted

    def strike(self, fault: Fault) -> None:
        self._strike(fault.kind, fault)

    def _strike(self, kind: Kind, fault: Fault) -> None:
        stage, link = self._stage, self._stage.links[fault.link]
        match kind:
            case Kind.CUT | Kind.FRAME:
                link.cut()
            case Kind.STALL:
                link.stall()
            case Kind.HALF_OPEN:
                link.swallowed.add(fault.way)
            case Kind.DELAY:
                link.lag = SLOW
            case Kind.OUTAGE:
                link.is_down = True
                link.cut()
            case Kind.TOKEN:
                stage.write_tokens(lifetime=LAPSED)
                for each in stage.links.values():
                    each.cut()
            case Kind.CLOSE:
                stage.tell_hub("cut_after", after=fault.frames, code=fault.code, times=2)
            case Kind.FORGET:
                stage.tell_hub("cut_after", after=fault.frames, forget=True, times=2)
            case Kind.ACKS:
                stage.tell_hub("lose_acks", count=fault.frames)
            case Kind.SLOW_ACKS:
                stage.tell_hub("ack_delay", seconds=fault.time)
            case Kind.AWAY:
                stage.tell_hub("leave", seconds=fault.time, forget=fault.frames % 2 == 0)
            case Kind.EXPIRY:
                stage.tell_hub("enforce_expiry", on=True)
                stage.write_tokens(lifetime=BRIEF)
                stage.tell_hub("cut_after", after=1, forget=True, times=2)
            case Kind.HUB | Kind.CORE | Kind.HANDS | Kind.CONTROLLER:
                stage.children[str(kind)].kill()
            case Kind.BOTH:
                stage.children["core"].kill()
                stage.children["hands"].kill()
            case Kind.DISK:
                fill(stage.state)
            case Kind.TWIN:
                stage.start_twin()
            case Kind.INTRUDER:
                stage.start_intruder()

    async def mend(self, fault: Fault) -> None:
        await anyio.sleep(fault.time)
        if fault.also is not None:
            self._strike(fault.also, fault)
            self._restart(fault.also)
        again: dict[Kind, Callable[[], Awaitable[None]]] = {
            Kind.HALF_OPEN: self._cut_and_heal,
            Kind.TOKEN: self._renew,
            Kind.ACKS: self._cut_all,
            Kind.SLOW_ACKS: self._ack_at_once,
            Kind.EXPIRY: self._expire,
            Kind.DISK: self._make_room,
            Kind.TWIN: self._end_twin,
            Kind.INTRUDER: self._end_twin,
        }
        if fault.kind in again:
            await again[fault.kind]()
        for link in self._stage.links.values():
            link.heal()
        self._restart(fault.kind)

    def _restart(self, kind: Kind) -> None:
        match kind:
            case Kind.HUB:
                self._stage.start_hub()
            case Kind.CORE:
                self._stage.start_core()
            case Kind.HANDS:
                self._stage.start_hands()
            case Kind.BOTH:
                self._stage.start_hands()
                self._stage.start_core()
            case Kind.CONTROLLER:
                self._stage.start_controller()
                self._controller_restarted()

    async def _cut_and_heal(self) -> None:
        for link in self._stage.links.values():
            if link.swallowed:
                link.cut()

    async def _cut_all(self) -> None:
        for link in self._stage.links.values():
            link.cut()

    async def _ack_at_once(self) -> None:
        self._stage.tell_hub("ack_delay", seconds=0)

    async def _expire(self) -> None:
        """The connections that were made with the brief tokens end, and find good ones."""
        self._stage.write_tokens()
        await anyio.sleep(BRIEF)
        self._stage.tell_hub("enforce_expiry", on=False)

    async def _renew(self) -> None:
        self._stage.write_tokens()

    async def _make_room(self) -> None:
        (self._stage.state / "ballast").unlink(missing_ok=True)

    async def _end_twin(self) -> None:
        await anyio.sleep(VISIT)
        await self._stage.children["twin"].end(patience=5.0)


def fill(folder: Path) -> None:
    """Take all the space there is on a file system that is small and ours."""
    fd = os.open(folder / "ballast", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                at = os.fstat(fd).st_size
                for offset in range(at, BALLAST, size):
                    os.posix_fallocate(fd, offset, size)
    finally:
        os.close(fd)
