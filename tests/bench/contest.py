"""Programs: the bare floor, ours in each form, and a peer, side by side in one run.

All run the same programs in turns, so that what disturbs one disturbs all. Ours and the floor
are timed in this process, the peer in its own client.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sidecar.hands.interface import Terminal
from tests.bench import peer
from tests.bench.contestants import Floor, Library, Takes, Through, Within, apart, within
from tests.bench.measure import MIB, Scale, interleave, ms, percentile, rate, ratio
from tests.bench.report import Goal, Row, at_most
from tests.bench.stage import hub_process, stage

TRUE = ["/bin/true"]
BLOCK = MIB  # bytes; what programs print is this block over and over
FLOOR, LIBRARY = "bare spawn", "subprocess.run"
INSIDE, APART = "hands inside", "hands apart"
WHOLE, WHOLE_APART = "exec.run", "exec.run, hands apart"


@dataclass(slots=True)
class Field:
    """Who takes part."""

    floor: Floor
    inside: Within
    apart: Within
    whole: Through
    all: dict[str, Takes]
    block: Path  # a file of `BLOCK` bytes, which any encoding leaves as they are

    def printing(self, size: int) -> list[str]:
        """A program that prints so many bytes."""
        return ["/bin/cat", *[str(self.block)] * (size // BLOCK)]


@asynccontextmanager
async def _field(scale: Scale) -> AsyncIterator[Field]:
    async with AsyncExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        block = folder / "block"
        block.write_bytes(b"0123456789abcde\n" * (BLOCK // 16))
        floor = Floor()
        inside = await exits.enter_async_context(within(folder))
        hub = await exits.enter_async_context(hub_process())
        beyond = await exits.enter_async_context(apart(folder))
        whole = Through(await exits.enter_async_context(stage(hub)))
        both = stage(hub, run="bench-apart", is_apart=True)
        whole_apart = Through(await exits.enter_async_context(both))
        everyone: dict[str, Takes] = {
            FLOOR: floor.seconds,
            LIBRARY: Library().seconds,
            INSIDE: inside.seconds,
            APART: beyond.seconds,
            WHOLE: whole.seconds,
            WHOLE_APART: whole_apart.seconds,
        }
        python = await peer.installed(may_install=scale.may_install)
        if python is not None:
            rival = await exits.enter_async_context(peer.peer(python))
            everyone[peer.NAME] = rival.seconds
        yield Field(floor, inside, beyond, whole, everyone, block)


async def programs(scale: Scale) -> list[Row]:
    """`true`, the first byte of an echo, much output, and many at once, whoever runs them."""
    rows: list[Row] = []
    async with _field(scale) as field:
        rows += await _short(field, scale)
        rows += await _first_byte(field, scale)
        for size in scale.output_bytes:
            rows += await _output(field, size, scale)
        rows += await _at_once(field, scale)
    if peer.NAME not in field.all:
        rows.append(Row("programs", f"{peer.NAME}: not installed", None))
    return rows


async def _short(field: Field, scale: Scale) -> list[Row]:
    sides = {name: partial(takes, TRUE, printed=0) for name, takes in field.all.items()}
    for side in sides.values():
        await side()
    found = await interleave(scale.rounds * scale.samples, sides)
    goals = {(INSIDE, LIBRARY): at_most(1.25), (WHOLE, FLOOR): at_most(2)}
    return _compare("true", found, _tail, goals)


async def _first_byte(field: Field, scale: Scale) -> list[Row]:
    found = await interleave(
        scale.rounds * scale.samples,
        {
            FLOOR: field.floor.first_byte,
            INSIDE: field.inside.first_byte,
            "a terminal inside": partial(field.inside.first_byte, Terminal()),
            APART: field.apart.first_byte,
            "a terminal apart": partial(field.apart.first_byte, Terminal()),
            WHOLE: field.whole.first_byte,
        },
    )
    goals = {
        ("a terminal inside", INSIDE): at_most(1.15),
        ("a terminal apart", APART): at_most(1.15),
    }
    return _compare("first byte of echo", found, _tail, goals)


async def _output(field: Field, size: int, scale: Scale) -> list[Row]:
    argv = field.printing(size)
    sides = {name: partial(takes, argv, printed=size) for name, takes in field.all.items()}
    sides["followed"] = partial(field.whole.follow, argv, size)
    found = await interleave(scale.rounds, sides)
    return _compare(f"{size // MIB} MiB of output", found, partial(_rate, size), {})


async def _at_once(field: Field, scale: Scale) -> list[Row]:
    count = scale.at_once
    sides = {
        name: partial(takes, TRUE, printed=0, times=count) for name, takes in field.all.items()
    }
    found = await interleave(scale.rounds, sides)
    return _compare(f"{count} true at once", found, _tail, {})


def _compare(
    what: str,
    found: Mapping[str, list[float]],
    told: Callable[[list[float]], dict[str, str]],
    goals: Mapping[tuple[str, str], Goal],
) -> list[Row]:
    """Each against the floor, and what has a goal against the other side of it."""
    pairs = dict.fromkeys([*((name, FLOOR) for name in found), *goals])
    return [
        Row(
            "programs",
            f"{what}: {above} / {below}",
            ratio(found[above], found[below]),
            goals.get((above, below)),
            sides=told(found[above]),
            rounds=len(found[above]),
        )
        for above, below in pairs
    ]


def _tail(taken: list[float]) -> dict[str, str]:
    return {"p50": ms(taken), "p99": f"{percentile(taken, 0.99) * 1e3:.2f} ms"}


def _rate(size: int, taken: list[float]) -> dict[str, str]:
    return {"p50": f"{percentile(taken, 0.5):.3f} s", "rate": rate(size, taken)}
