"""Uploads with an id through the whole stack: kept when they end early, gone on with, swept."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from stack import Stack, until
from uploadcalls import feeding

from sidecar.client import CallError, Code, Retry, Run, Started
from sidecar.hands.names import part_name
from sidecar.uploadnotes import note_name

ID = b"u" * 16
PART = os.fsdecode(part_name(b"file", ID))
UPLOAD = {"path": "file", "upload": ID}


def notes(stack: Stack) -> list[str]:
    return os.listdir(stack.sidecar.folder / "uploads")


async def size_of(run: Run) -> int:
    size: int = (await run.call("files.upload", UPLOAD))["size"]
    return size


async def settled(stack: Stack) -> None:
    await until(lambda: not stack.sidecar.dispatcher._open)


async def test_an_upload_goes_on_where_an_earlier_call_ended(
    place_stack: Stack, place: tuple[Path, Run]
) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"old")
    assert await size_of(run) == 0
    async with feeding(place_stack, run, **UPLOAD) as feed:
        await feed.push(b"half")
        assert (workspace / "file").read_bytes() == b"old"
    await settled(place_stack)
    assert sorted(os.listdir(workspace)) == [PART, "file"]
    assert notes(place_stack) == [note_name("file", ID)]
    assert await size_of(run) == 4

    whole = hashlib.sha256(b"half and half").digest()
    arguments = {**UPLOAD, "offset": 4, "size": 13, "sha256": whole}
    async with feeding(place_stack, run, **arguments) as feed:
        await feed.push(b" and half")
        answer = await feed.end()
    assert (answer["size"], answer["sha256"]) == (13, whole)
    assert (workspace / "file").read_bytes() == b"half and half"
    assert os.listdir(workspace) == ["file"]
    assert notes(place_stack) == []
    assert await size_of(run) == 0
    async with run.events() as events:
        async for event in events:
            assert event.data.get("size") != 4  # type: ignore[union-attr]
            if event.data == {"path": "file", "size": 13, "sha256": whole}:  # type: ignore[union-attr]
                break


async def test_what_lies_behind_the_offset_is_cut_off(
    place_stack: Stack, place: tuple[Path, Run]
) -> None:
    workspace, run = place
    async with feeding(place_stack, run, **UPLOAD) as feed:
        await feed.push(b"0123456789")
    async with feeding(place_stack, run, **UPLOAD, offset=4) as feed:
        answer = await feed.end()
    assert answer["size"] == 4
    assert (workspace / "file").read_bytes() == b"0123"


async def test_an_offset_beyond_the_part_is_told_how_much_there_is(
    place_stack: Stack, place: tuple[Path, Run]
) -> None:
    workspace, run = place
    async with feeding(place_stack, run, **UPLOAD) as feed:
        await feed.push(b"half")
    for id, there, left in ((ID, 4, [PART]), (b"n" * 16, 0, [PART])):
        with pytest.raises(CallError) as caught:
            await run.call("files.write", {"path": "file", "upload": id, "offset": 5})
        error = caught.value
        assert (error.code, error.details["size"]) == (Code.PRECONDITION_FAILED, there)
        await settled(place_stack)
        assert os.listdir(workspace) == left
    assert len(notes(place_stack)) == 1


async def test_the_whole_part_is_read_again_before_it_becomes_the_file(
    place_stack: Stack, place: tuple[Path, Run]
) -> None:
    workspace, run = place
    async with feeding(place_stack, run, **UPLOAD) as feed:
        await feed.push(b"half")
    await settled(place_stack)
    with (workspace / PART).open("r+b") as part:
        part.write(b"H")
    whole = hashlib.sha256(b"half and half").digest()
    with pytest.raises(CallError) as caught:
        async with feeding(place_stack, run, **UPLOAD, offset=4, sha256=whole) as feed:
            await feed.push(b" and half")
            await feed.end()
    assert caught.value.code is Code.DIGEST_MISMATCH
    assert caught.value.details["sha256"] == hashlib.sha256(b"Half and half").digest()
    assert os.listdir(workspace) == [PART]


async def test_a_newer_call_takes_the_upload_over(
    place_stack: Stack, place: tuple[Path, Run]
) -> None:
    workspace, run = place
    async with feeding(place_stack, run, **UPLOAD) as older:
        await older.push(b"half")
        async with feeding(place_stack, run, **UPLOAD, offset=4) as newer:
            await newer.push(b" and half")
            with pytest.raises(CallError) as caught:
                await older.call.wait()
            await newer.end()
    error = caught.value
    assert (error.code, error.started) == (Code.CONFLICT, Started.YES)
    assert error.retry is Retry.NEVER
    assert (workspace / "file").read_bytes() == b"half and half"
    assert os.listdir(workspace) == ["file"]


async def test_an_upload_is_discarded_even_while_it_is_written(
    place_stack: Stack, place: tuple[Path, Run]
) -> None:
    workspace, run = place
    async with feeding(place_stack, run, **UPLOAD) as feed:
        await feed.push(b"half")
        assert await run.call("files.upload", {**UPLOAD, "discard": True}) == {"size": 4}
        with pytest.raises(CallError) as caught:
            await feed.call.wait()
    assert caught.value.code is Code.CONFLICT
    assert os.listdir(workspace) == []
    assert notes(place_stack) == []
    assert await run.call("files.upload", {**UPLOAD, "discard": True}) == {"size": 0}


@pytest.mark.parametrize("path", ["no/such/file", "folder", "../outside"])
async def test_an_upload_that_cannot_begin_leaves_nothing(
    place_stack: Stack, place: tuple[Path, Run], path: str
) -> None:
    workspace, run = place
    (workspace / "folder").mkdir()
    with pytest.raises(CallError) as caught:
        await run.call("files.write", {"path": path, "upload": ID})
    assert caught.value.code in (Code.NOT_FOUND, Code.IS_DIRECTORY, Code.OUTSIDE)
    assert os.listdir(workspace) == ["folder"]
    assert notes(place_stack) == []


async def test_a_part_is_swept_when_its_last_byte_is_a_day_old(
    place_stack: Stack, place: tuple[Path, Run]
) -> None:
    workspace, run = place
    uploads = place_stack.sidecar.means.uploads
    async with feeding(place_stack, run, **UPLOAD) as feed:
        await feed.push(b"half")
        make_old(workspace / PART, 86_400 + 60)
        await uploads.sweep()  # somebody writes it
        assert os.listdir(workspace) == [PART]
    await settled(place_stack)
    make_old(workspace / PART, 86_400 - 60)
    await uploads.sweep()
    assert os.listdir(workspace) == [PART]
    make_old(workspace / PART, 86_400 + 60)
    await uploads.sweep()
    assert os.listdir(workspace) == []
    assert notes(place_stack) == []


async def test_a_part_in_whose_place_lies_something_else_is_left_alone_and_forgotten(
    place_stack: Stack, place: tuple[Path, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, run = place
    async with feeding(place_stack, run, **UPLOAD) as feed:
        await feed.push(b"half")
    await settled(place_stack)
    (workspace / PART).unlink()
    (workspace / "precious").write_bytes(b"precious")
    (workspace / PART).symlink_to("precious")
    make_old(workspace / "precious", 10 * 86_400)
    uploads = place_stack.sidecar.means.uploads
    await uploads.sweep()
    assert len(notes(place_stack)) == 1
    monkeypatch.setattr("sidecar.uploads.UPLOAD_MEMORY", -1.0)
    await uploads.sweep()
    assert notes(place_stack) == []
    assert (workspace / "precious").read_bytes() == b"precious"


async def test_so_many_uploads_may_be_left_and_no_more(
    place_stack: Stack, place: tuple[Path, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, run = place
    monkeypatch.setattr("sidecar.uploadnotes.UPLOADS", 1)
    async with feeding(place_stack, run, **UPLOAD) as feed:
        await feed.push(b"half")
    await settled(place_stack)
    arguments: dict[str, Any] = {"path": "other", "upload": ID}
    with pytest.raises(CallError) as caught:
        await run.call("files.write", arguments)
    assert caught.value.code is Code.LIMIT
    assert os.listdir(workspace) == [PART]
    await run.call("files.upload", {**UPLOAD, "discard": True})
    async with feeding(place_stack, run, **arguments) as feed:
        await feed.end()
    assert os.listdir(workspace) == ["other"]


async def test_a_condition_holds_for_an_upload_as_for_any_write(
    place_stack: Stack, place: tuple[Path, Run]
) -> None:
    workspace, run = place
    async with feeding(place_stack, run, **UPLOAD, if_none_match="*") as feed:
        await feed.push(b"mine")
        (workspace / "file").write_bytes(b"theirs")
        with pytest.raises(CallError) as caught:
            await feed.end()
    assert caught.value.code is Code.PRECONDITION_FAILED
    assert (workspace / "file").read_bytes() == b"theirs"
    assert await size_of(run) == 4  # nothing that came is lost
    theirs = hashlib.sha256(b"theirs").digest()
    async with feeding(place_stack, run, **UPLOAD, offset=4, if_match=theirs) as feed:
        await feed.end()
    assert (workspace / "file").read_bytes() == b"mine"


async def test_many_uploads_at_once_do_not_mix(place_stack: Stack, place: tuple[Path, Run]) -> None:
    workspace, run = place

    async def send(number: int) -> None:
        content = b"%d" % number * 1000
        for offset in range(0, len(content), 400):
            end = offset + 400
            arguments = {"path": f"f{number}", "upload": ID, "offset": offset}
            async with feeding(place_stack, run, **arguments) as feed:
                await feed.push(content[offset:end])
                if end >= len(content):
                    await feed.end()
        assert (workspace / f"f{number}").read_bytes() == content

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(send, number)
    assert len(os.listdir(workspace)) == 5


def make_old(path: Path, seconds: float) -> None:
    when = time.time() - seconds
    os.utime(path, (when, when))
