"""`files.read`: ranges, conditions, many files at once, and files that are not what they seem."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest
from servedhands import reach
from stack import Stack, open_stack, until

from sidecar.client import CallError, Code, Retry, Run
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.rootlist import parse_roots
from sidecar.protocol.limits import UNSIZED_BYTES

BIG = 8_000_000
ROOTS = "/proc,/sys"
HUGE = Path("/proc/kallsyms")  # megabytes, where there is one
TUNABLE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.fixture(scope="module", params=["in-process", "socket"])
async def module_stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """One for all tests, with either form of hands. /proc and /sys may be read, too."""
    folder = tmp_path_factory.mktemp("reading")
    async with open_stack(folder, roots=ROOTS) as stack:
        if request.param == "socket":
            enter = stack._exits.enter_async_context  # what is entered later is left earlier
            opened = LocalHands.open_root(str(stack.workspace), roots=parse_roots(ROOTS))
            local = await enter(opened)
            stack.sidecar.means.hands = await enter(reach(local, folder / "socket"))
        yield stack


@pytest.fixture(scope="module")
async def module_run(module_stack: Stack) -> Run:
    return await module_stack.attach()


@pytest.fixture
async def place(module_stack: Stack, module_run: Run) -> AsyncIterator[tuple[Path, Run]]:
    """The workspace, which is empty again after the test, and a run."""
    yield module_stack.workspace, module_run
    await until(lambda: not module_stack.sidecar.dispatcher._open)
    for entry in module_stack.workspace.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


async def test_a_range_may_begin_at_the_end_and_not_behind_it(place: tuple[Path, Run]) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"0123456789")
    assert await run.files.read("file", offset=10) == b""
    with pytest.raises(CallError) as caught:
        await run.files.read("file", offset=11)
    assert (caught.value.code, caught.value.details["size"]) == (Code.INVALID, 10)


@pytest.mark.parametrize("inline", [True, False])
async def test_a_file_is_read_if_it_has_the_etag_and_else_its_etag_is_told(
    inline: bool, place: tuple[Path, Run]
) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"first")
    etag = (await run.files.stat("file")).etag
    arguments = {"path": "file", "etag": etag, "inline": inline}
    assert (await run.call("files.read", arguments))["etag"] == etag
    (workspace / "file").write_bytes(b"another")
    with pytest.raises(CallError) as caught:
        await run.call("files.read", arguments)
    error = caught.value
    assert (error.code, error.retry) == (Code.PRECONDITION_FAILED, Retry.NEW_ID)
    now = (await run.files.stat("file")).etag
    assert (error.details["etag"], error.details["size"]) == (now, 7)


def make_strange(workspace: Path) -> socket.socket:
    os.mkfifo(workspace / "fifo")
    (workspace / "folder").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.relpath(workspace / "socket"))
    os.symlink("/dev/null", workspace / "device")
    os.symlink("fifo", workspace / "link")
    return listener


STRANGE = {
    "fifo": Code.UNSUPPORTED,
    "link": Code.UNSUPPORTED,
    "socket": Code.UNSUPPORTED,
    "folder": Code.IS_DIRECTORY,
    "device": Code.OUTSIDE,
    "missing": Code.NOT_FOUND,
    "../file": Code.OUTSIDE,
    "a\0b": Code.INVALID,
}


async def test_what_is_no_file_is_a_coded_error_of_its_own_and_never_waited_for(
    place: tuple[Path, Run],
) -> None:
    workspace, run = place
    (workspace / "good").write_bytes(b"good")
    with make_strange(workspace), anyio.fail_after(5):
        for path, code in STRANGE.items():
            with pytest.raises(CallError) as caught:
                await run.files.read(path)
            assert caught.value.code is code, path
        found = await run.files.read_many(["good", *STRANGE, "good"])
    assert [file.path for file in found] == ["good", *STRANGE, "good"]
    assert [file.content for file in (found[0], found[-1])] == [b"good", b"good"]
    for file, code in zip(found[1:-1], STRANGE.values(), strict=True):
        assert file.error is not None and file.error.code is code, file.path
        with pytest.raises(CallError):
            file.check()


@pytest.mark.optional
@pytest.mark.skipif(os.geteuid() == 0, reason="root reads what nobody may")
async def test_a_file_that_may_not_be_read_is_refused(place: tuple[Path, Run]) -> None:
    workspace, run = place
    (workspace / "file").touch(mode=0)
    with pytest.raises(CallError) as caught:
        await run.files.read("file")
    assert caught.value.code is Code.PERMISSION_DENIED


async def test_holes_are_read_as_zeros(place: tuple[Path, Run]) -> None:
    workspace, run = place
    with (workspace / "file").open("wb") as file:
        file.seek(3_000_000)
        file.write(b"end")
    assert await run.files.read("file") == bytes(3_000_000) + b"end"
    (workspace / "hole").touch()
    os.truncate(workspace / "hole", 4096)
    assert await run.files.read("hole") == bytes(4096)


# Files that do not say how many bytes they have ---------------------------------------------


async def test_a_file_without_a_size_is_read_whole_and_then_has_one(
    place: tuple[Path, Run],
) -> None:
    _, run = place
    path = f"/proc/{os.getpid()}/environ"
    content = Path(path).read_bytes()
    assert (await run.files.stat(path)).size == 0
    for inline in (True, False):
        answer = await run.call("files.read", {"path": path, "inline": inline})
        assert (answer["size"], answer["length"]) == (len(content), len(content))
    assert await run.files.read(path) == content
    assert await run.files.read(path, offset=5, length=10) == content[5:15]
    with pytest.raises(CallError) as caught:
        await run.files.read(path, offset=len(content) + 1)
    assert caught.value.details["size"] == len(content)
    (found,) = await run.files.read_many([path])
    assert found.check().content == content


@pytest.mark.optional
@pytest.mark.skipif(not TUNABLE.exists(), reason="this kernel has no such file")
async def test_a_file_that_says_too_much_is_read_as_far_as_it_goes(
    place: tuple[Path, Run],
) -> None:
    _, run = place
    path, content = str(TUNABLE), TUNABLE.read_bytes()
    assert TUNABLE.stat().st_size > len(content)
    assert await run.files.read(path) == content
    assert [file.content for file in await run.files.read_many([path])] == [content]


@pytest.mark.optional
async def test_a_file_without_a_size_that_has_too_much_is_refused(
    place: tuple[Path, Run],
) -> None:
    _, run = place
    if not HUGE.exists() or len(HUGE.read_bytes()) <= UNSIZED_BYTES:
        pytest.skip(f"{HUGE} is not large enough here")
    with pytest.raises(CallError, match="does not say how many bytes") as caught:
        await run.files.read(str(HUGE))
    assert (caught.value.code, caught.value.details["limit"]) == (Code.LIMIT, UNSIZED_BYTES)


# Files that change --------------------------------------------------------------------------


async def read_while(
    run: Run, path: str, change: list[Callable[[], object]], *, allow_change: bool = False
) -> bytes:
    """The bytes of a file, to which `change` is done after the first of them came."""
    got = bytearray()
    async with run.files.open(path, allow_change=allow_change) as download:
        async for chunk in download:
            got += chunk
            while change:
                change.pop()()
    return bytes(got)


async def test_a_file_that_grows_is_read_as_far_as_it_was_if_changes_are_allowed(
    place: tuple[Path, Run],
) -> None:
    workspace, run = place
    path = workspace / "file"
    path.write_bytes(b"x" * BIG)

    def grow() -> None:
        with path.open("ab") as file:
            file.write(b"more")

    assert await read_while(run, "file", [grow], allow_change=True) == b"x" * BIG
    with pytest.raises(CallError, match="'file' changed while it was read") as caught:
        await read_while(run, "file", [grow])
    assert caught.value.code is Code.SOURCE_CHANGED


async def test_a_file_that_shrinks_ends_its_stream_in_any_case(place: tuple[Path, Run]) -> None:
    workspace, run = place
    path = workspace / "file"
    path.write_bytes(b"x" * BIG)
    with pytest.raises(CallError, match="'file' ended at") as caught:
        await read_while(run, "file", [lambda: os.truncate(path, 10)], allow_change=True)
    assert caught.value.code is Code.SOURCE_CHANGED


async def test_a_file_that_is_replaced_is_read_as_it_was(place: tuple[Path, Run]) -> None:
    workspace, run = place
    (workspace / "file").write_bytes(b"x" * BIG)
    (workspace / "new").write_bytes(b"other")
    replace = (workspace / "new").rename
    found = await read_while(run, "file", [lambda: replace(workspace / "file")])
    assert found == b"x" * BIG


# Many files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, 1000, 100_000])
async def test_many_files_come_in_one_call_each_with_what_it_is(
    size: int, place: tuple[Path, Run]
) -> None:
    workspace, run = place
    contents = {f"file-{number}": os.urandom(size) for number in range(30)}
    for name, content in contents.items():
        (workspace / name).write_bytes(content)
    (workspace / "file-7").chmod(0o751)
    found = await run.files.read_many(list(contents))
    assert {file.path: file.content for file in found} == contents
    stat = (workspace / "file-7").stat()
    assert (found[7].mode, found[7].mtime_ns) == (0o751, stat.st_mtime_ns)
    assert found[7].etag == (await run.files.stat("file-7")).etag
    answer = await run.call("files.read", {"paths": list(contents), "inline": False})
    assert [row["offset"] for row in answer["files"]] == [size * n for n in range(30)]
    assert answer["length"] == 30 * size


async def test_more_files_than_fit_in_a_call_are_asked_for_in_several(
    place: tuple[Path, Run], module_stack: Stack
) -> None:
    workspace, run = place
    names = [f"{number}-{'n' * 200}" for number in range(1200)]
    for name in names:
        (workspace / name).write_text(name)
    before = module_stack.sidecar.dispatcher.counts["ended"]
    found = await run.files.read_many(names)
    assert [file.content.decode() for file in found] == names
    assert module_stack.sidecar.dispatcher.counts["ended"] - before == 2


async def test_many_files_take_few_descriptors(
    place: tuple[Path, Run], module_stack: Stack
) -> None:
    workspace, run = place
    names = [f"file-{number}" for number in range(100)]
    for name in names:
        (workspace / name).write_bytes(bytes(50_000))
    before = len(os.listdir("/proc/self/fd"))
    most = 0
    async with run.open("files.read", {"paths": names}) as call:
        async for _ in call.receiver(3):
            most = max(most, len(os.listdir("/proc/self/fd")))
    assert most - before <= 6


@pytest.mark.parametrize("is_gone", [True, False])
async def test_a_file_that_is_another_when_its_turn_comes_ends_the_stream(
    is_gone: bool, place: tuple[Path, Run]
) -> None:
    workspace, run = place
    (workspace / "first").write_bytes(b"x" * BIG)
    (workspace / "second").write_bytes(b"y" * 400_000)
    got = 0
    with pytest.raises(CallError, match="'second'") as caught:
        async with run.open("files.read", {"paths": ["first", "second"]}) as call:
            await call.wait()
            (workspace / "second").unlink()
            if not is_gone:
                (workspace / "second").write_bytes(b"z" * 400_000)
            async for chunk in call.receiver(3):
                got += len(chunk)
    assert caught.value.code is Code.SOURCE_CHANGED
    assert 0 < got <= BIG  # what the stream still had to send went with it


async def test_one_file_or_many_and_not_both(place: tuple[Path, Run]) -> None:
    _, run = place
    for arguments in ({}, {"path": "a", "paths": ["b"]}, {"paths": ["a"], "offset": 1}):
        with pytest.raises(CallError) as caught:
            await run.call("files.read", arguments)
        assert caught.value.code is Code.INVALID
