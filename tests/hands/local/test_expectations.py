"""What a commit expects to be there: of many that expect the same, one gets its way."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from sidecar.errors import CallError, Code
from sidecar.hands.fileinterface import ABSENT, PRESENT
from sidecar.hands.interface import Hands
from sidecar.hands.local.upload import Replacement

ID = b"u" * 16


async def test_a_commit_that_expects_nothing_there_never_replaces(
    any_hands: Hands, root: Path
) -> None:
    first, second = await any_hands.replace("file"), await any_hands.replace("file")
    os.write(first.fd, b"first")
    await first.commit(expect=ABSENT)
    with pytest.raises(CallError) as caught:
        await second.commit(expect=ABSENT)
    assert caught.value.code == Code.PRECONDITION_FAILED
    assert (root / "file").read_bytes() == b"first"
    await second.commit()  # it may be tried again
    assert (root / "file").read_bytes() == b""


async def test_a_commit_that_expects_something_there_makes_nothing(
    any_hands: Hands, root: Path
) -> None:
    upload = await any_hands.replace("file")
    with pytest.raises(CallError) as caught:
        await upload.commit(expect=PRESENT)
    assert caught.value.code == Code.PRECONDITION_FAILED
    assert os.listdir(root) == []
    (root / "file").touch()
    await upload.commit(expect=PRESENT)


async def test_of_many_that_expect_the_same_file_one_replaces_it(
    any_hands: Hands, root: Path
) -> None:
    (root / "file").write_bytes(b"old")
    etag = (await any_hands.stat("file")).etag
    ends: list[bytes] = []

    async def race(content: bytes) -> None:
        upload = await any_hands.replace("file")
        os.write(upload.fd, content)
        try:
            await upload.commit(expect=etag)
            ends.append(content)
        except CallError as error:
            assert error.code is Code.PRECONDITION_FAILED
        await upload.abort()

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(race, b"%d" % number)
    assert [(root / "file").read_bytes()] == ends
    assert os.listdir(root) == ["file"]


async def test_a_part_with_a_name_never_replaces_what_was_not_to_be_there(
    any_hands: Hands, root: Path
) -> None:
    upload = await any_hands.replace("file", upload=ID)
    (root / "file").write_bytes(b"theirs")
    with pytest.raises(CallError) as caught:
        await upload.commit(expect=ABSENT)
    assert caught.value.code == Code.PRECONDITION_FAILED
    (root / "file").unlink()
    await upload.commit(expect=ABSENT)
    assert os.listdir(root) == ["file"]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL])
async def test_a_file_system_without_the_flag_for_it_never_replaces_either(
    any_hands: Hands, root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("sidecar.hands.local.parts.renameat2", refuse)
    upload = await any_hands.replace("file", upload=ID)
    await upload.commit(expect=ABSENT)
    assert os.listdir(root) == ["file"]
    assert (root / "file").stat().st_nlink == 1

    monkeypatch.setattr(Replacement, "_check", lambda *_: None)  # it comes in between
    late = await any_hands.replace("file", upload=ID)
    with pytest.raises(CallError) as caught:
        await late.commit(expect=ABSENT)
    assert caught.value.code == Code.PRECONDITION_FAILED
    await late.abort()


async def test_a_part_whose_commit_was_refused_is_as_it_was(any_hands: Hands, root: Path) -> None:
    (root / "file").write_bytes(b"old")
    with suppress(PermissionError):
        os.chown(root / "file", 4321, 8765)
    upload = await any_hands.replace("file", upload=ID)
    os.write(upload.fd, b"new")
    with pytest.raises(CallError):
        await upload.commit(mode=0, mtime_ns=7, expect=ABSENT)
    found = os.fstat(upload.fd)
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (os.geteuid(), 0o600)
    assert found.st_mtime_ns > 10**18
    await upload.abort()
    again = await any_hands.replace("file", upload=ID)
    assert again.size == 3
    await again.abort()
