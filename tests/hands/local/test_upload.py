"""Atomic writes, through both forms of hands and with both ways of resolving."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import CallError, Code
from sidecar.hands.interface import Hands
from sidecar.hands.local import upload as module
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.names import is_part


async def write(hands: Hands, path: str | bytes, content: bytes = b"new") -> None:
    upload = await hands.replace(path)
    os.write(upload.fd, content)
    await upload.commit()


async def test_a_file_is_made(hands: Hands, root: Path) -> None:
    upload = await hands.replace("file")
    os.write(upload.fd, b"content")
    assert not (root / "file").exists()

    found = await upload.commit(mtime_ns=1_000_000_007)
    assert (root / "file").read_bytes() == b"content"
    assert os.listdir(root) == ["file"]
    assert found == await hands.stat("file")
    assert found.mtime_ns == 1_000_000_007
    assert upload.fd == -1


async def test_a_new_file_has_the_mode_that_the_umask_leaves(root: Path) -> None:
    before = os.umask(0o027)
    try:
        async with LocalHands.open_root(str(root)) as hands:
            await write(hands, "file")
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / "file").stat().st_mode) == 0o640


async def test_the_part_of_a_plain_write_has_no_name(hands: Hands, root: Path) -> None:
    upload = await hands.replace("file")
    os.write(upload.fd, b"content")
    assert os.listdir(root) == []
    assert stat.S_IMODE(os.fstat(upload.fd).st_mode) == 0o600
    await upload.abort()


async def test_where_files_need_a_name_the_part_is_ours_alone_and_beside_the_target(
    hands: Hands, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_unnamed_files(monkeypatch)
    (root / "a").mkdir()
    upload = await hands.replace("a/some.txt")
    os.write(upload.fd, b"content")
    (name,) = os.listdir(os.fsencode(root / "a"))
    assert name.startswith(b".some.txt.")
    assert is_part(name)
    assert stat.S_IMODE((root / "a" / os.fsdecode(name)).stat().st_mode) == 0o600
    await upload.commit()
    assert os.listdir(root / "a") == ["some.txt"]
    await (await hands.replace("a/other")).abort()
    assert os.listdir(root / "a") == ["some.txt"]


async def test_mode_and_owner_of_the_old_file_are_kept(hands: Hands, root: Path) -> None:
    (root / "file").touch()
    with suppress(PermissionError):  # without the right to, ours is kept
        os.chown(root / "file", 4321, 8765)
    (root / "file").chmod(0o4750)
    before = (root / "file").stat()
    await write(hands, "file")
    after = (root / "file").stat()
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert stat.S_IMODE(after.st_mode) == 0o750  # set-user-id was meant for the old bytes


async def test_a_given_mode_wins(hands: Hands, root: Path) -> None:
    (root / "file").touch(mode=0o644)
    upload = await hands.replace("file")
    found = await upload.commit(mode=0o755)
    assert found.mode == 0o755
    assert stat.S_IMODE((root / "file").stat().st_mode) == 0o755


async def test_readers_see_the_old_bytes_or_the_new(any_hands: Hands, root: Path) -> None:
    size = 300_000
    (root / "file").write_bytes(b"\0" * size)
    seen: set[bytes] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            content = (root / "file").read_bytes()
            seen.add(content[:1] if content == content[:1] * size else b"torn")

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(30):
        await write(any_hands, "file", bytes([number]) * size)
    over.set()
    reader.join()
    assert b"torn" not in seen
    assert len(seen) > 1


async def test_an_abort_leaves_everything_as_it_was(hands: Hands, root: Path) -> None:
    (root / "file").write_bytes(b"old")
    upload = await hands.replace("file")
    os.write(upload.fd, b"half of the new")
    await upload.abort()
    await upload.abort()
    assert os.listdir(root) == ["file"]
    assert (root / "file").read_bytes() == b"old"
    with pytest.raises(CallError) as caught:
        await upload.commit()
    assert caught.value.code == Code.INVALID


async def test_an_abort_after_the_commit_does_nothing(hands: Hands, root: Path) -> None:
    upload = await hands.replace("file")
    await upload.commit()
    await upload.abort()
    assert os.listdir(root) == ["file"]


async def test_a_mode_that_is_none_does_not_end_the_upload(hands: Hands) -> None:
    upload = await hands.replace("file")
    for arguments in ({"mode": 0o10000}, {"mtime_ns": 2**63}):
        with pytest.raises(CallError) as caught:
            await upload.commit(**arguments)
        assert caught.value.code == Code.INVALID
    await upload.commit(mode=0o600)


async def test_uploads_nobody_ended_go_with_hands(root: Path) -> None:
    async with LocalHands.open_root(str(root)) as hands:
        await hands.replace("a")
        await hands.replace("b")
    assert os.listdir(root) == []


async def test_parents_are_made_when_asked_for(hands: Hands, root: Path) -> None:
    with pytest.raises(CallError) as caught:
        await hands.replace("a/b/file")
    assert caught.value.code == Code.NOT_FOUND
    await (await hands.replace("a/b/file", parents=True)).commit()
    assert (root / "a/b/file").exists()


@pytest.mark.parametrize(
    "path, code",
    [
        ("folder", Code.IS_DIRECTORY),
        ("folder/", Code.IS_DIRECTORY),
        ("new/", Code.IS_DIRECTORY),
        ("to-folder", Code.IS_DIRECTORY),
        ("fifo", Code.UNSUPPORTED),
        ("", Code.INVALID),
        ("..", Code.INVALID),
        ("file/x", Code.NOT_DIRECTORY),
        ("../outside/secret", Code.OUTSIDE),
        ("out", Code.OUTSIDE),
        ("absolute", Code.OUTSIDE),
        ("out-folder/secret", Code.OUTSIDE),
        ("out-folder/new", Code.OUTSIDE),
        ("loop", Code.INVALID),
        ("n" * 256, Code.INVALID),
    ],
)
async def test_what_cannot_be_written_has_a_code(
    hands: Hands, root: Path, path: str, code: Code
) -> None:
    (root / "folder").mkdir()
    (root / "file").touch()
    os.mkfifo(root / "fifo")
    (root / "to-folder").symlink_to("folder")
    (root / "out").symlink_to("../outside/secret")
    (root / "absolute").symlink_to(root.parent / "outside/secret")
    (root / "out-folder").symlink_to("../outside")
    (root / "loop").symlink_to("loop")
    before = sorted(os.listdir(root))
    with pytest.raises(CallError) as caught:
        await hands.replace(path)
    assert caught.value.code == code
    assert sorted(os.listdir(root)) == before
    assert (root.parent / "outside/secret").read_bytes() == b"secret"
    assert os.listdir(root.parent / "outside") == ["secret"]


async def test_the_target_of_a_link_is_replaced_and_the_link_stays(
    hands: Hands, root: Path
) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "a/file").write_bytes(b"old")
    (root / "a/b/link").symlink_to("../file")
    (root / "link").symlink_to("a/b/link")
    await write(hands, "link")
    assert (root / "link").is_symlink()
    assert (root / "a/file").read_bytes() == b"new"
    assert sorted(os.listdir(root / "a")) == ["b", "file"]


async def test_the_target_of_a_dangling_link_is_made(hands: Hands, root: Path) -> None:
    (root / "a").mkdir()
    (root / "link").symlink_to("a/new")
    await write(hands, "link")
    assert (root / "a/new").read_bytes() == b"new"


async def test_a_link_that_takes_the_place_of_the_target_is_replaced(
    hands: Hands, root: Path
) -> None:
    upload = await hands.replace("file")
    (root / "file").symlink_to("../outside/secret")
    await upload.commit()
    assert not (root / "file").is_symlink()
    assert (root.parent / "outside/secret").read_bytes() == b"secret"


async def test_a_directory_that_takes_the_place_of_the_target_stays(
    hands: Hands, root: Path
) -> None:
    upload = await hands.replace("file")
    (root / "file").mkdir()
    with pytest.raises(CallError) as caught:
        await upload.commit()
    assert caught.value.code == Code.IS_DIRECTORY
    assert os.listdir(root) == ["file"]


@pytest.mark.parametrize(
    "name", [b"n" * 255, "\u00e9".encode() * 127, b"\xff" * 255, "\u20ac".encode() * 85]
)
async def test_the_longest_names_are_written(hands: Hands, root: Path, name: bytes) -> None:
    await write(hands, name)
    assert os.listdir(os.fsencode(root)) == [name]


@pytest.mark.optional
async def test_a_full_disk_leaves_the_old_file_and_no_litter(
    any_hands: Hands, small_disk: Path
) -> None:
    (small_disk / "file").write_bytes(b"old")
    upload = await any_hands.replace("disk/file")
    os.set_blocking(upload.fd, False)
    with pytest.raises(OSError, match="No space left"):
        while True:
            os.write(upload.fd, b"x" * 65536)
    await upload.abort()
    assert os.listdir(small_disk) == ["file"]
    assert (small_disk / "file").read_bytes() == b"old"


@pytest.mark.optional
async def test_a_disk_without_room_for_a_name_has_a_code(
    any_hands: Hands, small_disk: Path
) -> None:
    for number in range(7):
        (small_disk / str(number)).touch()
    with pytest.raises(CallError) as caught:
        await any_hands.replace("disk/file")
    assert caught.value.code == Code.NO_SPACE


async def test_an_upload_that_was_cancelled_while_it_began_leaves_nothing(
    any_hands: Hands, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, has_gone = threading.Event(), threading.Event()

    def slowly(*arguments: Any) -> module.Replacement:
        may_go_on.wait(5)
        return begin(*arguments)

    def abort(replacement: module.Replacement) -> None:
        aborted(replacement)
        has_gone.set()

    begin, aborted = module.begin, module.Replacement.abort
    monkeypatch.setattr("sidecar.hands.local.files.begin", slowly)
    monkeypatch.setattr(module.Replacement, "abort", abort)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):  # cancels the task, not an anyio scope
            await any_hands.replace("file")
    may_go_on.set()
    assert await asyncio.to_thread(has_gone.wait, 5)
    assert os.listdir(root) == []


async def test_the_commit_that_nobody_waits_for_any_more_is_the_end(
    any_hands: Hands, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()

    def slowly(fd: int) -> None:
        may_go_on.wait(5)

    upload = await any_hands.replace("file")
    monkeypatch.setattr(module.os, "fsync", slowly)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await upload.commit()
    may_go_on.set()
    await upload.abort()
    assert upload.fd == -1
    assert os.listdir(root) in ([], ["file"])  # hands behind a socket may be told in time


def without_unnamed_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr("sidecar.hands.local.parts.UnnamedPart", refuse)
