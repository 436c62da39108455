"""`files.edit` through the whole stack: what it leaves behind, and when it leaves all as it was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from servedhands import reach
from stack import Stack, open_stack

from sidecar.client import CallError, Code, Replacement, Run, Started
from sidecar.hands.local.hands import LocalHands
from sidecar.protocol.limits import EDIT_BYTES


@pytest.fixture(params=["in-process", "socket"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Path, Run]]:
    """A workspace and a run, with either form of hands."""
    async with open_stack(tmp_path) as stack:
        if request.param == "in-process":
            yield stack.workspace, await stack.attach()
            return
        local = await stack._exits.enter_async_context(LocalHands.open_root(str(stack.workspace)))
        hands = await stack._exits.enter_async_context(reach(local, tmp_path / "socket"))
        stack.sidecar.means.hands = hands
        yield stack.workspace, await stack.attach()


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path) as stack:
        yield stack


async def refusal(run: Run, *replacements: Replacement, **options: bytes) -> CallError:
    with pytest.raises(CallError) as caught:
        await run.files.edit("file", list(replacements), **options)
    return caught.value


async def test_a_file_is_edited_and_keeps_its_mode(place: tuple[Path, Run]) -> None:
    workspace, run = place
    file = workspace / "file"
    file.write_bytes(b"one\ntwo\ntwo\n")
    file.chmod(0o751)
    before = hashlib.sha256(b"one\ntwo\ntwo\n").digest()

    edited = await run.files.edit(
        "file", [Replacement("two", "2", count=2), Replacement(b"one\n", b"")], if_match=before
    )

    assert file.read_bytes() == b"2\n2\n"
    assert (edited.size, edited.replaced, edited.lines) == (4, [2, 1], [2, 1])
    assert edited.sha256 == hashlib.sha256(b"2\n2\n").digest()
    assert edited.etag == (await run.files.stat("file")).etag
    assert file.stat().st_mode & 0o7777 == 0o751
    assert os.listdir(workspace) == ["file"]
    async with run.events() as events:
        async for event in events:
            if event.name == "files.written":  # type: ignore[union-attr]
                expected = {"path": "file", "size": 4, "sha256": edited.sha256}
                assert event.data == expected  # type: ignore[union-attr]
                break


async def test_one_that_does_not_fit_leaves_the_file_as_it_was(place: tuple[Path, Run]) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"a\r\nb\r\n")
    error = await refusal(run, Replacement("a", "A"), Replacement("A\nb", "B"))
    assert (error.code, error.started) == (Code.PRECONDITION_FAILED, Started.NO)
    assert error.message == (
        "'file': replacement 2 of 2: its text is not there;"
        " with other line ends (CRLF or LF) it is at line 1"
    )
    assert error.details == {
        "path": "file",
        "sha256": hashlib.sha256(b"a\r\nb\r\n").digest(),
        "edit": 1,
        "reason": "not_found",
        "found": 0,
        "expected": 1,
        "hints": [["line_ends", 1]],
    }
    assert (workspace / "file").read_bytes() == b"a\r\nb\r\n"
    assert os.listdir(workspace) == ["file"]


async def test_a_stale_condition_is_told_the_digest_of_today(place: tuple[Path, Run]) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"today")
    error = await refusal(run, Replacement("today", "tomorrow"), if_match=bytes(32))
    assert (error.code, error.details["reason"]) == (Code.PRECONDITION_FAILED, "if_match")
    assert error.details["sha256"] == hashlib.sha256(b"today").digest()
    assert (workspace / "file").read_bytes() == b"today"


async def test_what_somebody_writes_meanwhile_is_not_lost(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await stack.attach()
    (stack.workspace / "file").write_bytes(b"mine")
    replace = stack.sidecar.means.hands.replace

    async def race(path: str) -> object:
        await anyio.to_thread.run_sync((stack.workspace / "file").write_bytes, b"theirs")
        return await replace(path)

    monkeypatch.setattr(stack.sidecar.means.hands, "replace", race)
    error = await refusal(run, Replacement("mine", "edited"))
    assert (error.code, error.details["reason"]) == (Code.PRECONDITION_FAILED, "changed")
    assert (stack.workspace / "file").read_bytes() == b"theirs"
    assert os.listdir(stack.workspace) == ["file"]


async def test_what_cannot_be_edited_says_why(stack: Stack) -> None:
    run = await stack.attach()
    assert (await refusal(run, Replacement("a", "b"))).code is Code.NOT_FOUND
    (stack.workspace / "file").mkdir()
    assert (await refusal(run, Replacement("a", "b"))).code is Code.IS_DIRECTORY
    (stack.workspace / "file").rmdir()
    os.mkfifo(stack.workspace / "file")
    assert (await refusal(run, Replacement("a", "b"))).code is Code.UNSUPPORTED
    (stack.workspace / "file").unlink()
    with (stack.workspace / "file").open("wb") as file:
        file.truncate(EDIT_BYTES + 1)
    error = await refusal(run, Replacement("a", "b"))
    assert (error.code, error.details["limit"]) == (Code.LIMIT, EDIT_BYTES)
    (stack.workspace / "file").unlink()
    (stack.workspace / "file").symlink_to("/etc/hostname")
    assert (await refusal(run, Replacement("a", "b"))).code is Code.OUTSIDE


async def test_the_file_behind_a_link_is_edited_and_the_link_stays(stack: Stack) -> None:
    run = await stack.attach()
    (stack.workspace / "real").write_bytes(b"old")
    (stack.workspace / "file").symlink_to("real")
    await run.files.edit("file", [Replacement("old", "new")])
    assert (stack.workspace / "real").read_bytes() == b"new"
    assert (stack.workspace / "file").is_symlink()
