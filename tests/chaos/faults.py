"""The kinds of fault, and which of them a seed brings, where and when: pure.

A fault fires at a count: so many bytes or frames through a link, so many calls begun or ended,
chunks or events received by the controller, each counted from the moment at which the fault
before it was over. Kinds go round from seed to seed, so that a range of seeds has them all.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.chaos.proxy import Way


class Kind(StrEnum):
    """What happens."""

    CUT = "cut"  # connections of a link are reset
    FRAME = "frame"  # the same, in the middle of a frame
    STALL = "stall"  # a link stands still
    HALF_OPEN = "half-open"  # one direction goes nowhere unnoticed, then the link is cut
    DELAY = "delay"  # a link becomes slow
    OUTAGE = "outage"  # nobody is let in for a while
    TOKEN = "token"  # the tokens have lapsed when the connection is cut
    HUB = "hub"  # kill -9, and a new one that knows nobody
    CLOSE = "close"  # the hub closes connections with a code
    FORGET = "forget"  # the hub drops connections and will not have them recovered
    ACKS = "acks"  # the hub's acks are lost, and then the connection
    SLOW_ACKS = "slow-acks"  # they come late
    AWAY = "away"  # the hub drops all, and takes nobody for a while
    EXPIRY = "expiry"  # the hub ends connections when their token expires
    CORE = "core"  # kill -9
    HANDS = "hands"  # kill -9
    BOTH = "both"  # core and hands at once, as when a container is killed
    CONTROLLER = "controller"  # kill -9
    DISK = "disk"  # no space left in the state folder
    TWIN = "twin"  # a second, older sidecar of the run
    INTRUDER = "intruder"  # a second core on the same state folder
    PARTITION = "partition"  # core's packets vanish; only with namespaces, see `partition`


COMMON = [kind for kind in Kind if kind is not Kind.PARTITION]


class Unit(StrEnum):
    """What is counted."""

    BYTES = "bytes"
    FRAMES = "frames"
    CALLS = "call"  # the last three as the controller tells them
    ENDS = "done"
    CHUNKS = "chunk"
    EVENTS = "event"


@dataclass(frozen=True, slots=True)
class Fault:
    """`count` of `unit` after the fault before; bytes and frames go one `way` over `link`."""

    kind: Kind
    unit: Unit
    count: int
    link: str
    way: Way
    into: int  # bytes of the frame that still pass
    time: float  # seconds that it lasts, or until what was killed is started again
    code: int  # with which the hub closes
    frames: int  # of the hub, until it does what it was told
    also: Kind | None = None  # strikes at the end of its time, before it is mended

    @property
    def kinds(self) -> set[Kind]:
        return {self.kind} if self.also is None else {self.kind, self.also}

    def __str__(self) -> str:
        where = f" {self.link} {self.way}" if self.unit in (Unit.BYTES, Unit.FRAMES) else ""
        also = f" and {self.also}" if self.also is not None else ""
        return f"{self.kind}{also} at {self.unit} {self.count}{where}"


_COUNTS = {
    Unit.FRAMES: (1, 25),
    Unit.CALLS: (1, 10),
    Unit.ENDS: (1, 10),
    Unit.CHUNKS: (1, 40),
    Unit.EVENTS: (1, 25),
}
_FEW_BYTES, _MANY_BYTES = (1, 6_000), (1, 500_000)


_ALSO = (None, None, None, Kind.CUT, Kind.CORE, Kind.CONTROLLER)


def plan(seed: int, rounds: int, kinds: Sequence[Kind]) -> list[Fault]:
    """`rounds` faults, of the kinds whose turn it is."""
    chance = random.Random(f"faults {seed}")
    turns = [kinds[(seed * rounds + n) % len(kinds)] for n in range(rounds)]
    return [_fault(chance, kind, set(kinds) - _touched_by(kind)) for kind in turns]


def _touched_by(kind: Kind) -> set[Kind]:
    """What cannot strike beside it: nobody dies twice, an intruder would get the folder of a dead
    core, and a new controller speaks to the older of two sidecars until the other answers."""
    others = {
        Kind.BOTH: {Kind.CORE},
        Kind.INTRUDER: {Kind.CORE},
        Kind.TWIN: {Kind.CONTROLLER},
    }
    return {kind, *others.get(kind, ())}


def _fault(chance: random.Random, kind: Kind, kinds: set[Kind]) -> Fault:
    link = chance.choice(("core", "controller"))
    way = chance.choice(list(Way))
    unit = Unit.FRAMES if kind is Kind.FRAME else chance.choice(list(Unit))
    carries_output = (link == "core") is (way is Way.UP)
    bounds = _COUNTS.get(unit) or (_MANY_BYTES if carries_output else _FEW_BYTES)
    return Fault(
        kind=kind,
        unit=unit,
        count=chance.randrange(*bounds),
        link=link,
        way=way,
        into=chance.choice((1, 2, 3, 20, 200)),
        time=chance.uniform(0.05, 0.8),
        code=chance.choice((1001, 1008, 1011, 1012)),
        frames=chance.randrange(1, 10),
        also=chance.choice([also for also in _ALSO if also in kinds or also is None]),
    )
