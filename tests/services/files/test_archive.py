"""`files.archive` and `files.extract`, from a client through to either form of hands."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from stack import Stack, until

from sidecar.client import Run
from sidecar.errors import CallError, Code
from sidecar.streaming import BytesSource

Place = tuple[Path, Run]


def plant(folder: Path) -> None:
    (folder / "tree" / "below").mkdir(parents=True)
    (folder / "tree" / "file").write_bytes(b"content")
    (folder / "tree" / "below" / "run.sh").write_bytes(b"#!/bin/sh\n")
    (folder / "tree" / "below" / "run.sh").chmod(0o755)
    (folder / "tree" / "link").symlink_to("below/run.sh")


async def packed(run: Run, path: str = "tree", **options: object) -> bytes:
    async with run.files.archive(path, **options) as archive:  # type: ignore[arg-type]
        return b"".join([chunk async for chunk in archive])


def are_same(one: Path, other: Path) -> bool:
    return subprocess.run(["diff", "-r", "--no-dereference", one, other]).returncode == 0


def tar_of(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("compress", ["none", "gzip"])
async def test_a_tree_goes_out_and_in_again(place: Place, compress: str) -> None:
    folder, run = place
    plant(folder)
    async with run.files.archive("tree", compress=compress) as archive:  # type: ignore[arg-type]
        tar = b"".join([chunk async for chunk in archive])
    assert (archive.told.entries, archive.told.bytes) == (4, 17)
    extracted = await run.files.extract(tar, "made/copy")
    assert (extracted.entries, extracted.bytes, extracted.refused) == (4, 17, [])
    assert are_same(folder / "tree", folder / "made" / "copy")
    assert (folder / "made/copy/below/run.sh").stat().st_mode & 0o777 == 0o755


async def test_what_cannot_be_archived_is_the_answer(place: Place) -> None:
    folder, run = place
    with pytest.raises(CallError) as caught:
        await packed(run, "missing")
    assert caught.value.code is Code.NOT_FOUND
    (folder / "file").touch()
    with pytest.raises(CallError) as caught:
        await packed(run, "file")
    assert caught.value.code is Code.NOT_DIRECTORY
    with pytest.raises(CallError) as caught:
        await packed(run, "", paths=["file", "missing"])
    assert (caught.value.code, caught.value.details["path"]) == (Code.NOT_FOUND, "missing")


async def test_what_is_skipped_and_refused_is_told(place: Place) -> None:
    folder, run = place
    os.mkfifo(os.fsencode(folder) + b"/fifo\xff")
    async with run.files.archive() as archive:
        async for _ in archive:
            pass
    assert archive.told.skipped == [(b"fifo\xff", "a FIFO")]
    extracted = await run.files.extract(tar_of(("../out", b"1"), ("in", b"2")), "")
    assert extracted.refused == [("../out", "its path has a `..`")]
    assert (extracted.refused_count, extracted.entries) == (1, 1)


async def test_chunks_from_anywhere_are_extracted(place: Place) -> None:
    folder, run = place
    tar = tar_of(("a", b"1" * 100_000), ("b", b"2" * 2_000_000))

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(tar), 50_000):
            yield tar[start : start + 50_000]

    extracted = await run.files.extract(chunks(), "made")
    assert extracted.bytes == 2_100_000
    assert (folder / "made" / "b").read_bytes() == b"2" * 2_000_000
    await run.files.extract(BytesSource(tar), "again")
    assert (folder / "again" / "a").stat().st_size == 100_000


async def test_an_archive_that_is_cut_off(place: Place) -> None:
    folder, run = place
    tar = tar_of(("a", b"1" * 1000), ("b", b"2" * 5000))
    with pytest.raises(CallError) as caught:
        await run.files.extract(tar[:4000], "")
    error = caught.value
    assert error.code is Code.INVALID
    assert (
        error.message
        == "the archive is broken at byte 4000: the end, in the middle of the content of a member"
    )
    assert (error.details["offset"], error.details["entries"]) == (4000, 1)
    assert os.listdir(folder) == ["a"]


async def test_no_archive_at_all_while_more_is_on_its_way(place: Place) -> None:
    folder, run = place
    with pytest.raises(CallError, match="broken at byte 0: no header"):
        await run.files.extract(b"x" * 5_000_000, "")
    assert os.listdir(folder) == []


async def test_something_that_is_there_already(place: Place) -> None:
    folder, run = place
    (folder / "a").write_bytes(b"old")
    tar = tar_of(("a", b"new"), ("b", b"new"))
    assert (await run.files.extract(tar, existing="keep")).kept == 1
    assert (folder / "a").read_bytes() == b"old"
    with pytest.raises(CallError) as caught:
        await run.files.extract(tar, existing="refuse")
    assert (caught.value.code, caught.value.details["member"]) == (Code.EXISTS, b"a")
    await run.files.extract(tar)
    assert (folder / "a").read_bytes() == b"new"


async def test_leaving_an_archive_in_the_middle_ends_the_tool(
    place: Place, place_stack: Stack
) -> None:
    folder, run = place
    (folder / "large").touch()
    os.truncate(folder / "large", 1 << 34)
    async with run.files.archive() as archive:
        async for _ in archive:
            break
    await until(lambda: not place_stack.sidecar.dispatcher._open)
    await until(lambda: "tool archive" not in [thread.name for thread in threading.enumerate()])


async def test_a_cancelled_extraction_leaves_whole_files_only(place: Place) -> None:
    folder, run = place
    tar = tar_of(("a", b"1" * 1000), ("b", b"2" * 100_000))

    async def chunks() -> AsyncIterator[bytes]:
        yield tar[:50_000]
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(run.files.extract, chunks())
        await until(lambda: (folder / "a").exists())
        group.cancel_scope.cancel()
    await until(lambda: os.listdir(folder) == ["a"])


async def test_a_disk_that_is_full(place: Place, small_disk: Path) -> None:
    _, run = place
    (small_disk / "b").write_bytes(b"old")
    tar = tar_of(("a", b"1" * 1000), ("b", os.urandom(900_000)), ("c", os.urandom(900_000)))
    with pytest.raises(CallError) as caught:
        await run.files.extract(tar, "disk")
    error = caught.value
    assert error.code is Code.NO_SPACE
    assert (error.details["entries"], error.details["member"]) == (2, b"c")
    assert sorted(os.listdir(small_disk)) == ["a", "b"]
    with pytest.raises(CallError) as caught:
        await run.files.extract(tar_of(("b", bytes(1 << 21))), "disk")
    assert caught.value.details["needed"] == 1 << 21
    assert (small_disk / "b").stat().st_size == 900_000


@pytest.mark.slow
async def test_a_hundred_megabytes_in_constant_memory(place: Place) -> None:
    folder, run = place
    (folder / "tree").mkdir()
    block = os.urandom(1 << 20)
    with (folder / "tree" / "large").open("wb") as file:
        for _ in range(100):
            file.write(block)
    before = resident()
    digest, size = hashlib.sha256(), 0
    async with run.files.archive("tree") as archive:
        async for chunk in archive:
            digest.update(chunk)
            size += len(chunk)
    assert size > 100 << 20
    assert resident() - before < 32 << 20


def resident() -> int:
    """Bytes that this process, sidecar and client and hub, has in memory at the most so far."""
    with open("/proc/self/status", encoding="ascii") as lines:
        found = next(line for line in lines if line.startswith("VmHWM:"))
    return int(found.split()[1]) * 1024
