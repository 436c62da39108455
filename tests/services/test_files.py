"""Files through the whole stack: every byte of them, and every byte of their names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from stack import Stack, open_stack, until

from sidecar.client import CallError, Code, Retry, Run, Started
from sidecar.clock import SystemClock
from sidecar.identity import new_id
from sidecar.protocol.streams import CONTENT
from sidecar.services.files import filling
from sidecar.streaming import BytesSource
from sidecar.streaming.pushing import PushSource

NOT_UTF8 = b"caf\xe9 \xff\n"


@pytest.fixture(scope="module")
async def module_stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path_factory.mktemp("files")) as stack:
        yield stack


@pytest.fixture(scope="module")
async def module_run(module_stack: Stack) -> Run:
    return await module_stack.attach()


@pytest.fixture
async def place(module_stack: Stack, module_run: Run) -> AsyncIterator[tuple[Path, Run]]:
    """The workspace, which is empty again after the test, and a run."""
    await until(lambda: not module_stack.sidecar.dispatcher._open)
    yield module_stack.workspace, module_run
    await module_run.exec(["find", ".", "-mindepth", "1", "-delete"])


SIZES = [0, 1, 61_440, 61_441, 64_512, 64_513, 65_536, 300_000, 3_000_000]


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_of_any_size_goes_there_and_back(size: int, place: tuple[Path, Run]) -> None:
    workspace, run = place
    content = os.urandom(size)
    written = await run.files.write("file", content)
    assert (written.size, written.sha256) == (size, hashlib.sha256(content).digest())
    assert (workspace / "file").read_bytes() == content
    assert await run.files.read("file") == content


@pytest.mark.parametrize(
    "offset, length", [(0, 10), (5, 0), (99_990, None), (100_000, None), (10, 80_000), (0, 10**9)]
)
async def test_a_range_of_a_file(offset: int, length: int | None, place: tuple[Path, Run]) -> None:
    workspace, run = place
    content = os.urandom(100_000)
    (workspace / "file").write_bytes(content)
    end = None if length is None else offset + length
    assert await run.files.read("file", offset=offset, length=length) == content[offset:end]


async def test_an_upload_and_a_download_in_constant_memory(place: tuple[Path, Run]) -> None:
    workspace, run = place
    source = workspace / "source"
    source.write_bytes(os.urandom(20_000_000))
    await run.files.upload("copy", os.open(source, os.O_RDONLY), mode=0o600)
    assert (workspace / "copy").stat().st_mode & 0o777 == 0o600
    digest = hashlib.sha256()
    async with run.files.open("copy") as download:
        async for chunk in download:
            digest.update(chunk)
    assert digest.digest() == hashlib.sha256(source.read_bytes()).digest()


async def test_a_download_that_is_broken_off_leaves_nothing_open(
    place: tuple[Path, Run], module_stack: Stack
) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(bytes(20_000_000))
    before = len(os.listdir("/proc/self/fd"))
    async with run.files.open("file") as download:
        async for _ in download:
            break
    await until(lambda: not module_stack.sidecar.dispatcher._open)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_a_write_that_is_cancelled_leaves_the_old_file(
    place: tuple[Path, Run], module_stack: Stack
) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"old")
    before = len(os.listdir("/proc/self/fd"))
    async with run.open("files.write", {"path": "file"}):
        await until(lambda: len(os.listdir("/proc/self/fd")) > before)
        assert os.listdir(workspace) == ["file"]
    await until(lambda: not module_stack.sidecar.dispatcher._open)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert os.listdir(workspace) == ["file"]
    assert (workspace / "file").read_bytes() == b"old"


async def test_a_write_whose_bytes_stop_coming_ends_and_leaves_the_old_file(
    place: tuple[Path, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, run = place
    monkeypatch.setattr(filling, "CONTENT_WAIT", 0.2)
    (workspace / "file").write_bytes(b"old")
    async with run.open("files.write", {"path": "file"}) as call:
        source = PushSource()
        await source.push(b"half")
        sender = run.send(call, CONTENT, source)
        with anyio.fail_after(10), pytest.raises(CallError) as caught:
            await call.wait()
        await until(lambda: sender.error is not None)
    error = caught.value
    assert (error.code, error.started, error.retry) == (Code.TIMEOUT, Started.YES, Retry.NEW_ID)
    assert error.details["which"] == "content"
    assert os.listdir(workspace) == ["file"]
    assert (workspace / "file").read_bytes() == b"old"


async def test_a_stream_that_is_not_what_was_announced_replaces_nothing(
    place: tuple[Path, Run],
) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"old")
    with pytest.raises(CallError) as caught:
        await run.files.write("file", bytes(200_000), sha256=bytes(32))
    assert caught.value.code is Code.DIGEST_MISMATCH
    async with run.open("files.write", {"path": "file", "size": 5}) as call:
        run.send(call, CONTENT, BytesSource(b"four"))
        with pytest.raises(CallError) as caught:
            await call.wait()
    assert caught.value.code is Code.INVALID
    assert os.listdir(workspace) == ["file"]
    assert (workspace / "file").read_bytes() == b"old"


async def test_a_file_that_changes_while_it_is_read_is_not_mixed(place: tuple[Path, Run]) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(bytes(20_000_000))
    with pytest.raises(CallError) as caught:
        async with run.files.open("file") as download:
            async for _ in download:
                (workspace / "file").write_bytes(b"other")
    assert caught.value.code is Code.SOURCE_CHANGED


async def test_a_repeated_write_is_not_done_again(place: tuple[Path, Run]) -> None:
    workspace, run = place
    id = new_id(SystemClock())
    arguments = {"path": "file", "content": b"first"}
    answer = await run.call("files.write", arguments, id=id)
    (workspace / "file").write_bytes(b"second")
    assert await run.call("files.write", arguments, id=id) == answer
    assert (workspace / "file").read_bytes() == b"second"


@pytest.mark.parametrize("name", ["plain", "sp ace", "\u20ac", "-rf", "a\nb", NOT_UTF8])
async def test_names_of_any_bytes_go_there_and_back(
    name: str | bytes, place: tuple[Path, Run]
) -> None:
    workspace, run = place
    raw = os.fsencode(name)
    await run.files.write(name, b"content")
    assert os.listdir(os.fsencode(workspace)) == [raw]
    (entry,) = await run.files.list()
    assert entry.name == name
    assert await run.files.read(entry.name) == b"content"
    assert (await run.files.stat(raw)).size == 7
    await run.files.move(entry.name, raw + b"2")
    await run.files.mkdir(raw)
    os.symlink(raw, os.fsencode(workspace) + b"/link")
    assert (await run.files.stat("link")).target == name
    async with run.events() as events:  # which carry names, too
        async for event in events:
            if event.name == "files.moved" and event.data["target"] == raw + b"2":  # type: ignore[union-attr]
                break


async def test_a_directory_comes_in_pages_sorted_by_its_bytes(place: tuple[Path, Run]) -> None:
    workspace, run = place
    names = sorted([f"{number:04}".encode() for number in range(2_500)] + [NOT_UTF8])
    for name in names:
        Path(os.fsdecode(os.fsencode(workspace) + b"/" + name)).touch()
    listed = [os.fsencode(entry.name) for entry in await run.files.list()]
    assert listed == names
    page = await run.call("files.list", {"limit": 2})
    assert ([x["name"] for x in page["entries"]], page["next"]) == (["0000", "0001"], "0001")
    page = await run.call("files.list", {"limit": 3, "after": names[-3]})
    assert [x["name"] for x in page["entries"]] == ["2499", NOT_UTF8]
    assert "next" not in page


async def test_a_tree_is_made_moved_and_removed(place: tuple[Path, Run]) -> None:
    workspace, run = place
    await run.files.mkdir("a/b/c", parents=True)
    await run.files.mkdir("a/b/c", exist_ok=True)
    await run.files.write("a/b/c/file", b"x")
    await run.files.move("a", "z")
    with pytest.raises(CallError) as caught:
        await run.files.move("z/b/c/file", "z/b", replace=False)
    assert caught.value.code is Code.EXISTS
    assert await run.files.remove("z", recursive=True) == 4
    assert list(workspace.iterdir()) == []


async def test_many_at_once_do_not_mix(place: tuple[Path, Run]) -> None:
    _, run = place
    contents = {f"file-{number}": os.urandom(200_000) for number in range(20)}

    async def there_and_back(name: str) -> None:
        await run.files.write(name, contents[name])
        assert await run.files.read(name) == contents[name]

    async with anyio.create_task_group() as group:
        for name in contents:
            group.start_soon(there_and_back, name)
