"""`files.write` through the whole stack: conditions, room, and what is left when it fails."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import anyio
import pytest
from stack import Stack, until
from uploadcalls import feeding, received

from sidecar.client import CallError, Code, Run, Started
from sidecar.protocol import envelope as wire
from sidecar.protocol.streams import CONTENT
from sidecar.services.files import conditions
from sidecar.streaming.pushing import PushSource


def sha(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


async def write(run: Run, content: bytes = b"new", **options: Any) -> dict[str, Any]:
    return await run.call("files.write", {"path": "file", "content": content, **options})


async def refusal(run: Run, **options: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        await write(run, **options)
    return caught.value


# Conditions --------------------------------------------------------------------------------


async def test_a_stale_if_match_is_told_the_current_digest(place: tuple[Path, Run]) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"theirs")
    error = await refusal(run, if_match=sha(b"mine"))
    assert (error.code, error.started) == (Code.PRECONDITION_FAILED, Started.NO)
    assert (error.details["sha256"], error.details["reason"]) == (sha(b"theirs"), "if_match")
    assert (workspace / "file").read_bytes() == b"theirs"
    assert os.listdir(workspace) == ["file"]

    answer = await write(run, b"ours", if_match=error.details["sha256"])
    assert answer["sha256"] == sha(b"ours")
    assert (workspace / "file").read_bytes() == b"ours"


@pytest.mark.parametrize(
    "there, options, reason",
    [
        (None, {"if_match": sha(b"there")}, "if_match"),
        (None, {"if_match": "*"}, "if_match"),
        (b"there", {"if_none_match": "*"}, "if_none_match"),
        (b"there", {"if_none_match": sha(b"there")}, "if_none_match"),
        (b"there", {"if_match": sha(b"there"), "if_none_match": sha(b"there")}, "if_none_match"),
    ],
)
async def test_a_condition_that_does_not_hold_changes_nothing(
    place: tuple[Path, Run], there: bytes | None, options: dict[str, Any], reason: str
) -> None:
    workspace, run = place
    if there is not None:
        (workspace / "file").write_bytes(there)
    error = await refusal(run, **options)
    assert (error.code, error.details["reason"]) == (Code.PRECONDITION_FAILED, reason)
    assert os.listdir(workspace) == ([] if there is None else ["file"])
    assert there is None or (workspace / "file").read_bytes() == there


@pytest.mark.parametrize(
    "there, options",
    [
        (b"there", {"if_match": "*"}),
        (b"there", {"if_match": sha(b"there")}),
        (b"there", {"if_none_match": sha(b"other")}),
        (None, {"if_none_match": "*"}),
        (None, {"if_none_match": sha(b"other")}),
        (b"", {"if_match": sha(b"")}),
    ],
)
async def test_a_condition_that_holds_lets_the_file_be_replaced(
    place: tuple[Path, Run], there: bytes | None, options: dict[str, Any]
) -> None:
    workspace, run = place
    if there is not None:
        (workspace / "file").write_bytes(there)
    await write(run, **options)
    assert (workspace / "file").read_bytes() == b"new"


async def test_of_many_who_want_to_be_the_first_one_is(place: tuple[Path, Run]) -> None:
    workspace, run = place
    ends: list[bytes] = []

    async def race(content: bytes) -> None:
        try:
            await write(run, content, if_none_match="*")
            ends.append(content)
        except CallError as error:
            assert error.code is Code.PRECONDITION_FAILED

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(race, b"%d" % number)
    assert [(workspace / "file").read_bytes()] == ends
    assert os.listdir(workspace) == ["file"]


async def test_nothing_is_lost_of_what_many_write_by_compare_and_swap(
    place: tuple[Path, Run],
) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"")

    async def add(line: bytes) -> None:
        while True:
            before = await run.files.read("file")
            try:
                await write(run, before + line, if_match=sha(before))
                return
            except CallError as error:
                assert error.code is Code.PRECONDITION_FAILED

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(add, b"%d\n" % number)
    lines = (workspace / "file").read_bytes().split()
    assert sorted(lines) == [b"0", b"1", b"2", b"3", b"4", b"5"]


async def test_a_file_that_was_only_touched_meanwhile_is_replaced(
    place_stack: Stack, place: tuple[Path, Run]
) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"old")
    async with run.open("files.write", {"path": "file", "if_match": sha(b"old")}) as call:
        source = PushSource()
        run.send(call, CONTENT, source)
        await source.push(b"new")
        await until(lambda: received(place_stack) == 3)
        os.utime(workspace / "file", (1, 1))
        source.end()
        await call.wait()
    assert (workspace / "file").read_bytes() == b"new"


async def test_a_file_that_became_another_one_meanwhile_is_not_replaced(
    place_stack: Stack, place: tuple[Path, Run]
) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"old")
    async with run.open("files.write", {"path": "file", "if_match": sha(b"old")}) as call:
        source = PushSource()
        run.send(call, CONTENT, source)
        await source.push(b"new")
        await until(lambda: received(place_stack) == 3)
        (workspace / "file").write_bytes(b"theirs")
        source.end()
        with pytest.raises(CallError) as caught:
            await call.wait()
    error = caught.value
    assert (error.code, error.started) == (Code.PRECONDITION_FAILED, Started.YES)
    assert error.details["sha256"] == sha(b"theirs")
    assert (workspace / "file").read_bytes() == b"theirs"
    assert os.listdir(workspace) == ["file"]


async def test_a_file_that_changes_without_end_is_given_up(
    place: tuple[Path, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"old")
    look, times = conditions.Conditions.look, 0

    async def touched(self: conditions.Conditions, **options: Any) -> None:
        nonlocal times
        await look(self, **options)
        times += 1
        os.utime(workspace / "file", (times, times))

    monkeypatch.setattr(conditions.Conditions, "look", touched)
    error = await refusal(run, if_match=sha(b"old"))
    assert error.code is Code.SOURCE_CHANGED
    assert times == conditions.LOOKS + 1
    assert (workspace / "file").read_bytes() == b"old"


# What the file is then ---------------------------------------------------------------------


async def test_mode_time_and_parents_are_as_asked_for(place: tuple[Path, Run]) -> None:
    workspace, run = place
    arguments = {"path": "a/b/file", "content": b"x", "parents": True, "mode": 0o640}
    answer = await run.call("files.write", {**arguments, "mtime_ns": 1_000_000_007})
    found = (workspace / "a/b/file").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o640, 1_000_000_007)
    assert answer["mode"] == 0o640
    assert answer["etag"] == (await run.files.stat("a/b/file")).etag


async def test_bytes_that_are_not_those_that_were_sent_replace_nothing(
    place_stack: Stack, place: tuple[Path, Run]
) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"old")
    async with feeding(place_stack, run, path="file") as feed:
        await feed.push(b"new")
        (call,) = place_stack.sidecar.dispatcher._open.values()
        call.context.receiver(CONTENT).feed(wire.End(feed.call.id, CONTENT, 3, 0, sha(b"other")))
        with pytest.raises(CallError) as caught:
            await feed.call.wait()
    assert (caught.value.code, caught.value.started) == (Code.DIGEST_MISMATCH, Started.YES)
    assert (workspace / "file").read_bytes() == b"old"
    assert os.listdir(workspace) == ["file"]


# Room --------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"inline", None])
async def test_what_cannot_fit_is_refused_before_the_first_byte(
    place: tuple[Path, Run], content: bytes | None
) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"old")
    arguments: dict[str, Any] = {"path": "file", "size": 1 << 60}
    if content is not None:
        arguments["content"] = content
    with anyio.fail_after(10), pytest.raises(CallError) as caught:
        await run.call("files.write", arguments)
    error = caught.value
    assert (error.code, error.details["needed"]) == (Code.NO_SPACE, 1 << 60)
    assert 0 < error.details["available"] < 1 << 60
    assert os.listdir(workspace) == ["file"]


@pytest.mark.optional
@pytest.mark.parametrize("upload", [None, b"u" * 16])
async def test_a_disk_that_fills_up_in_the_middle_keeps_the_old_file(
    place: tuple[Path, Run], small_disk: Path, upload: bytes | None
) -> None:
    _, run = place
    (small_disk / "file").write_bytes(b"old")
    arguments = {"path": "disk/file"} | ({} if upload is None else {"upload": upload})
    async with run.open("files.write", arguments) as call:
        source = PushSource()
        sender = run.send(call, CONTENT, source)
        with pytest.raises(anyio.BrokenResourceError):
            while True:
                await source.push(bytes(600_000))
        with pytest.raises(CallError) as caught:
            await call.wait()
        assert sender.error is not None
    assert caught.value.code is Code.NO_SPACE
    assert caught.value.details["path"] == "disk/file"
    assert (small_disk / "file").read_bytes() == b"old"
    if upload is not None:  # what fitted is kept, until it is no longer wanted
        assert (await run.call("files.upload", arguments))["size"] > 0
        await run.call("files.upload", {**arguments, "discard": True})
    assert os.listdir(small_disk) == ["file"]
