"""What a bulk stream does to the latency of everything else on the same connection, and what
programs that behave badly do."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from sidecar.client import Process
from tests.bench.measure import MIB, Scale, interleave, ms, percentile, probe, ratio
from tests.bench.neighbours import pings
from tests.bench.programs import TRUE
from tests.bench.report import Row, at_most
from tests.bench.stage import Stage, hub_process, stage

PACE = 8e6  # bytes a second


async def latency(scale: Scale) -> list[Row]:
    """Round trips and programs beside a bulk stream, and beside programs without end."""
    async with hub_process() as hub, stage(hub) as here:
        (here.workspace / "big").write_bytes(os.urandom(max(scale.file_bytes, 8 * MIB)))
        rows = await _flat_out(here, scale)
        rows += await _paced(here, scale)
        rows += await pings(here, scale)
    return rows


async def _flat_out(here: Stage, scale: Scale) -> list[Row]:
    async def median_of(work: Callable[[], Awaitable[object]]) -> float:
        return percentile(await probe(work, scale.beside), 0.5)

    async def beside(work: Callable[[], Awaitable[object]]) -> float:
        async with _bulk(here, pace=None):
            return await median_of(work)

    async def program() -> None:
        await here.run.exec(TRUE)

    found = await interleave(
        scale.rounds,
        {
            "ping, idle": lambda: median_of(here.run.ping),
            "ping, bulk": lambda: beside(here.run.ping),
            "exec, idle": lambda: median_of(program),
            "exec, bulk": lambda: beside(program),
        },
    )
    behind = {name: ms(values) for name, values in found.items()}
    return [
        Row(
            "beside",
            "control round trip beside bulk flat out / idle, p50",
            ratio(found["ping, bulk"], found["ping, idle"]),
            at_most(10),
            sides={name: behind[name] for name in ("ping, bulk", "ping, idle")},
            rounds=scale.rounds,
        ),
        Row(
            "beside",
            "exec true beside bulk flat out / idle, p50",
            ratio(found["exec, bulk"], found["exec, idle"]),
            at_most(3),
            sides={name: behind[name] for name in ("exec, bulk", "exec, idle")},
            rounds=scale.rounds,
        ),
    ]


async def _paced(here: Stage, scale: Scale) -> list[Row]:
    """Ping, and a keystroke echoed by a program, beside a reader that takes 8 MB a second."""
    span = scale.beside * scale.rounds
    async with _bulk(here, pace=PACE):
        pings = await probe(here.run.ping, span)
    async with here.run.process(["cat"], stdin=True) as program, _bulk(here, pace=PACE):
        echoes = await probe(lambda: _echo(program), span)
        program.close_stdin()
    return [
        _tail("ping", pings),
        _tail("a keystroke and its echo", echoes),
    ]


def _tail(what: str, values: list[float]) -> Row:
    return Row(
        "beside",
        f"{what} beside bulk at {PACE / 1e6:g} MB/s, p99",
        percentile(values, 0.99) * 1e3,
        at_most(15),
        "ms",
        sides={"p50": ms(values), "samples": str(len(values))},
    )


async def _echo(program: Process) -> None:
    await program.write(b"x")
    assert await program.stdout.receive() == b"x"


@asynccontextmanager
async def _bulk(here: Stage, *, pace: float | None) -> AsyncIterator[None]:
    """A file that is read for as long as the block lasts; it is running when the block begins."""
    async with anyio.create_task_group() as group:
        under_way = anyio.Event()

        async def pull() -> None:
            while True:
                began, got = time.perf_counter(), 0
                async with here.run.files.open("big") as download:
                    async for chunk in download:
                        under_way.set()
                        got += len(chunk)
                        if pace is not None:
                            await anyio.sleep(max(0.0, began + got / pace - time.perf_counter()))

        group.start_soon(pull)
        await under_way.wait()
        yield
        group.cancel_scope.cancel()
