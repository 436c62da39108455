"""A disk that becomes full in the middle: a clear error, the old file as it was, no litter, and all
goes on once there is room."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tars import member, tar_of

from sidecar.client import CallError, Code, Run
from sidecar.client.editing import Replacement
from sidecar.protocol.streams import CONTENT
from sidecar.streaming import BytesSource

pytestmark = pytest.mark.optional  # a file system has to be mounted

OLD = b"old" * 1000
FILLER = 500_000  # bytes, of the mebibyte that there is
MUCH = os.urandom(800_000)


@pytest.fixture
async def place_on_disk(place: tuple[Path, Run], small_disk: Path) -> AsyncIterator[Run]:
    """With half of the disk filled; afterwards it has room again, and everything works."""
    _, run = place
    (small_disk / "file").write_bytes(OLD)
    (small_disk / "filler").write_bytes(bytes(FILLER))
    yield run
    assert (small_disk / "file").read_bytes() == OLD
    assert sorted(os.listdir(small_disk)) == ["file", "filler"]
    (small_disk / "filler").unlink()
    assert (await run.files.write("disk/file", MUCH)).size == len(MUCH)
    assert (small_disk / "file").read_bytes() == MUCH
    assert os.listdir(small_disk) == ["file"]


async def stream(run: Run, command: str, data: bytes, **arguments: Any) -> dict[str, Any]:
    async with run.open(command, arguments) as call:
        run.send(call, CONTENT, BytesSource(data))
        answer: dict[str, Any] = await call.wait()
        return answer


async def test_a_write_of_a_size_that_is_known_has_not_begun(place_on_disk: Run) -> None:
    with pytest.raises(CallError) as caught:
        await place_on_disk.files.write("disk/file", MUCH)
    error = caught.value
    assert (error.code, error.details["needed"]) == (Code.NO_SPACE, len(MUCH))
    assert error.details["available"] < len(MUCH)


async def test_a_write_of_any_size(place_on_disk: Run) -> None:
    with pytest.raises(CallError) as caught:
        await stream(place_on_disk, "files.write", MUCH, path="disk/file")
    assert (caught.value.code, caught.value.details["path"]) == (Code.NO_SPACE, "disk/file")


async def test_an_upload_goes_on_when_there_is_room(place_on_disk: Run, small_disk: Path) -> None:
    run, upload = place_on_disk, {"path": "disk/new", "upload": b"u" * 16}
    with pytest.raises(CallError) as caught:
        await stream(run, "files.write", MUCH, **upload)
    assert caught.value.code is Code.NO_SPACE
    there = (await run.call("files.upload", upload))["size"]
    assert 0 < there < len(MUCH)
    os.truncate(small_disk / "filler", 0)
    arguments = {**upload, "offset": there, "sha256": hashlib.sha256(MUCH).digest()}
    await stream(run, "files.write", MUCH[there:], **arguments)
    assert (small_disk / "new").read_bytes() == MUCH
    (small_disk / "new").unlink()


async def test_an_append_tells_what_of_it_is_there(place_on_disk: Run, small_disk: Path) -> None:
    with pytest.raises(CallError) as caught:
        await stream(place_on_disk, "files.append", MUCH, path="disk/file")
    found = (small_disk / "file").read_bytes()
    assert (caught.value.code, caught.value.details["size"]) == (Code.NO_SPACE, len(found))
    assert (OLD + MUCH).startswith(found)
    assert found.startswith(OLD)
    os.truncate(small_disk / "file", len(OLD))


async def test_an_edit(place_on_disk: Run) -> None:
    with pytest.raises(CallError) as caught:
        edit = Replacement(b"old", b"new" * 300, count=1000)
        await place_on_disk.files.edit("disk/file", [edit])
    assert caught.value.code is Code.NO_SPACE


async def test_a_copy(place: tuple[Path, Run], place_on_disk: Run) -> None:
    workspace, _ = place
    (workspace / "much").write_bytes(MUCH)
    with pytest.raises(CallError) as caught:
        await place_on_disk.files.copy("much", "disk/file")
    assert (caught.value.code, caught.value.details["path"]) == (Code.NO_SPACE, "disk/file")


async def test_an_extract(place_on_disk: Run) -> None:
    tar = tar_of(member("file", MUCH))
    with pytest.raises(CallError) as caught:
        await place_on_disk.files.extract(tar, "disk")
    assert caught.value.code is Code.NO_SPACE
