"""Uploads and downloads that break off, and go on where they stopped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
from stack import Stack, open_stack, until

from sidecar.client import CallError, Code, Run
from sidecar.client.localfile import LocalFile, open_local
from sidecar.client.uploading import TRIES, Patience, upload_id

SIZE = 6_000_000
UPLOAD = b"\5" * 16


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path_factory.mktemp("transfers")) as stack:
        yield stack


@pytest.fixture(scope="module")
async def module_run(stack: Stack) -> Run:
    return await stack.attach()


@pytest.fixture
async def run(stack: Stack, module_run: Run) -> AsyncIterator[Run]:
    """The workspace is empty again after the test."""
    yield module_run
    await until(lambda: not stack.sidecar.dispatcher._open)
    await module_run.exec(["find", ".", "-mindepth", "1", "-delete"])


@pytest.fixture
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


class Cut:
    """Ends a transfer when so many bytes have arrived, and notes where it began."""

    def __init__(self, at: int = SIZE + 1) -> None:
        self.at = at
        self.first = -1
        self.scope = anyio.CancelScope()

    def __call__(self, done: int) -> None:
        self.first = done if self.first < 0 else self.first
        if done >= self.at:
            self.scope.cancel()


def parts(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(".sidecar-part")]


# Into the sandbox ---------------------------------------------------------------------------


async def test_an_upload_is_there_with_mode_and_time(stack, run, here, content) -> None:
    (here / "a").write_bytes(content)
    seen: list[int] = []
    written = await run.files.upload(
        "x/a", here / "a", mode=0o640, mtime_ns=5, parents=True, on_progress=seen.append
    )
    found = (stack.workspace / "x/a").stat()
    assert (stack.workspace / "x/a").read_bytes() == content
    assert written.sha256 == hashlib.sha256(content).digest()
    assert (found.st_mode & 0o777, found.st_mtime_ns) == (0o640, 5)
    assert seen == sorted(seen) and seen[-1] == SIZE


@pytest.mark.parametrize("upload", [UPLOAD, "derived"])
async def test_an_upload_that_was_cut_off_sends_only_the_rest(
    upload, stack, run, here, content
) -> None:
    (here / "a").write_bytes(content)
    cut = Cut(at=SIZE // 2)
    with cut.scope:
        await run.files.upload("a", here / "a", upload=upload, on_progress=cut)
    assert cut.scope.cancelled_caught
    await until(lambda: not stack.sidecar.dispatcher._open)
    [part] = parts(stack.workspace)
    size = (stack.workspace / part).stat().st_size
    assert 0 < size < SIZE

    again = Cut()
    written = await run.files.upload("a", here / "a", upload=upload, on_progress=again)
    assert again.first >= size
    assert written.sha256 == hashlib.sha256(content).digest()
    assert os.listdir(stack.workspace) == ["a"]
    assert (stack.workspace / "a").read_bytes() == content


async def test_without_an_id_nothing_is_left_of_an_upload_that_was_cut_off(
    stack, run, here, content
) -> None:
    (here / "a").write_bytes(content)
    cut = Cut(at=SIZE // 2)
    with cut.scope:
        await run.files.upload("a", here / "a", on_progress=cut)
    await until(lambda: not stack.sidecar.dispatcher._open)
    assert os.listdir(stack.workspace) == []


@pytest.mark.parametrize("size", [1_000_000, SIZE, SIZE + 1])
async def test_what_lies_there_of_another_file_is_not_believed(
    size: int, stack, run, here, content
) -> None:
    (here / "a").write_bytes(content)
    part = stack.workspace / f".a.{UPLOAD.hex()}.sidecar-part"
    part.write_bytes(os.urandom(size))
    await run.files.upload("a", here / "a", upload=UPLOAD)
    assert (stack.workspace / "a").read_bytes() == content
    assert os.listdir(stack.workspace) == ["a"]


async def test_a_file_that_changes_while_it_is_sent_does_not_arrive(
    stack, run, here, content
) -> None:
    (here / "a").write_bytes(content)

    def change(done: int) -> None:
        os.utime(here / "a", ns=(0, 0))

    with pytest.raises(CallError) as caught:
        await run.files.upload("a", here / "a", upload=UPLOAD, on_progress=change)
    assert caught.value.code is Code.SOURCE_CHANGED
    assert not (stack.workspace / "a").exists()


async def test_a_target_that_cannot_be_is_no_reason_to_try_again(run, here) -> None:
    (here / "a").write_bytes(b"1")
    with pytest.raises(CallError) as caught:
        await run.files.upload("../a", here / "a", upload=UPLOAD)
    assert caught.value.code is Code.OUTSIDE


async def test_a_fifo_is_refused_and_not_waited_for(run, here) -> None:
    os.mkfifo(here / "p")
    with pytest.raises(CallError) as caught:
        await run.files.upload("a", here / "p")
    assert caught.value.code is Code.UNSUPPORTED


async def test_the_id_of_an_upload_is_that_of_file_and_target(here) -> None:
    (here / "a").write_bytes(b"1")
    with open_local(here / "a") as file:
        first = upload_id("a", file)
        assert first == upload_id(b"a", file)
        assert first != upload_id("b", file)
    os.utime(here / "a", ns=(0, 0))
    with open_local(here / "a") as file:
        assert upload_id("a", file) != first


async def test_the_digest_of_a_part_of_a_file(here) -> None:
    (here / "a").write_bytes(b"12345")
    with LocalFile(os.open(here / "a", os.O_RDONLY), "a", start=2) as file:
        assert file.size == 3
        assert await file.sha256() == hashlib.sha256(b"345").digest()
        assert (await file.source(1).read(0, 9)).data == b"45"


async def test_patience_has_no_end_while_there_is_progress(monkeypatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep)
    patience = Patience()
    error = CallError(Code.INTERRUPTED, "again")
    for reached in range(20):
        await patience.wait(reached, error)
    with pytest.raises(CallError, match="again"):
        for _ in range(TRIES):
            await patience.wait(5, error)
    assert max(waited) <= 4.0


# Out of the sandbox -------------------------------------------------------------------------


async def test_a_download_is_here_with_mode_and_time(stack, run, here, content) -> None:
    (stack.workspace / "a").write_bytes(content)
    (stack.workspace / "a").chmod(0o640)
    os.utime(stack.workspace / "a", ns=(0, 1_234_567_891))
    done = await run.files.download("a", here / "a")
    found = (here / "a").stat()
    assert (here / "a").read_bytes() == content
    assert (done.size, done.mode, done.mtime_ns) == (SIZE, 0o640, 1_234_567_891)
    assert (found.st_mode & 0o777, found.st_mtime_ns) == (0o640, 1_234_567_891)
    assert os.listdir(here) == ["a"]


@pytest.mark.parametrize("size", [0, 1, 65_000])
async def test_a_small_file_comes_in_the_answer(size: int, stack, run, here) -> None:
    (stack.workspace / "a").write_bytes(b"1" * size)
    assert (await run.files.download("a", here / "a")).size == size
    assert (here / "a").read_bytes() == b"1" * size


async def cut_off(run: Run, target: Path) -> int:
    """A download that ended in the middle; how much is here."""
    cut = Cut(at=SIZE // 2)
    with cut.scope:
        await run.files.download("a", target, on_progress=cut)
    [part] = parts(target.parent)
    return (target.parent / part).stat().st_size


async def test_a_download_that_was_cut_off_gets_only_the_rest(stack, run, here, content) -> None:
    (stack.workspace / "a").write_bytes(content)
    (here / "a").write_bytes(b"old")
    size = await cut_off(run, here / "a")
    assert 0 < size < SIZE
    assert (here / "a").read_bytes() == b"old"
    again = Cut()
    await run.files.download("a", here / "a", on_progress=again)
    assert again.first == size
    assert (here / "a").read_bytes() == content
    assert os.listdir(here) == ["a"]


async def test_what_is_here_and_wrong_is_fetched_again(stack, run, here, content) -> None:
    (stack.workspace / "a").write_bytes(content)
    await cut_off(run, here / "a")
    [part] = parts(here)
    with (here / part).open("r+b") as file:
        file.write(b"wrong")
    await run.files.download("a", here / "a")
    assert (here / "a").read_bytes() == content


async def test_another_version_is_begun_anew_and_nothing_is_left_of_the_old(
    stack, run, here, content
) -> None:
    (stack.workspace / "a").write_bytes(content)
    await cut_off(run, here / "a")
    (stack.workspace / "a").write_bytes(content[::-1])
    await run.files.download("a", here / "a")
    assert (here / "a").read_bytes() == content[::-1]
    assert os.listdir(here) == ["a"]


@pytest.mark.parametrize("times", [1, 2])
async def test_a_file_that_changes_is_begun_anew_once(
    times: int, stack, run, here, content
) -> None:
    source = stack.workspace / "a"
    source.write_bytes(content)
    changes = iter(range(times))
    is_due = False

    def change(done: int) -> None:
        nonlocal is_due
        if is_due and done and (change := next(changes, None)) is not None:
            os.utime(source, ns=(0, change))
        is_due = done == 0  # once in each try

    download: Callable[[], object] = partial(
        run.files.download, "a", here / "a", on_progress=change
    )
    if times == 1:
        await download()
        assert (here / "a").read_bytes() == content
        assert os.listdir(here) == ["a"]
        return
    with pytest.raises(CallError) as caught:
        await download()
    assert caught.value.code is Code.SOURCE_CHANGED
    assert os.listdir(here) == []


@pytest.mark.parametrize(
    "path, code",
    [("d", Code.IS_DIRECTORY), ("p", Code.UNSUPPORTED), ("nope", Code.NOT_FOUND)],
)
async def test_what_is_no_file_is_told_and_leaves_nothing(path, code, stack, run, here) -> None:
    (stack.workspace / "d").mkdir()
    os.mkfifo(stack.workspace / "p")
    with pytest.raises(CallError) as caught:
        await run.files.download(path, here / "a")
    assert caught.value.code is code
    assert os.listdir(here) == []


async def test_a_directory_in_the_place_of_the_target_is_told(stack, run, here) -> None:
    (stack.workspace / "a").write_bytes(b"1")
    (here / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        await run.files.download("a", here / "a")


async def test_two_downloads_to_one_place_are_not_mixed(stack, run, here, content) -> None:
    (stack.workspace / "a").write_bytes(content)
    codes: list[Code] = []

    async def second(done: int) -> None:
        with pytest.raises(CallError) as caught:
            await run.files.download("a", here / "a")
        codes.append(caught.value.code)

    async with anyio.create_task_group() as group:
        begun = anyio.Event()
        group.start_soon(
            partial(run.files.download, "a", here / "a", on_progress=lambda _: begun.set())
        )
        await begun.wait()
        await second(0)
    assert codes == [Code.CONFLICT]
    assert (here / "a").read_bytes() == content
