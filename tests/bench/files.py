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
    """What a transfer adds to the resident memory of each process that is warm, at its peak."""
    rows = []
    for size in scale.memory_bytes:
        for verb in ("read", "write"):
            async with hub_process() as hub, stage(hub, is_apart=True) as here:
                rows += await _added(here, verb, size)
    return rows


async def _added(here: Stage, verb: str, size: int) -> list[Row]:
    """The file has no blocks, so that no disk is measured. The client is this process."""
    source = here.workspace / "source"
    for warm in (True, False):
        source.write_bytes(b"")
        os.truncate(source, MIB if warm else size)
        pids = {"core": here.sidecar_pid, "hands": here.hands_pid or 0, "client": os.getpid()}
        for pid in pids.values():
            forget_peak(pid)
        before = {name: status(pid, "VmRSS") for name, pid in pids.items()}
        if verb == "read":
            await _read(here, MIB if warm else size)
        else:
            await here.run.files.upload("target", os.open(source, os.O_RDONLY))
    return [
        Row(
            "memory",
            f"added to {name} by a {verb} of {size // MIB} MiB",
            (status(pid, "VmHWM") - before[name]) / MIB,
            at_most(32),
            "MiB",
            sides={"before": f"{before[name] / MIB:.0f} MiB"},
        )
        for name, pid in pids.items()
    ]


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
