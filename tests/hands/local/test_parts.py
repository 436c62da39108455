"""Parts of uploads that have an id: who may take one up, and when it goes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from sidecar.errors import CallError, Code
from sidecar.hands.interface import Hands
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.names import part_name

ID = b"u" * 16
PART = part_name(b"file", ID)


async def test_what_an_upload_left_is_gone_on_with(any_hands: Hands, root: Path) -> None:
    first = await any_hands.replace("file", upload=ID)
    assert first.size == 0
    os.write(first.fd, b"half")
    await first.abort()
    assert os.listdir(os.fsencode(root)) == [PART]
    found = await any_hands.part("file", ID)
    assert found is not None
    assert found.size == 4

    second = await any_hands.replace("file", upload=ID)
    assert second.size == 4
    os.lseek(second.fd, 0, os.SEEK_END)
    os.write(second.fd, b" and half")
    await second.commit()
    assert os.listdir(root) == ["file"]
    assert (root / "file").read_bytes() == b"half and half"
    assert await any_hands.part("file", ID) is None


async def test_an_upload_outlives_hands(root: Path) -> None:
    async with LocalHands.open_root(str(root)) as hands:
        os.write((await hands.replace("file", upload=ID)).fd, b"half")
    async with LocalHands.open_root(str(root)) as hands:
        upload = await hands.replace("file", upload=ID)
        assert upload.size == 4


async def test_one_at_a_time_writes_a_part(
    any_hands: Hands, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.hands.local.files.PART_WAIT", 0.1)
    first = await any_hands.replace("file", upload=ID)
    with pytest.raises(CallError) as caught:
        await any_hands.replace("file", upload=ID)
    assert caught.value.code == Code.CONFLICT
    assert not await any_hands.discard("file", ID)
    other = await any_hands.replace("file", upload=b"o" * 16)
    await other.abort()
    await first.abort()
    await (await any_hands.replace("file", upload=ID)).abort()


async def test_who_comes_a_moment_too_early_waits_for_the_part(any_hands: Hands) -> None:
    first = await any_hands.replace("file", upload=ID)

    async def next_one() -> None:
        await (await any_hands.replace("file", upload=ID)).abort()
        is_next.set()

    is_next = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(next_one)
        with anyio.move_on_after(0.1):
            await is_next.wait()
        assert not is_next.is_set()
        await first.abort()
    assert is_next.is_set()


async def test_the_part_of_a_link_lies_beside_what_it_points_to(
    any_hands: Hands, root: Path
) -> None:
    (root / "a").mkdir()
    (root / "link").symlink_to("a/file")
    upload = await any_hands.replace("link", upload=ID)
    assert os.listdir(os.fsencode(root / "a")) == [PART]
    await upload.abort()
    assert await any_hands.part("a/file", ID) == await any_hands.part("link", ID) is not None
    assert await any_hands.discard("link", ID)
    assert os.listdir(root / "a") == []


async def test_a_part_is_discarded_once_it_is_old_enough(any_hands: Hands, root: Path) -> None:
    assert await any_hands.discard("file", ID)  # there is none
    assert await any_hands.discard("no/such/folder/file", ID)
    await (await any_hands.replace("file", upload=ID)).abort()
    part = root / os.fsdecode(PART)
    day_ago = time.time() - 86_400
    os.utime(part, (day_ago, day_ago + 60))
    assert not await any_hands.discard("file", ID, older_than=86_400.0)
    assert part.exists()
    os.utime(part, (day_ago, day_ago - 60))
    assert await any_hands.discard("file", ID, older_than=86_400.0)
    assert os.listdir(root) == []


def a_link(root: Path, part: Path) -> None:
    (root / "elsewhere").touch()
    part.symlink_to("elsewhere")


def a_second_name(root: Path, part: Path) -> None:
    (root / "elsewhere").touch()
    part.hardlink_to(root / "elsewhere")


def a_folder(root: Path, part: Path) -> None:
    part.mkdir()


def a_fifo(root: Path, part: Path) -> None:
    os.mkfifo(part)


def somebody_elses(root: Path, part: Path) -> None:
    part.touch()
    try:
        os.chown(part, 4321, -1)
    except PermissionError:
        pytest.skip("only root can give a file away")


@pytest.mark.optional
@pytest.mark.parametrize("make", [a_link, a_second_name, a_folder, a_fifo, somebody_elses])
async def test_what_is_not_ours_is_never_taken_for_a_part(
    any_hands: Hands, root: Path, make: Callable[[Path, Path], None]
) -> None:
    make(root, root / os.fsdecode(PART))
    before = sorted(os.listdir(root))
    for attempt in (
        lambda: any_hands.replace("file", upload=ID),
        lambda: any_hands.part("file", ID),
        lambda: any_hands.discard("file", ID),
    ):
        with pytest.raises(CallError) as caught:
            await attempt()
        assert caught.value.code == Code.EXISTS
    assert sorted(os.listdir(root)) == before


@pytest.mark.parametrize("upload", [b"", b"short", b"l" * 17])
async def test_an_upload_id_has_sixteen_bytes(any_hands: Hands, upload: bytes) -> None:
    with pytest.raises(CallError) as caught:
        await any_hands.replace("file", upload=upload)
    assert caught.value.code == Code.INVALID


async def test_a_killed_writer_leaves_nothing_but_the_part_of_an_upload(root: Path) -> None:
    script = (
        "import anyio, os, sys\n"
        "from sidecar.hands.local.hands import LocalHands\n"
        "async def main():\n"
        f"    async with LocalHands.open_root({str(root)!r}) as hands:\n"
        "        for upload in (None, b'u' * 16):\n"
        "            os.write((await hands.replace('file', upload=upload)).fd, b'half')\n"
        "        os.kill(os.getpid(), 9)\n"
        "anyio.run(main)\n"
    )
    (root / "file").write_bytes(b"old")
    status = await anyio.run_process([sys.executable, "-c", script], check=False)
    assert status.returncode == -9
    assert sorted(os.listdir(os.fsencode(root))) == [PART, b"file"]
    assert (root / "file").read_bytes() == b"old"
    async with LocalHands.open_root(str(root)) as hands:
        upload = await hands.replace("file", upload=ID)
        assert upload.size == 4
        await upload.commit()
    assert (root / "file").read_bytes() == b"half"
