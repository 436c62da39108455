"""Programs: a call through the hub, a spawn inside the sidecar, and what programs print."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from pathlib import Path

import anyio
import anyio.to_thread

from sidecar.clock import SystemClock
from sidecar.hands.interface import Program
from sidecar.hands.local.hands import LocalHands
from sidecar.identity import new_id
from sidecar.pipes import PipeReader
from sidecar.protocol.spool import OnFull
from sidecar.spool import Spool
from sidecar.spoolbudget import SpoolBudget
from tests.bench.measure import (
    MIB,
    Scale,
    alternate,
    interleave,
    median_seconds,
    ms,
    rate,
    ratio,
    seconds,
)
from tests.bench.report import Row, at_least, at_most
from tests.bench.stage import Stage, hub_process, stage

TRUE = ["/bin/true"]


async def exec_true(scale: Scale) -> list[Row]:
    """`exec.run true`, from call to result, against the bare spawn of the same."""
    async with hub_process() as hub, stage(hub) as here:

        async def through_the_hub() -> None:
            await here.run.exec(TRUE)

        await through_the_hub()
        works = {"exec": through_the_hub, "bare": _spawn_bare, "ping": here.run.ping}
        found = await alternate(scale, works)
    behind = {name: ms(values) for name, values in found.items()}
    rows = [
        Row(
            "exec",
            "call to result / bare spawn, three pipes, new session",
            ratio(found["exec"], found["bare"]),
            at_most(2),
            sides=behind,
            rounds=scale.rounds,
        )
    ]
    if statistics.median(found["bare"]) <= 1.4e-3:
        latency = statistics.median(found["exec"]) * 1e3
        rows.append(Row("exec", "call to result", latency, at_most(3), "ms", rounds=scale.rounds))
    return rows


async def _spawn_bare() -> None:
    """On the event loop, as short as it gets: nothing else wants it meanwhile."""
    pipe = subprocess.PIPE
    with subprocess.Popen(TRUE, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True) as it:
        it.communicate()


async def spawn_inside(scale: Scale) -> list[Row]:
    """Spawn to exit in hands against `subprocess.run` in the same process, slim and fat."""
    ballast: list[bytearray] = []
    with tempfile.TemporaryDirectory() as folder:
        async with LocalHands.open_root(folder) as hands:

            async def once() -> None:
                key = new_id(SystemClock())
                running = await hands.spawn(Program(argv=TRUE), key=key)
                await hands.wait(key)
                await hands.forget(key)
                os.close(running.stdout)
                os.close(running.stderr)

            async def inside() -> float:
                ballast.clear()
                return await median_seconds(scale.samples, once)

            async def fat() -> float:
                ballast.append(bytearray(b"x") * scale.ballast)
                return await median_seconds(scale.samples, once)

            found = await alternate(scale, {"hands": once, "subprocess.run": _run_bare})
            weighed = await interleave(scale.rounds, {"slim": inside, "fat": fat})
            ballast.clear()
    behind = {name: ms(values) for name, values in found.items()}
    return [
        Row(
            "spawn",
            "spawn to exit inside / subprocess.run",
            ratio(found["hands"], found["subprocess.run"]),
            at_most(1.25),
            sides=behind,
            rounds=scale.rounds,
        ),
        Row(
            "spawn",
            f"the same with {scale.ballast // MIB} MiB more resident / without",
            ratio(weighed["fat"], weighed["slim"]),
            at_most(1.15),
            sides={name: ms(values) for name, values in weighed.items()},
            rounds=scale.rounds,
        ),
    ]


async def _run_bare() -> None:
    # On the event loop, which has nothing else to do.
    subprocess.run(TRUE, stdin=subprocess.DEVNULL, check=True)  # noqa: ASYNC221


async def output(scale: Scale) -> list[Row]:
    """What a program prints: into a spool, and through the hub, against `head | cat`."""
    rows = []
    async with hub_process() as hub, stage(hub) as here:
        for size in scale.output_bytes:

            async def through_the_hub(size: int = size) -> float:
                return await seconds(lambda: _follow(here, size))

            async def spooled(size: int = size) -> float:
                return await seconds(lambda: _spool(size))

            async def head_cat(size: int = size) -> float:
                return await seconds(lambda: _head_cat(size))

            found = await interleave(
                scale.rounds,
                {"spool": spooled, "hub": through_the_hub, "head | cat": head_cat},
            )
            behind = {name: rate(size, values) for name, values in found.items()}
            what = f"{size // MIB} MiB of output"
            rows += [
                Row(
                    "output",
                    f"{what} into a spool / head | cat",
                    ratio(found["head | cat"], found["spool"]),
                    # Two processes take 2 ms to start: below 100 MB that is what is measured.
                    at_least(0.8) if size >= 100 * MIB else None,
                    sides=behind,
                    rounds=scale.rounds,
                ),
                Row(
                    "output",
                    f"{what} followed through the hub / head | cat",
                    ratio(found["head | cat"], found["hub"]),
                    rounds=scale.rounds,
                ),
            ]
    return rows


async def _follow(here: Stage, size: int) -> None:
    got = 0
    async with here.run.process(["head", "-c", str(size), "/dev/zero"], on_full="hold") as program:
        async for chunk in program.stdout:
            got += len(chunk)
        (await program.wait()).check()
    assert got == size, f"{got} bytes came, {size} were printed"


async def _spool(size: int) -> None:
    """As `exec.run` reads a pipe when nobody follows: head and tail are kept."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with LocalHands.open_root(name) as hands:
            key = new_id(SystemClock())
            argv = ["head", "-c", str(size), "/dev/zero"]
            running = await hands.spawn(Program(argv=argv), key=key)
            spool = Spool(folder / "spool", SystemClock(), SpoolBudget(), on_full=OnFull.DROP)
            reader = PipeReader(spool, on_data=_nothing, on_full=_nothing)
            reader.connect(running.stdout)
            await reader.wait_finished()
            assert spool.size == size, f"{spool.size} bytes came, {size} were printed"
            await hands.wait(key)
            spool.close()
            os.close(running.stderr)


def _nothing() -> None:
    """A spool that drops never fills."""


async def _head_cat(size: int) -> None:
    command = f"head -c {size} /dev/zero | cat > /dev/null"
    await anyio.to_thread.run_sync(lambda: subprocess.run(["/bin/sh", "-c", command], check=True))
