"""`files.append` through the whole stack."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import anyio
import pytest
from stack import Stack, until
from uploadcalls import received

from sidecar.client import CallError, Code, Run
from sidecar.errors import Started
from sidecar.protocol.streams import CONTENT
from sidecar.streaming import BytesSource
from sidecar.streaming.pushing import PushSource


async def append(run: Run, content: bytes = b"more", **options: Any) -> dict[str, Any]:
    return await run.call("files.append", {"path": "file", "content": content, **options})


async def test_bytes_are_added_at_the_end(place: tuple[Path, Run]) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"old ")
    before = (workspace / "file").stat().st_ino
    answer = await append(run)
    assert (answer["offset"], answer["added"], answer["size"]) == (4, 4, 8)
    assert answer["sha256"] == hashlib.sha256(b"more").digest()
    assert answer["etag"] == (await run.files.stat("file")).etag
    assert (workspace / "file").read_bytes() == b"old more"
    assert (workspace / "file").stat().st_ino == before
    assert (await append(run, b""))["offset"] == 8
    async with run.events() as events:
        async for event in events:
            if event.data == {"path": "file", "offset": 4, "size": 4}:  # type: ignore[union-attr]
                assert event.name == "files.appended"  # type: ignore[union-attr]
                break


async def test_a_stream_is_added_at_the_end(place: tuple[Path, Run]) -> None:
    workspace, run = place
    content = os.urandom(3_000_000)
    (workspace / "file").write_bytes(b"old")
    async with run.open("files.append", {"path": "file"}) as call:
        run.send(call, CONTENT, BytesSource(content))
        answer = await call.wait()
    assert (answer["offset"], answer["added"]) == (3, len(content))
    assert (workspace / "file").read_bytes() == b"old" + content


@pytest.mark.parametrize("size", [5, 100_000])
async def test_a_client_appends_as_much_as_it_likes(place: tuple[Path, Run], size: int) -> None:
    workspace, run = place
    content = os.urandom(size)
    await run.files.append("file", b"old", mode=0o600)
    appended = await run.files.append("file", content, size=3, create=False)
    assert (appended.offset, appended.added, appended.size) == (3, size, 3 + size)
    assert appended.sha256 == hashlib.sha256(content).digest()
    assert (workspace / "file").read_bytes() == b"old" + content


async def test_a_missing_file_is_made_as_asked_for(place: tuple[Path, Run]) -> None:
    workspace, run = place
    with pytest.raises(CallError) as caught:
        await append(run, create=False)
    assert caught.value.code is Code.NOT_FOUND
    with pytest.raises(CallError) as caught:
        await append(run, size=5)  # a file that is made has none
    assert caught.value.code is Code.NOT_FOUND
    assert os.listdir(workspace) == []
    await append(run, mode=0o604, size=0)
    assert stat.S_IMODE((workspace / "file").stat().st_mode) == 0o604
    await run.call("files.append", {"path": "a/b/file", "content": b"x", "parents": True})
    assert (workspace / "a/b/file").read_bytes() == b"x"


async def test_another_size_than_expected_is_told(place: tuple[Path, Run]) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"old")
    with pytest.raises(CallError) as caught:
        await append(run, size=2)
    assert caught.value.code is Code.PRECONDITION_FAILED
    assert caught.value.details["size"] == 3
    assert (workspace / "file").read_bytes() == b"old"
    await append(run, size=3)


async def test_of_many_who_expect_the_same_size_one_appends(place: tuple[Path, Run]) -> None:
    workspace, run = place
    (workspace / "file").touch()
    codes: list[Code] = []

    async def race() -> None:
        try:
            await append(run, size=0)
        except CallError as error:
            codes.append(error.code)

    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(race)
    assert codes == [Code.PRECONDITION_FAILED] * 5
    assert (workspace / "file").read_bytes() == b"more"


async def test_calls_to_one_file_take_turns_whatever_its_name(
    place_stack: Stack, place: tuple[Path, Run]
) -> None:
    workspace, run = place
    (workspace / "file").touch()
    (workspace / "link").symlink_to("file")
    async with run.open("files.append", {"path": "link"}) as call:
        source = PushSource()
        run.send(call, CONTENT, source)
        await source.push(b"first half, ")
        await until(lambda: received(place_stack) == 12)
        async with run.open("files.append", {"path": "file", "content": b"second"}) as other:
            await source.push(b"other half, ")
            source.end()
            await call.wait()
            await other.wait()
    assert (workspace / "file").read_bytes() == b"first half, other half, second"


async def test_bytes_for_a_file_that_is_replaced_meanwhile_are_not_told_as_added(
    place_stack: Stack, place: tuple[Path, Run]
) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"old")
    with pytest.raises(CallError) as caught:
        async with run.open("files.append", {"path": "file"}) as call:
            source = PushSource()
            run.send(call, CONTENT, source)
            await source.push(b"more")
            await until(lambda: received(place_stack) == 4)
            await run.files.write("file", b"new")
            source.end()
            await call.wait()
    assert (caught.value.code, caught.value.started) == (Code.SOURCE_CHANGED, Started.YES)
    assert (workspace / "file").read_bytes() == b"new"


async def test_who_waited_for_a_turn_appends_to_the_file_that_is_there_then(
    place_stack: Stack, place: tuple[Path, Run]
) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"old")
    with pytest.raises(CallError):
        async with run.open("files.append", {"path": "file"}) as call:
            source = PushSource()
            run.send(call, CONTENT, source)
            await source.push(b"more")
            await until(lambda: received(place_stack) == 4)
            async with run.open("files.append", {"path": "file", "content": b"er"}) as other:
                turns = place_stack.sidecar.dispatcher._means.turns._turns
                await until(lambda: [turn.users for turn in turns.values()] == [2])
                await run.files.write("file", b"new")
                source.end()
                assert (await other.wait())["offset"] == 3
                await call.wait()
    assert (workspace / "file").read_bytes() == b"newer"


@pytest.mark.optional
async def test_a_full_disk_is_told_with_what_is_there(
    place: tuple[Path, Run], small_disk: Path
) -> None:
    _, run = place
    arguments = {"path": "disk/file"}
    with pytest.raises(CallError) as caught:
        async with run.open("files.append", arguments) as call:
            run.send(call, CONTENT, BytesSource(bytes(3_000_000)))
            await call.wait()
    assert caught.value.code is Code.NO_SPACE
    assert caught.value.details["size"] == (small_disk / "file").stat().st_size > 0
    (small_disk / "file").write_bytes(b"")
    (small_disk / "filler").write_bytes(bytes(1_000_000))
    with pytest.raises(CallError) as caught:
        await run.call("files.append", {**arguments, "content": bytes(60_000)})
    assert caught.value.code is Code.NO_SPACE
    assert (small_disk / "file").read_bytes() == b""
