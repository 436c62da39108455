"""Trees through the whole stack: all of them arrives, and nothing but that is touched."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from stack import Stack, open_stack, until

from sidecar.client import CallError, Code, Run, Teller, TreeOptions
from sidecar.client.trees import Plan, Problem, Task

NOT_UTF8 = os.fsdecode(b"caf\xe9 \xff\n")
BIG = 3_000_000


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path_factory.mktemp("trees")) as stack:
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


class Notes(Teller):
    """What was told."""

    def __init__(self) -> None:
        self.plan = Plan()
        self.problems: dict[bytes, str] = {}
        self.names: list[bytes] = []
        self.open = 0
        self.cut: tuple[int, anyio.CancelScope] | None = None

    def planned(self, plan: Plan) -> None:
        self.plan = plan

    def began(self, path: bytes, files: int, size: int) -> Task:
        self.open += 1
        return _Noted(self)

    def copied(self, path: bytes) -> None:
        self.names.append(path)

    def problem(self, problem: Problem) -> None:
        self.problems[problem.path] = problem.why


class _Noted(Task):
    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def at(self, done: int) -> None:
        if self._notes.cut is not None and done >= self._notes.cut[0]:
            self._notes.cut[1].cancel()

    def end(self) -> None:
        self._notes.open -= 1


def grow(top: Path) -> None:
    """A tree with all that a tree may have."""
    (top / "d/e/f").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "d/small").write_text("small")
    (top / "d/small").chmod(0o640)
    (top / "d/program").write_text("#!")
    (top / "d/program").chmod(0o755)
    (top / "nothing").touch()
    (top / NOT_UTF8).mkdir()
    (top / NOT_UTF8 / NOT_UTF8).write_text("odd")
    (top / "d/e/big").write_bytes(os.urandom(BIG))
    (top / "l").symlink_to("d/small")
    (top / "d/broken").symlink_to("nowhere")
    (top / "d/up").symlink_to("../d/e")
    for folder, folders, files in os.walk(top, topdown=False):
        for number, name in enumerate([*folders, *files]):
            os.utime(
                Path(folder, name),
                ns=(0, 1_600_000_000_123_456_789 + number),
                follow_symlinks=False,
            )
    os.utime(top, ns=(0, 1_600_000_000_000_000_001))
    (top / "d/e/f").chmod(0o550)


Shape = dict[str, tuple[Any, ...]]


def shape(top: Path) -> Shape:
    """All that a copy keeps, of each entry."""
    found: Shape = {}
    for folder, folders, files in os.walk(top):
        for name in [".", *folders, *files] if folder == str(top) else [*folders, *files]:
            path = Path(folder, name)
            status = path.lstat()
            kind = stat.S_IFMT(status.st_mode)
            said: Any = None
            if stat.S_ISLNK(kind):
                said = os.readlink(path)
            elif stat.S_ISREG(kind):
                said = path.read_bytes()
            found[str(path.relative_to(top))] = (
                kind,
                stat.S_IMODE(status.st_mode),
                status.st_mtime_ns,
                said,
            )
    return found


async def test_a_tree_goes_in_and_out_and_is_the_same(stack, run, tmp_path) -> None:
    source = tmp_path / "source"
    grow(source)
    notes = Notes()
    done = await run.files.upload_tree(str(source), "x", teller=notes)
    assert notes.problems == {}
    assert (done.files, done.bytes, done.same) == (5, BIG + 10, 0)
    assert shape(stack.workspace / "x") == shape(source)
    assert notes.open == 0
    assert sorted(notes.names) == sorted(
        [b"d/broken", b"d/e/big", b"d/program", b"d/small", b"d/up", b"l", b"nothing"]
        + [os.fsencode(f"{NOT_UTF8}/{NOT_UTF8}")]
    )

    done = await run.files.download_tree("x", str(tmp_path / "back"), teller=notes)
    assert (done.files, done.bytes, done.problems) == (5, BIG + 10, 0)
    assert shape(tmp_path / "back") == shape(source)
    assert notes.open == 0


async def test_what_is_there_is_passed_over_both_ways(stack, run, tmp_path) -> None:
    source = tmp_path / "source"
    grow(source)
    await run.files.upload_tree(str(source), "x")
    (source / "d/small").write_text("other")
    (source / "d/program").chmod(0o700)
    before = (stack.workspace / "x/d/e/big").stat().st_ino
    notes = Notes()
    done = await run.files.upload_tree(str(source), "x", teller=notes)
    assert (done.files, done.same) == (1, 7)
    assert notes.names == [b"d/small"]
    assert (stack.workspace / "x/d/e/big").stat().st_ino == before
    assert shape(stack.workspace / "x/d") == shape(source / "d")

    await run.files.download_tree("x", str(tmp_path / "back"))
    (tmp_path / "back/nothing").unlink()
    (tmp_path / "back/d/small").chmod(0o600)
    done = await run.files.download_tree("x", str(tmp_path / "back"))
    assert (done.files, done.same) == (1, 7)
    assert shape(tmp_path / "back/d") == shape(source / "d")


async def test_with_checksum_time_does_not_matter_and_bytes_do(stack, run, tmp_path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "same").write_text("12345")
    (source / "other").write_text("12345")
    options = TreeOptions(checksum=True)
    await run.files.upload_tree(str(source), "x")
    os.utime(source / "same", ns=(0, 0))
    time = (source / "other").stat().st_mtime_ns
    (source / "other").write_text("54321")
    os.utime(source / "other", ns=(0, time))
    assert (await run.files.upload_tree(str(source), "x")).files == 1
    os.utime(source / "same", ns=(0, 9))
    assert (await run.files.upload_tree(str(source), "x", options)).files == 1
    assert (stack.workspace / "x/other").read_text() == "54321"
    os.utime(source / "same", ns=(0, 10))
    assert (await run.files.download_tree("x", str(source), options)).files == 0


async def test_what_is_excluded_or_ignored_stays_behind_both_ways(stack, run, tmp_path) -> None:
    source = tmp_path / "source"
    for name in ("a.o", "b.log", "c", "d/a.o", ".git/config"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("1")
    (source / ".gitignore").write_text("*.o\n")
    options = TreeOptions(exclude=("*.log",), git_ignore=True)
    notes = Notes()
    await run.files.upload_tree(str(source), "x", options, teller=notes)
    assert sorted(notes.names) == [b".gitignore", b"c"]

    (stack.workspace / "x/e.log").write_text("1")
    (stack.workspace / "x/e.o").write_text("1")
    await run.files.download_tree("x", str(tmp_path / "back"), options)
    assert sorted(os.listdir(tmp_path / "back")) == [".gitignore", "c", "d"]


async def test_special_files_and_what_is_in_the_way_are_told(stack, run, tmp_path) -> None:
    source = tmp_path / "source"
    (source / "file").mkdir(parents=True)
    (source / "file/a").touch()
    (source / "good").touch()
    os.mkfifo(source / "fifo")
    (source / "out").symlink_to("/etc/passwd")
    (stack.workspace / "x").mkdir()
    (stack.workspace / "x/file").write_text("kept")
    notes = Notes()
    done = await run.files.upload_tree(str(source), "x", teller=notes)
    assert set(notes.problems) == {b"file", b"fifo", b"out"}
    assert (done.files, done.problems) == (1, 3)
    assert (stack.workspace / "x/file").read_text() == "kept"
    assert not (stack.workspace / "x/out").is_symlink()
    everything = TreeOptions(all_links=True)
    await run.files.upload_tree(str(source), "x", everything)
    assert os.readlink(stack.workspace / "x/out") == "/etc/passwd"

    notes = Notes()
    os.mkfifo(stack.workspace / "x/fifo")
    done = await run.files.download_tree("x", str(tmp_path / "back"), teller=notes)
    assert set(notes.problems) == {b"fifo", b"out"}
    assert sorted(os.listdir(tmp_path / "back")) == ["file", "good"]
    await run.files.download_tree("x", str(tmp_path / "back"), everything)
    assert os.readlink(tmp_path / "back/out") == "/etc/passwd"


async def test_what_was_cut_off_goes_on_in_the_middle(stack, run, tmp_path) -> None:
    source = tmp_path / "source"
    grow(source)
    for way in ("up", "down"):
        notes = Notes()
        scope = anyio.CancelScope()
        notes.cut = (BIG // 2, scope)
        with scope:
            if way == "up":
                await run.files.upload_tree(str(source), "x", teller=notes)
            else:
                await run.files.download_tree("x", str(tmp_path / "back"), teller=notes)
        assert scope.cancelled_caught
        assert notes.open == 0
        await until(lambda: not stack.sidecar.dispatcher._open)
        folder = stack.workspace / "x" if way == "up" else tmp_path / "back"
        [part] = [path for path in (folder / "d/e").iterdir() if path.suffix == ".sidecar-part"]
        assert part.stat().st_size >= 1_000_000
        if way == "up":
            await run.files.upload_tree(str(source), "x")
        else:
            await run.files.download_tree("x", str(tmp_path / "back"))
        assert shape(folder) == shape(source)


async def test_a_source_that_is_not_there_makes_nothing(stack, run, tmp_path) -> None:
    with pytest.raises(CallError) as caught:
        await run.files.download_tree("nope", str(tmp_path / "back"))
    assert caught.value.code is Code.NOT_FOUND
    with pytest.raises(FileNotFoundError):
        await run.files.upload_tree(str(tmp_path / "nope"), "x")
    assert os.listdir(tmp_path) == os.listdir(stack.workspace) == []


# A sandbox that lies ------------------------------------------------------------------------


def row(name: str | bytes, type: str, **more: Any) -> dict[str, Any]:
    common = {"size": 4, "mode": 0o777, "mtime_ns": 0, "etag": "1-1-1-1"}
    return {"name": name, "type": type, **common, **more}


LIES = [
    row("../evil", "file"),
    row("/tmp/evil", "file"),
    row("a/../../evil", "file"),
    row("", "file"),
    row("a//evil", "file"),
    row("nul\0", "file"),
    row("link", "symlink", target="../outside"),
    row("link/evil", "file"),
    row("inner", "symlink", target="real"),
    row("inner/evil", "file"),
    row("real", "directory"),
    row("real/good", "file"),
    row("dir", "symlink", target="../outside"),
    row("dir", "directory"),
    row("dir/evil", "file"),
]


@pytest.mark.parametrize("size", [4, 2_000_000])
@pytest.mark.parametrize("all_links", [True, False])
async def test_a_lying_sandbox_writes_nothing_outside(
    size: int, all_links: bool, stack, run, tmp_path, monkeypatch
) -> None:
    """It lists what it has not, and has what it lists: each evil file can be read there."""
    for name in ("link", "inner", "dir", "real", "a"):
        (stack.workspace / "x" / name).mkdir(parents=True)
        (stack.workspace / "x" / name / "evil").write_bytes(b"e" * size)
    (stack.workspace / "evil").write_bytes(b"e" * size)
    (stack.workspace / "x/real/good").write_bytes(b"g" * size)
    (tmp_path / "outside").mkdir()
    call = run.call

    async def lie(command: str, arguments: Any = None, **options: Any) -> Any:
        if command == "files.list":
            return {"entries": [{**line, "size": size} for line in LIES]}
        return await call(command, arguments, **options)

    monkeypatch.setattr(run, "call", lie)
    notes = Notes()
    options = TreeOptions(all_links=all_links)
    await run.files.download_tree("x", str(tmp_path / "back"), options, teller=notes)
    assert os.listdir(tmp_path / "outside") == []
    assert sorted(os.listdir(tmp_path)) == ["back", "outside"]
    found = {
        str(path.relative_to(tmp_path / "back"))
        for path in (tmp_path / "back").rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert found <= {"real/good", "link/evil", "inner/evil", "dir/evil"}
    assert "real/good" in found
    assert not (tmp_path / "back/real/evil").exists()
    for name in (b"../evil", b"/tmp/evil", b"a/../../evil", b"a//evil", b"nul\0"):
        assert notes.problems[name] == "is no path below the top of the tree"


async def test_a_small_file_that_has_become_large_is_not_held_in_memory(
    stack, run, tmp_path, monkeypatch
) -> None:
    (stack.workspace / "x").mkdir()
    (stack.workspace / "x/a").write_bytes(b"1" * 20_000_000)
    (stack.workspace / "x/b").write_bytes(b"2")
    call = run.call

    async def lie(command: str, arguments: Any = None, **options: Any) -> Any:
        answer = await call(command, arguments, **options)
        if command == "files.list":
            for entry in answer["entries"]:
                entry["size"] = 1
        return answer

    monkeypatch.setattr(run, "call", lie)
    done = await run.files.download_tree("x", str(tmp_path / "back"))
    assert (done.files, done.bytes, done.problems) == (2, 20_000_001, 0)
    assert (tmp_path / "back/a").stat().st_size == 20_000_000
