"""Bulk: a file read and written through the hub, digest-checked, against the pump."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

import anyio.to_thread

from tests.bench.measure import (
    MIB,
    Scale,
    forget_peak,
    interleave,
    rate,
    ratio,
    seconds,
    status,
)
from tests.bench.pump import MESSAGE, pump
from tests.bench.report import Row, at_least, at_most
from tests.bench.stage import Stage, hub_process, stage


async def transfer(scale: Scale) -> list[Row]:
    """`files.read` and `files.write` of one size against the pump of as many bytes."""
    size = scale.file_bytes
    data = os.urandom(size)
    async with hub_process() as hub, stage(hub) as here, pump(hub) as denominator:
        (here.workspace / "source").write_bytes(data)

        async def write() -> float:
            return await seconds(lambda: here.run.files.write("target", data))

        found = await interleave(
            scale.rounds,
            {
                "read": lambda: seconds(lambda: _read(here, size)),
                "pump": lambda: denominator.run(size // MESSAGE, MESSAGE),
                "write": write,
                "fsync": lambda: _fsync(here.workspace / "synced", data),
            },
        )
    bare = [whole - sync for whole, sync in zip(found["write"], found["fsync"], strict=True)]
    behind = {name: rate(size, found[name]) for name in ("read", "write", "pump")}
    fsync = {"fsync alone": f"{statistics.median(found['fsync']) * 1e3:.0f} ms"}
    what = f"{size // MIB} MiB"
    return [
        Row(
            "files",
            f"{what} read, digest checked / pump",
            ratio(found["pump"], found["read"]),
            at_least(0.45),
            sides=behind,
            rounds=scale.rounds,
        ),
        Row(
            "files",
            f"{what} written, digest checked, less fsync / pump",
            ratio(found["pump"], bare),
            at_least(0.4),
            sides=fsync,
            rounds=scale.rounds,
        ),
        Row(
            "files",
            f"{what} written with its fsync / pump",
            ratio(found["pump"], found["write"]),
            rounds=scale.rounds,
        ),
    ]


async def _read(here: Stage, size: int) -> None:
    got = 0
    async with here.run.files.open("source") as download:
        async for chunk in download:
            got += len(chunk)
    assert got == size, f"{got} bytes came, the file has {size}"


async def _fsync(path: Path, data: bytes) -> float:
    """Seconds that fsync takes after as much was written to the same file system."""

    def work() -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(data)

    def sync() -> None:
        with path.open("rb") as file:
            os.fsync(file.fileno())

    await anyio.to_thread.run_sync(work)
    return await seconds(lambda: anyio.to_thread.run_sync(sync))


async def memory(scale: Scale) -> list[Row]:
    """What a transfer adds to the resident memory of a sidecar that is warm, at its peak."""
    size = scale.file_bytes
    data = os.urandom(size)
    rows = []
    for verb in ("read", "write"):
        async with hub_process() as hub, stage(hub) as here:
            (here.workspace / "source").write_bytes(data[:MIB])
            await _read(here, MIB)
            await here.run.files.write("warm", data[:MIB])
            (here.workspace / "source").write_bytes(data)
            forget_peak(here.sidecar_pid)
            before = status(here.sidecar_pid, "VmRSS")
            if verb == "read":
                await _read(here, size)
            else:
                await here.run.files.write("target", data)
            added = status(here.sidecar_pid, "VmHWM") - before
        what = f"added by a {verb} of {size // MIB} MiB"
        behind = {"before": f"{before / MIB:.0f} MiB"}
        rows.append(Row("memory", what, added / MIB, at_most(32), "MiB", sides=behind))
    return rows


async def codecs(scale: Scale) -> list[Row]:
    """The same read over either subprotocol."""
    size = scale.file_bytes
    data = os.urandom(size)
    async with (
        hub_process() as hub,
        stage(hub, run="binary") as binary,
        stage(hub, run="text", codec="json") as text,
    ):
        for here in (binary, text):
            (here.workspace / "source").write_bytes(data)
        found = await interleave(
            scale.rounds,
            {
                "protobuf": lambda: seconds(lambda: _read(binary, size)),
                "json": lambda: seconds(lambda: _read(text, size)),
            },
        )
    behind = {name: rate(size, values) for name, values in found.items()}
    value = ratio(found["json"], found["protobuf"])
    what = f"{size // MIB} MiB read, protobuf / JSON"
    return [Row("codecs", what, value, at_least(1.6), sides=behind, rounds=scale.rounds)]
