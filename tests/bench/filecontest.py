"""Files: ours in both forms, a pump, a peer and cp(1), side by side in one run.

Each one moves the same bytes in turns, so that what disturbs one disturbs all. Ours is read as it
comes and digest-checked, the pump carries as much through the same hub and looks at nothing, the
peer answers text in JSON and takes multipart, and cp is the floor: no channel at all. Ours syncs
what it writes, the others do not, so an fsync(2) of as much is timed and taken off.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import anyio

from tests.bench import peer
from tests.bench.measure import KIB, MIB, Scale, Side, interleave, ms, rate, ratio, seconds
from tests.bench.pump import MESSAGE, Pump, pump
from tests.bench.report import Row
from tests.bench.stage import Stage, hub_process, stage

OURS, APART, PUMP, COPY = "ours", "ours, hands apart", "pump", "cp"
LEAST_PUMP = MIB  # bytes; less than a few messages is no stream
FOLDERS = 100  # that small files are spread over
SMALL = KIB  # bytes of a small file


@dataclass(slots=True)
class Field:
    """Who takes part, and where."""

    inside: Stage
    apart: Stage
    pump: Pump
    rival: peer.Peer | None
    folder: Path  # where cp copies

    @property
    def ours(self) -> dict[str, Stage]:
        return {OURS: self.inside, APART: self.apart}


async def contest(scale: Scale) -> list[Row]:
    """Files of several sizes, and many small ones, whoever moves them."""
    async with AsyncExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        hub = await exits.enter_async_context(hub_process())
        inside = await exits.enter_async_context(stage(hub))
        both = stage(hub, run="bench-apart", is_apart=True)
        apart = await exits.enter_async_context(both)
        pumping = await exits.enter_async_context(pump(hub))
        python = await peer.installed(may_install=scale.may_install)
        rival = None
        if python is not None:
            rival = await exits.enter_async_context(peer.peer(python))
        field = Field(inside, apart, pumping, rival, folder)
        rows = []
        for size in scale.contest_bytes:
            rows += await _one(field, size, scale)
        rows += await _many(field, scale)
    if rival is None:
        rows.append(Row("transfers", f"{peer.NAME}: not installed", None))
    return rows


# one file -----------------------------------------------------------------------------------


async def _one(field: Field, size: int, scale: Scale) -> list[Row]:
    text = os.urandom(size // 2).hex().encode()  # which JSON carries as it is
    for here in field.ours.values():
        (here.workspace / "source").write_bytes(text)
    source = field.folder / "source"
    source.write_bytes(text)
    reading: dict[str, Side] = {
        name: partial(seconds, partial(_read, here, size)) for name, here in field.ours.items()
    }
    writing: dict[str, Side] = {
        name: partial(seconds, partial(here.run.files.write, "target", text))
        for name, here in field.ours.items()
    }
    copying = partial(_command, ["cp", str(source), str(field.folder / "copy")])
    reading[COPY] = writing[COPY] = copying
    if size >= LEAST_PUMP:
        reading[PUMP] = writing[PUMP] = partial(field.pump.run, size // MESSAGE, MESSAGE)
    if field.rival is not None:
        reading[peer.NAME] = partial(field.rival.read, [str(source)], size)
        target = [str(field.folder / "uploaded")]
        writing[peer.NAME] = partial(field.rival.upload, str(source), target, size)
    writing["fsync"] = partial(_fsync, field.folder / "synced", text)
    rounds = scale.rounds if size >= MIB else scale.rounds * scale.samples
    for side in (*reading.values(), *writing.values()):
        await side()
    read, written = await interleave(rounds, reading), await interleave(rounds, writing)
    synced = written.pop("fsync")
    rows = _compare(f"read {_shown(size)}", read, partial(_rate, size))
    rows += _compare(f"write {_shown(size)}, with fsync", written, partial(_rate, size))
    bare = [max(whole - sync, 1e-9) for whole, sync in zip(written[OURS], synced, strict=True)]
    for name in (PUMP, peer.NAME):
        if name in written:
            rows.append(
                Row(
                    "transfers",
                    f"write {_shown(size)}, less fsync: {name} / {OURS}",
                    ratio(written[name], bare),
                    sides={"fsync": ms(synced)},
                    rounds=rounds,
                )
            )
    return rows


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


async def _command(argv: list[str]) -> float:
    return await seconds(lambda: anyio.run_process(argv))


# many small files ---------------------------------------------------------------------------


async def _many(field: Field, scale: Scale) -> list[Row]:
    names = [f"tree/{n % FOLDERS}/{n}" for n in range(scale.small_files)]
    for root in (field.inside.workspace, field.apart.workspace, field.folder):
        _plant(root, names)
    sides: dict[str, Side] = {
        f"{name}, many in a call": partial(seconds, partial(_read_many, here, names))
        for name, here in field.ours.items()
    }
    archive = await _archived(field.inside)
    targets = count()
    for name, here in field.ours.items():
        sides[f"{name}, archive"] = partial(seconds, partial(_archived, here))
        sides[f"{name}, extract"] = partial(seconds, partial(_extract, here, archive, targets))
    sides[COPY] = partial(_copy_tree, field.folder)
    rows = _compare(
        f"{len(names)} files of {_shown(SMALL)}",
        await interleave(max(1, scale.rounds // 2), sides),
        partial(_each, len(names)),
        base=f"{OURS}, archive",
    )
    return rows + await _one_by_one(field, names[: scale.peer_files], scale)


async def _one_by_one(field: Field, names: list[str], scale: Scale) -> list[Row]:
    """Fewer of them, for who has one way only."""
    sides: dict[str, Side] = {
        f"{OURS}, many in a call": partial(seconds, partial(_read_many, field.inside, names)),
        f"{OURS}, one by one": partial(seconds, partial(_read_each, field.inside, names)),
    }
    if field.rival is not None:
        paths = [str(field.folder / name) for name in names]
        sides[f"{peer.NAME}, one by one"] = partial(field.rival.read, paths, SMALL)
    return _compare(
        f"read {len(names)} files of {_shown(SMALL)}",
        await interleave(max(1, scale.rounds // 2), sides),
        partial(_each, len(names)),
        base=f"{OURS}, many in a call",
    )


def _plant(root: Path, names: list[str]) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(SMALL // 2).hex().encode())


async def _read_many(here: Stage, names: list[str]) -> None:
    files = await here.run.files.read_many(names)
    assert sum(len(file.check().content) for file in files) == len(names) * SMALL


async def _archived(here: Stage) -> bytes:
    async with here.run.files.archive("tree") as archive:
        return b"".join([chunk async for chunk in archive])


async def _extract(here: Stage, archive: bytes, targets: Iterator[int]) -> None:
    await here.run.files.extract(archive, f"extracted-{next(targets)}")


async def _read_each(here: Stage, names: list[str]) -> None:
    for name in names:
        assert len(await here.run.files.read(name)) == SMALL


async def _copy_tree(folder: Path) -> float:
    await anyio.to_thread.run_sync(partial(shutil.rmtree, folder / "copied", ignore_errors=True))
    return await _command(["cp", "-r", str(folder / "tree"), str(folder / "copied")])


# rows ---------------------------------------------------------------------------------------


def _compare(
    what: str,
    found: Mapping[str, list[float]],
    told: Callable[[list[float]], dict[str, str]],
    *,
    base: str = OURS,
) -> list[Row]:
    """Each against ours: over 1 it takes longer."""
    return [
        Row(
            "transfers",
            f"{what}: {name} / {base}",
            ratio(taken, found[base]),
            sides=told(taken),
            rounds=len(taken),
        )
        for name, taken in found.items()
    ]


def _rate(size: int, taken: list[float]) -> dict[str, str]:
    return {"p50": ms(taken), "rate": rate(size, taken)}


def _each(count: int, taken: list[float]) -> dict[str, str]:
    each = statistics.median(taken) / count
    return {"p50": ms(taken), "each": f"{each * 1e6:.0f} µs"}


def _shown(size: int) -> str:
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"
