"""Copies of files, links and trees, through both forms of hands."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from servedhands import reach

from sidecar.errors import CallError, Code, Started
from sidecar.hands.fileinterface import ToolName
from sidecar.hands.interface import Hands
from sidecar.hands.local import copying, filecopy, removal
from sidecar.hands.local.beneath import Beneath
from sidecar.hands.local.copying import Copy
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.syscalls import renameat2
from sidecar.hands.rootlist import ListedRoot

EXCHANGE = 2  # RENAME_EXCHANGE of rename(2)
OLD = 1_000_000_000_000_000_001  # nanoseconds, in 2001


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A root for reading only."""
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    (data / "sub/file").write_bytes(b"of the data")
    return data


@pytest.fixture(params=["in-process", "socket"])
async def hands(
    request: pytest.FixtureRequest, root: Path, data: Path, socket_path: Path
) -> AsyncIterator[Hands]:
    async with LocalHands.open_root(str(root), roots=[ListedRoot(str(data))]) as local:
        if request.param == "in-process":
            yield local
            return
        async with reach(local, socket_path) as hands:
            yield hands


async def copy(
    hands: Hands,
    source: str | bytes,
    target: str | bytes,
    *,
    recursive: bool = False,
    replace: bool = True,
) -> Mapping[str, Any]:
    options = {"target": target, "recursive": recursive, "replace": replace}
    tool = await hands.tool(ToolName.COPY, source, options)
    try:
        return await tool.result()
    finally:
        await tool.aclose()


async def refusal(hands: Hands, source: str, target: str, **options: bool) -> CallError:
    with pytest.raises(CallError) as caught:
        await copy(hands, source, target, **options)
    return caught.value


def copied(entries: int, size: int) -> dict[str, Any]:
    return {"copied": entries, "bytes": size, "skipped": [], "skipped_count": 0}


def seen(top: Path) -> dict[str, tuple[object, ...]]:
    """All that a copy keeps, by path."""
    found = {}
    for path in (top, *sorted(top.rglob("*"))):
        info = path.lstat()
        what: object = None
        if path.is_symlink():
            what = os.readlink(path)
        elif path.is_file():
            what = path.read_bytes()
        found[str(path.relative_to(top))] = (info.st_mode, info.st_mtime_ns, what)
    return found


# Files and links ---------------------------------------------------------------------------


async def test_a_file_keeps_its_bytes_mode_and_times(hands: Hands, root: Path) -> None:
    content = os.urandom(3_000_000)
    (root / "a").write_bytes(content)
    (root / "a").chmod(0o4751)
    os.utime(root / "a", ns=(5, OLD))
    assert await copy(hands, "a", "b") == copied(1, 3_000_000)
    assert (root / "b").read_bytes() == content
    found = (root / "b").stat()
    assert (found.st_mode & 0o7777, found.st_mtime_ns) == (0o751, OLD)
    assert (root / "a").stat().st_ino != found.st_ino
    assert sorted(os.listdir(root)) == ["a", "b"]


async def test_an_empty_file_is_a_file(hands: Hands, root: Path) -> None:
    (root / "a").touch()
    assert await copy(hands, "a", "b") == copied(1, 0)
    assert (root / "b").read_bytes() == b""


async def test_holes_stay_holes(hands: Hands, root: Path) -> None:
    with (root / "a").open("wb") as file:
        file.seek(64 << 20)
        file.write(b"middle")
        file.truncate(256 << 20)
    assert await copy(hands, "a", "b") == copied(1, 256 << 20)
    found = (root / "b").stat()
    assert found.st_size == 256 << 20
    assert found.st_blocks * 512 < 1 << 20
    with (root / "b").open("rb") as file:
        file.seek((64 << 20) - 4)
        assert file.read(16) == b"\0\0\0\0middle\0\0\0\0\0\0"


async def test_a_file_without_a_size_is_read_to_its_end(tmp_path: Path, root: Path) -> None:
    listed = [ListedRoot("/proc/self")]
    async with LocalHands.open_root(str(root), roots=listed) as hands:
        outcome = await copy(hands, "/proc/self/limits", "limits")
    assert outcome["bytes"] > 100
    assert (root / "limits").read_bytes().startswith(b"Limit")


async def test_an_old_file_is_replaced_and_its_other_names_are_not(
    hands: Hands, root: Path
) -> None:
    (root / "a").write_bytes(b"new")
    (root / "b").write_bytes(b"old bytes")
    os.link(root / "b", root / "other")
    assert await copy(hands, "a", "b") == copied(1, 3)
    assert (root / "b").read_bytes() == b"new"
    assert (root / "other").read_bytes() == b"old bytes"


async def test_a_target_is_kept_if_it_shall_be(hands: Hands, root: Path) -> None:
    (root / "a").write_bytes(b"new")
    (root / "b").write_bytes(b"old")
    error = await refusal(hands, "a", "b", replace=False)
    assert (error.code, error.details["path"]) == (Code.EXISTS, "b")
    assert (root / "b").read_bytes() == b"old"
    assert await copy(hands, "a", "c", replace=False) == copied(1, 3)


async def test_a_link_is_copied_as_its_text_and_replaced_itself(hands: Hands, root: Path) -> None:
    (root / "outward").symlink_to("/etc/passwd")
    os.utime(root / "outward", ns=(5, OLD), follow_symlinks=False)
    (root / "file").write_bytes(b"file")
    (root / "b").symlink_to("file")
    assert await copy(hands, "outward", "b") == copied(1, 0)
    assert os.readlink(root / "b") == "/etc/passwd"
    assert (root / "b").lstat().st_mtime_ns == OLD
    assert await copy(hands, "file", "b") == copied(1, 4)
    assert not (root / "b").is_symlink()
    assert (root / "b").read_bytes() == b"file"
    assert (await refusal(hands, "outward", "b", replace=False)).code is Code.EXISTS
    assert sorted(os.listdir(root)) == ["b", "file", "outward"]


async def test_names_that_are_not_utf_8(hands: Hands, root: Path) -> None:
    (root / os.fsdecode(b"caf\xe9")).mkdir()
    (root / os.fsdecode(b"caf\xe9/\xff")).write_bytes(b"latin")
    assert await copy(hands, b"caf\xe9", b"\xfe", recursive=True) == copied(2, 5)
    assert (root / os.fsdecode(b"\xfe/\xff")).read_bytes() == b"latin"


@pytest.mark.parametrize(
    "source, target, code",
    [
        ("none", "b", Code.NOT_FOUND),
        ("a", "none/b", Code.NOT_FOUND),
        ("a", "a/b", Code.NOT_DIRECTORY),
        ("a", "b/", Code.NOT_DIRECTORY),
        ("a/", "b", Code.NOT_DIRECTORY),
        ("a", "folder", Code.IS_DIRECTORY),
        ("folder", "b", Code.IS_DIRECTORY),
        ("fifo", "b", Code.UNSUPPORTED),
        ("socket", "b", Code.UNSUPPORTED),
        ("a", "a", Code.INVALID),
        ("a", "same", Code.INVALID),
        ("a", ".", Code.INVALID),
        ("a", "", Code.INVALID),
        ("../outside/secret", "b", Code.OUTSIDE),
        ("out/secret", "b", Code.OUTSIDE),
        ("a", "../outside/b", Code.OUTSIDE),
        ("a", "out/b", Code.OUTSIDE),
    ],
)
async def test_what_cannot_be_copied_is_told_and_leaves_nothing(
    hands: Hands, root: Path, monkeypatch: pytest.MonkeyPatch, source: str, target: str, code: Code
) -> None:
    (root / "a").write_bytes(b"a")
    os.link(root / "a", root / "same")
    (root / "folder").mkdir()
    (root / "out").symlink_to("../outside")
    os.mkfifo(root / "fifo")
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    before = sorted(os.listdir(root))
    error = await refusal(hands, source, target)
    assert (error.code, error.started) == (code, Started.NO)
    assert sorted(os.listdir(root)) == before
    assert os.listdir(root.parent / "outside") == ["secret"]


# Trees -------------------------------------------------------------------------------------


def furnish(top: Path) -> None:
    (top / "deep/er").mkdir(parents=True)
    (top / "deep/er/file").write_bytes(b"deep")
    (top / "deep/closed").mkdir()
    (top / "deep/closed/file").write_bytes(b"closed")
    (top / "link").symlink_to("deep/er/file")
    (top / "loop").symlink_to(".")
    (top / "program").write_bytes(b"#!/bin/sh\n")
    (top / "program").chmod(0o755)
    (top / "shared").mkdir()
    (top / "shared").chmod(0o1777)
    (top / "deep/closed").chmod(0o555)
    for path in (*sorted(top.rglob("*"), reverse=True), top):
        os.utime(path, ns=(OLD, OLD + len(path.name)), follow_symlinks=False)


async def test_a_tree_is_copied_with_modes_times_and_links(hands: Hands, root: Path) -> None:
    furnish(root / "a")
    assert await copy(hands, "a", "b", recursive=True) == copied(10, 20)
    assert seen(root / "b") == seen(root / "a")


async def test_a_tree_comes_from_a_root_for_reading_and_goes_to_none(
    hands: Hands, root: Path, data: Path
) -> None:
    assert await copy(hands, str(data), "all", recursive=True) == copied(3, 11)
    assert await copy(hands, str(data / "sub/file"), "file") == copied(1, 11)
    assert (root / "all/sub/file").read_bytes() == (root / "file").read_bytes() == b"of the data"
    error = await refusal(hands, "file", str(data / "sub/new"))
    assert (error.code, error.details["path"]) == (Code.READ_ONLY, str(data / "sub/new"))
    assert os.listdir(data / "sub") == ["file"]


async def test_a_tree_goes_into_one_that_is_there(hands: Hands, root: Path) -> None:
    furnish(root / "a")
    (root / "b/deep").mkdir(parents=True)
    (root / "b/deep/kept").write_bytes(b"kept")
    (root / "b/program").write_bytes(b"old")
    (root / "b").chmod(0o700)
    assert await copy(hands, "a", "b", recursive=True) == copied(10, 20)
    assert (root / "b/deep/kept").read_bytes() == b"kept"
    assert (root / "b/program").read_bytes() == b"#!/bin/sh\n"
    assert stat.S_IMODE((root / "b").stat().st_mode) == 0o700
    assert (root / "b").stat().st_mtime_ns != OLD
    error = await refusal(hands, "a", "b", recursive=True, replace=False)
    assert (error.code, error.details["path"]) == (Code.EXISTS, "b")


@pytest.mark.parametrize(
    "target", ["a", "a/", "a/deep/new", "a/deep", "alias/new", "./a/../a/shared/x"]
)
async def test_a_tree_does_not_go_into_itself(hands: Hands, root: Path, target: str) -> None:
    furnish(root / "a")
    (root / "alias").symlink_to("a/deep")
    before = seen(root / "a")
    error = await refusal(hands, "a", target, recursive=True)
    assert (error.code, error.details["path"]) == (Code.INVALID, target)
    assert seen(root / "a") == before


def test_a_target_that_is_moved_into_its_source_ends_the_copy(root: Path, roots: Roots) -> None:
    for number in range(5):
        (root / f"a/{number}").mkdir(parents=True)

    def move() -> None:
        if (root / "b/1").exists():
            (root / "b").rename(root / "a/3/b")

    with pytest.raises(CallError) as caught:
        Copy("a", "b", replace=True, check=move).run(roots, recursive=True)
    assert caught.value.code is Code.INVALID
    assert sorted(os.listdir(root / "a/3/b")) == ["0", "1", "2", "3"]


async def test_what_is_in_the_way_of_a_tree_ends_it_where_it_is(hands: Hands, root: Path) -> None:
    furnish(root / "a")
    (root / "b/link").mkdir(parents=True)
    error = await refusal(hands, "a", "b", recursive=True)
    assert (error.code, error.started) == (Code.IS_DIRECTORY, Started.YES)
    assert (error.details["path"], error.details["copied"]) == ("b/link", 6)
    assert (root / "b/deep/er/file").read_bytes() == b"deep"


@pytest.mark.parametrize("text", ["../outside", "a"])
async def test_a_link_in_the_place_of_a_directory_is_not_followed(
    hands: Hands, root: Path, text: str
) -> None:
    furnish(root / "a")
    (root / "b").mkdir()
    (root / "b/deep").symlink_to(text)
    error = await refusal(hands, "a", "b", recursive=True)
    assert (error.code, error.details["path"]) == (Code.NOT_DIRECTORY, "b/deep")
    assert os.listdir(root.parent / "outside") == ["secret"]


async def test_what_is_no_file_is_left_out_and_told(hands: Hands, root: Path) -> None:
    (root / "a/sub").mkdir(parents=True)
    (root / "a/file").write_bytes(b"file")
    (root / "a/.file.0123456789ab.sidecar-part").write_bytes(b"half")
    os.mkfifo(root / "a/sub/fifo")
    os.mkfifo(root / os.fsdecode(b"a/sub/\xff"))
    outcome = await copy(hands, "a", "b", recursive=True)
    skipped = [[b"sub/fifo", "unsupported"], [b"sub/\xff", "unsupported"]]
    assert outcome == {"copied": 3, "bytes": 4, "skipped": skipped, "skipped_count": 2}
    assert sorted(os.listdir(root / "b")) == ["file", "sub"]


async def test_of_what_is_left_out_a_bounded_number_is_told(
    hands: Hands, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "SKIPPED_BYTES", 5)
    (root / "a").mkdir()
    for name in ("1", "22", "333"):
        os.mkfifo(root / "a" / name)
    outcome = await copy(hands, "a", "b", recursive=True)
    assert outcome["skipped"] == [[b"1", "unsupported"], [b"22", "unsupported"]]
    assert outcome["skipped_count"] == 3


async def test_a_stop_ends_it_after_the_file_at_hand(
    hands: Hands, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a").mkdir()
    for number in range(200):
        (root / f"a/{number:03}").write_bytes(b"x")
    reached, go_on = anyio.Event(), anyio.Event()
    _hold(monkeypatch, reached, go_on)
    options = {"target": "b", "recursive": True, "replace": True}
    tool = await hands.tool(ToolName.COPY, "a", options)
    async with anyio.create_task_group() as group:
        with anyio.fail_after(5):
            await reached.wait()
        group.start_soon(tool.aclose)
        await anyio.wait_all_tasks_blocked()
        go_on.set()
    assert len(os.listdir(root / "b")) < 200
    assert all(not name.startswith(".") for name in os.listdir(root / "b"))


def _hold(monkeypatch: pytest.MonkeyPatch, reached: anyio.Event, go_on: anyio.Event) -> None:
    """The first file is copied when it may."""
    from anyio.lowlevel import current_token

    token, done = current_token(), []
    content = filecopy.copy_content

    def slowly(source: int, target: int, check: Callable[[], object]) -> int:
        if not done:
            done.append(True)
            anyio.from_thread.run_sync(reached.set, token=token)
            anyio.from_thread.run(go_on.wait, token=token)
        return content(source, target, check)

    monkeypatch.setattr("sidecar.hands.local.copyentry.copy_content", slowly)


def test_a_tree_deeper_than_a_path_can_say(root: Path, roots: Roots) -> None:
    """600 levels of 20 bytes: the copy goes by descriptors. The walk enters no directory whose
    path has more than about 8 KiB, and what lies deeper is left out."""
    os.mkdir(root / "a")
    here = os.open(root / "a", os.O_PATH)
    for _ in range(600):
        os.mkdir("d" * 20, dir_fd=here)
        below = os.open("d" * 20, os.O_PATH, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    made = Copy("a", "b", replace=True, check=lambda: None)
    made.run(roots, recursive=True)
    levels = (8192 - 256 + 1) // 21
    assert made.copied == 1 + levels
    assert made.outcome()["skipped_count"] == 1
    assert made.outcome()["skipped"][0][1] == "invalid"
    for name in "ab":  # pytest's own rmtree recurses
        removal.remove(roots, name, recursive=True, check=lambda: None)


# Disks -------------------------------------------------------------------------------------


@pytest.mark.optional
async def test_a_full_disk_is_told_before_the_first_byte(
    hands: Hands, root: Path, small_disk: Path
) -> None:
    (root / "a").write_bytes(bytes(100_000))
    (small_disk / "b").write_bytes(b"old")
    error = await refusal(hands, "a", "disk/b")
    assert (error.code, error.details["needed"]) == (Code.NO_SPACE, 100_000)
    assert error.details["available"] < 65_536
    assert (small_disk / "b").read_bytes() == b"old"
    assert os.listdir(small_disk) == ["b"]


@pytest.mark.optional
async def test_a_disk_that_fills_up_leaves_no_half_of_a_file(
    hands: Hands, root: Path, small_disk: Path
) -> None:
    (root / "a").mkdir()
    for name in "123":
        (root / "a" / name).write_bytes(os.urandom(20_000))
    (small_disk / "ballast").write_bytes(os.urandom(8_000))
    error = await refusal(hands, "a", "disk/b", recursive=True)
    assert (error.code, error.started) == (Code.NO_SPACE, Started.YES)
    assert (error.details["path"], error.details["copied"]) == ("disk/b/3", 3)
    assert sorted(os.listdir(small_disk / "b")) == ["1", "2"]


# One file ----------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "source", tmp_path / "target"


def copy_content(pair: tuple[Path, Path], check: Callable[[], object] = lambda: None) -> int:
    with pair[0].open("rb") as source, pair[1].open("w+b") as target:
        return filecopy.copy_content(source.fileno(), target.fileno(), check)


@pytest.mark.parametrize(
    "number", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, 0]
)
def test_without_help_of_the_kernel_we_copy_ourselves(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*arguments: object) -> int:
        if number:
            raise OSError(number, os.strerror(number))
        return 0  # as some file systems answer to what they do not know

    monkeypatch.setattr(os, "copy_file_range", refuse)
    content = os.urandom(2_500_000)
    pair[0].write_bytes(content)
    assert copy_content(pair) == 2_500_000
    assert pair[1].read_bytes() == content


def test_a_file_system_that_knows_no_holes(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: int) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "lseek", refuse)
    pair[0].write_bytes(b"content")
    assert copy_content(pair) == 7
    assert pair[1].read_bytes() == b"content"


@pytest.mark.parametrize("kind", ["grows", "shrinks", "is touched"])
def test_a_file_that_changes_meanwhile_is_not_copied(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    pair[0].write_bytes(b"content")
    changes = {
        "grows": lambda: pair[0].write_bytes(b"content and more"),
        "shrinks": lambda: pair[0].write_bytes(b"c"),
        "is touched": lambda: os.utime(pair[0], ns=(1, 1)),
    }
    monkeypatch.setattr(filecopy, "_clone", lambda *arguments: False)
    with pytest.raises(filecopy.Unreadable) as caught:
        copy_content(pair, changes[kind])
    assert isinstance(caught.value.error, CallError)
    assert caught.value.error.code is Code.SOURCE_CHANGED


@pytest.mark.optional
def test_a_file_that_says_more_than_it_has_is_copied_as_far_as_it_goes(
    pair: tuple[Path, Path],
) -> None:
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not path.exists() or path.stat().st_size != 4096:
        pytest.skip("no file of sysfs to read")
    assert copy_content((path, pair[1])) == len(path.read_bytes())
    assert pair[1].read_bytes() == path.read_bytes()


def test_a_file_without_size_that_never_ends_is_given_up(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filecopy, "UNSIZED_BYTES", 10)
    with pytest.raises(filecopy.Unreadable) as caught:
        copy_content((Path("/proc/self/limits"), pair[1]))
    assert isinstance(caught.value.error, CallError)
    assert caught.value.error.code is Code.LIMIT


def test_what_cannot_be_read_is_told_of_the_source(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "copy_file_range", fail)
    monkeypatch.setattr(os, "pread", fail)
    pair[0].write_bytes(b"content")
    with pytest.raises(filecopy.Unreadable) as caught:
        copy_content(pair)
    assert isinstance(caught.value.error, OSError)


def test_a_root_is_not_left_by_a_copy(root: Path, beneath: Beneath) -> None:
    """The same for both ways to resolve."""
    roots = Roots(beneath)
    (root / "a").write_bytes(b"a")
    (root / "out").symlink_to("../outside")
    for source, target in [("out/secret", "b"), ("a", "out/b"), ("a", "../b")]:
        with pytest.raises(CallError) as caught:
            Copy(source, target, replace=True, check=lambda: None).run(roots, recursive=False)
        assert caught.value.code is Code.OUTSIDE


@pytest.mark.parametrize("swapped", ["a/sub", "b/sub"])
def test_a_link_that_takes_the_place_of_a_directory_leads_no_copy_out(
    root: Path, beneath: Beneath, swapped: str
) -> None:
    for top in ("a", "b"):
        (root / top / "sub").mkdir(parents=True)
        for number in range(20):
            (root / top / f"sub/{number}").write_bytes(b"ours")
    (root / "link").symlink_to("../outside")
    roots, is_over = Roots(beneath), threading.Event()

    def swap() -> None:
        while not is_over.is_set():
            here = os.fsencode(root)
            renameat2(-1, here + b"/link", -1, here + b"/" + swapped.encode(), EXCHANGE)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(20):
            with suppress(CallError):
                Copy("a", "b", replace=True, check=lambda: None).run(roots, recursive=True)
    finally:
        is_over.set()
        swapper.join()
    assert os.listdir(root.parent / "outside") == ["secret"]
    found = {os.path.basename(name) for _, _, names in os.walk(root) for name in names}
    assert found <= {str(number) for number in range(20)} | {"link", "sub"}
