"""Lines that match: the same by ripgrep and by ourselves, with either form of hands."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from sidecar.errors import CallError, Code
from sidecar.hands.fileinterface import ToolName
from sidecar.hands.foundlines import FoundLine, Outcome, lines_from, outcome_from
from sidecar.hands.interface import Hands
from sidecar.hands.local.search import searching
from sidecar.services.files.toolrecords import records_of

GREP = shutil.which("grep")  # before a test changes our PATH
DEFAULTS: dict[str, Any] = {
    "fixed": False,
    "ignore_case": False,
    "globs": [],
    "exclude": [],
    "ignore": "git",
    "before": 0,
    "after": 0,
    "limit": 1000,
    "line_bytes": 512,
}


@dataclass(frozen=True)
class Searcher:
    hands: Hands
    engine: str

    async def __call__(
        self, pattern: str, path: str | bytes = "", **options: Any
    ) -> tuple[list[FoundLine], Outcome]:
        wanted = {**DEFAULTS, "pattern": pattern, **options}
        tool = await self.hands.tool(ToolName.SEARCH, path, wanted)
        lines: list[FoundLine] = []
        try:
            async for record in records_of(tool, self.hands.pipe_io):
                lines += lines_from(record, wanted["line_bytes"])
            return lines, outcome_from(await tool.result())
        finally:
            await tool.aclose()

    async def places(self, pattern: str, path: str | bytes = "", **options: Any) -> list[str]:
        """As `path:line`."""
        lines, outcome = await self(pattern, path, **options)
        assert outcome.engine == self.engine
        return [f"{os.fsdecode(line.path)}:{line.line}" for line in lines]


def ripgrep() -> str | None:
    """Ours of the tests, or the machine's."""
    here = os.path.dirname(sys.executable)
    return shutil.which("rg", path=f"{here}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(params=["ripgrep", "python"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whatever asks for this runs twice: with ripgrep in our PATH, and with none."""
    if request.param == "python":
        monkeypatch.setenv("PATH", "/nowhere")
        return "python"
    program = ripgrep()
    if program is None:
        pytest.skip("there is no ripgrep")
    monkeypatch.setenv("PATH", os.path.dirname(program), prepend=os.pathsep)
    return "ripgrep"


@pytest.fixture
async def search(engine: str, any_hands: Hands) -> AsyncIterator[Searcher]:
    yield Searcher(any_hands, engine)


def make(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


async def test_lines_are_sorted_by_path_and_number(search: Searcher, root: Path) -> None:
    make(root, {"b.txt": b"x\nfoo\nbar foo", "a/z": b"foo\n", "a.txt": b"foo\n", "a/b/c": b"foo"})
    lines, outcome = await search("fo+")
    assert lines == [
        FoundLine(b"a/b/c", 1, 1, b"foo", False),
        FoundLine(b"a/z", 1, 1, b"foo", False),
        FoundLine(b"a.txt", 1, 1, b"foo", False),
        FoundLine(b"b.txt", 2, 1, b"foo", False),
        FoundLine(b"b.txt", 3, 5, b"bar foo", False),
    ]
    assert outcome == Outcome(search.engine, None, 4, 0)


async def test_nothing_found_is_no_error(search: Searcher, root: Path) -> None:
    make(root, {"a": b"", "b": b"bar\n"})
    assert await search("foo") == ([], Outcome(search.engine, None, 2, 0))


@pytest.mark.parametrize(
    "pattern, options, expected",
    [
        pytest.param("a.c", {"fixed": True}, ["file:2"], id="plain text"),
        pytest.param("ABC", {"ignore_case": True}, ["file:1"], id="any case"),
        pytest.param("^b", {}, ["file:4"], id="begin of a line"),
        pytest.param("c$", {}, ["file:1", "file:2", "file:3", "file:5"], id="end of a line"),
        pytest.param("^$", {}, ["file:6"], id="an empty line"),
        pytest.param("É", {"ignore_case": True}, ["file:7"], id="not only of ASCII"),
        pytest.param("^[^c]$", {}, ["file:7"], id="a character, not a byte"),
        pytest.param(r"\bend\b", {}, ["file:8"], id="the last line has no end"),
        pytest.param("[^x]bc", {}, ["file:1"], id="no match across lines"),
        pytest.param(r"c\s+b", {}, [], id="nor of white space"),
    ],
)
async def test_what_a_line_matches(
    pattern: str, options: dict[str, Any], expected: list[str], search: Searcher, root: Path
) -> None:
    make(root, {"file": "abc\na.c\nc\nbc_\nc\r\n\né\nan end".encode()})
    assert await search.places(pattern, **options) == expected


async def test_columns_are_bytes_and_text_is_without_its_end(search: Searcher, root: Path) -> None:
    make(root, {"file": "äö foo\r\n".encode() + b"\xff\xfe foo\n"})
    lines, _ = await search("foo")
    assert lines == [
        FoundLine(b"file", 1, 6, "äö foo".encode(), False),
        FoundLine(b"file", 2, 4, b"\xff\xfe foo", False),
    ]


async def test_names_of_any_bytes(search: Searcher, root: Path) -> None:
    for name in (b"caf\xe9", b"new\nline", b"-rf", b".hidden", b"./sub/x"):
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(b"foo\n")
    lines, _ = await search("foo")
    assert [line.path for line in lines] == [b"-rf", b".hidden", b"caf\xe9", b"new\nline", b"sub/x"]


async def test_binary_files_links_and_fifos_are_passed_over(search: Searcher, root: Path) -> None:
    late = b"foo\n" + b"y" * 300_000 + b"\nfoo\0\n"
    make(root, {"early": b"foo\n\0", "late": late, "text": b"foo\n", "z": b"foo\n"})
    (root / "link").symlink_to("text")
    (root / "out").symlink_to(root.parent / "outside")
    os.mkfifo(root / "fifo")
    assert await search.places("foo|secret") == ["text:1", "z:1"]


async def test_lines_are_cut_between_characters(search: Searcher, root: Path) -> None:
    make(root, {"file": "foo ä€ and on".encode() + b"\n" + b"foo " + b"x" * 12 + b"\r\n"})
    lines, _ = await search("foo", line_bytes=16)
    assert lines == [
        FoundLine(b"file", 1, 1, "foo ä€ and on".encode()[:16], False),
        FoundLine(b"file", 2, 1, b"foo " + b"x" * 12, False),
    ]
    make(root, {"file": b"foo 8901234" + "€€".encode() + b"\n"})
    lines, _ = await search("foo", line_bytes=16)
    assert lines == [FoundLine(b"file", 1, 1, b"foo 8901234" + "€".encode(), True)]


async def test_a_line_of_20_mib_is_found_and_its_beginning_shown(
    search: Searcher, root: Path
) -> None:
    make(root, {"file": b"x" * (20 << 20) + b"foo\nfoo\n"})
    lines, _ = await search("foo", line_bytes=16)
    assert lines == [
        FoundLine(b"file", 1, (20 << 20) + 1, b"x" * 16, True),
        FoundLine(b"file", 2, 1, b"foo", False),
    ]


async def test_lines_around_are_shown_once(search: Searcher, root: Path) -> None:
    make(root, {"file": b"1\n2\n3 foo\r\n4\r\n5 foo\n6\n7\n8\n9 foo"})
    lines, _ = await search("foo", before=1, after=2)
    assert [(line.line, line.column > 0, line.text) for line in lines] == [
        (2, False, b"2"),
        (3, True, b"3 foo"),
        (4, False, b"4"),
        (5, True, b"5 foo"),
        (6, False, b"6"),
        (7, False, b"7"),
        (8, False, b"8"),
        (9, True, b"9 foo"),
    ]


async def test_no_more_lines_than_wanted_and_it_is_told(search: Searcher, root: Path) -> None:
    make(root, {"a": b"foo\n" * 4, "b": b"foo\n" * 200_000, "c": b"foo\n"})
    assert await search.places("foo", "", limit=6) == ["a:1", "a:2", "a:3", "a:4", "b:1", "b:2"]
    _, outcome = await search("foo", limit=6)
    assert (outcome.truncated, outcome.searched) == ("limit", None)
    make(root, {"b": b"foo\nbar\n"})
    _, outcome = await search("foo", limit=6)
    assert (outcome.truncated, outcome.searched) == (None, 3)


async def test_no_more_bytes_than_an_answer_has(search: Searcher, root: Path) -> None:
    make(root, {"a": (b"foo" + b"x" * 16_000 + b"\n") * 400})
    lines, outcome = await search("foo", line_bytes=16 * 1024)
    assert (len(lines), outcome.truncated) == (4 * (1 << 20) // 16_020, "bytes")


TREE = {
    ".gitignore": b"*.log\n/build/\n",
    "a.py": b"foo",
    "a.log": b"foo",
    "build/x.py": b"foo",
    "src/.gitignore": b"!keep.log\n",
    "src/b.js": b"foo",
    "src/keep.log": b"foo",
    "src/deep/c.py": b"foo",
    ".git/config": b"foo",
    ".hidden/d.py": b"foo",
    ".a.py.0123456789ab.sidecar-part": b"foo",
}


@pytest.mark.parametrize(
    "path, options, expected",
    [
        ("", {}, ".hidden/d.py a.py src/b.js src/deep/c.py src/keep.log"),
        ("", {"ignore": "none", "globs": ["**/*.log"]}, "a.log src/keep.log"),
        ("", {"ignore": "none", "exclude": ["src", "*.py"]}, ".git/config a.log"),
        ("", {"globs": ["**/*.py"]}, ".hidden/d.py a.py src/deep/c.py"),
        ("", {"globs": ["src/*.js", "*.py"]}, "a.py src/b.js"),
        ("", {"globs": ["**/*.log"]}, "src/keep.log"),
        ("", {"exclude": ["*.py", "!a.py"]}, "a.py src/b.js src/keep.log"),
        (
            "",
            {"exclude": ["!a.log"]},
            ".hidden/d.py a.log a.py src/b.js src/deep/c.py src/keep.log",
        ),
        ("src", {}, "b.js deep/c.py keep.log"),
        ("build", {}, "x.py"),
    ],
)
async def test_which_files_are_searched(
    path: str, options: dict[str, Any], expected: str, search: Searcher, root: Path
) -> None:
    make(root, TREE)
    places = await search.places("foo", path, **options)
    assert [place.removesuffix(":1") for place in places] == expected.split()


async def test_a_file_itself_is_searched_by_ourselves(search: Searcher, root: Path) -> None:
    make(root, {"dir/file": b"foo\n", "dir/bin": b"foo\0"})
    (root / "link").symlink_to("dir/file")
    expected = ([FoundLine(b"", 1, 1, b"foo", False)], Outcome("python", None, 1, 0))
    assert await search("foo", "dir/file") == expected
    assert await search("foo", "link") == expected
    assert (await search("foo", "dir/bin"))[0] == []


@pytest.mark.parametrize(
    "path, code",
    [
        ("gone", Code.NOT_FOUND),
        ("fifo", Code.UNSUPPORTED),
        ("../outside", Code.OUTSIDE),
        ("out", Code.OUTSIDE),
    ],
)
async def test_what_cannot_be_searched(path: str, code: Code, search: Searcher, root: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "out").symlink_to("../outside")
    with pytest.raises(CallError) as caught:
        await search("secret", path)
    assert caught.value.code is code


@pytest.mark.parametrize(
    "pattern, position",
    [("a(b", 1), ("[z-a]", 1), ("(?P<x>a)(?P<x>b)", 12), ("a**", 2)],
)
async def test_what_is_no_expression_says_where(
    pattern: str, position: int, search: Searcher, root: Path
) -> None:
    if (pattern, search.engine) == ("a**", "ripgrep"):
        pytest.xfail("ripgrep takes it")
    make(root, {"file": b"foo"})
    with pytest.raises(CallError) as caught:
        await search(pattern)
    assert (caught.value.code, caught.value.details["position"]) == (Code.INVALID, position)


async def test_an_expression_that_looks_around_is_left_to_ourselves(
    search: Searcher, root: Path
) -> None:
    make(root, {"file": b"foobar\nfoo\nxfoo\n"})
    lines, outcome = await search(r"(?<!x)foo(?!bar)")
    assert ([line.line for line in lines], outcome.engine) == ([2], "python")


@pytest.mark.optional
async def test_what_cannot_be_read_is_counted(search: Searcher, root: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root reads everything")
    make(root, {"a": b"foo", "b": b"foo", "d/c": b"foo"})
    (root / "a").chmod(0)
    (root / "d").chmod(0)
    lines, outcome = await search("foo")
    (root / "d").chmod(0o700)
    assert ([line.path for line in lines], outcome.unreadable) == ([b"b"], 2)


async def test_an_expression_that_never_ends_is_ended(any_hands: Hands, root: Path) -> None:
    """By ourselves: ripgrep's expressions always end."""
    make(root, {"file": b"a" * 60 + b"!\n"})
    searcher = Searcher(any_hands, "python")
    began = time.monotonic()
    slowest = 0.0
    with anyio.move_on_after(0.5) as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(searcher, r"(?=(a+)+$)")
            last = time.monotonic()
            while True:
                await anyio.sleep(0.01)
                slowest = max(slowest, time.monotonic() - last)
                last = time.monotonic()
    assert scope.cancelled_caught
    assert time.monotonic() - began < 1.5
    assert slowest < 0.3


def grep(root: Path, pattern: str) -> list[str]:
    """GNU grep as the oracle, in our order."""
    assert GREP is not None
    command = [GREP, "-rnEIZ", "--exclude-dir=.git", "-e", pattern, "."]
    done = subprocess.run(command, cwd=root, capture_output=True, env={**os.environ, "LC_ALL": "C"})
    found = re.findall(rb"^\./([^\0]*)\0(\d+):(.*)$", done.stdout, re.MULTILINE)
    rows = sorted((path.split(b"/"), int(line), text) for path, line, text in found)
    return [f"{b'/'.join(path).decode()}:{line}:{text.decode()}" for path, line, text in rows]


def grow(root: Path, seed: int, files: int) -> None:
    """A tree of text, always the same for a seed."""
    dice = random.Random(seed)
    words = ["foo", "bar", "foobar", "x", "", "a b", "import os", "\tdef f(x):", "FOO", "0123"]
    for number in range(files):
        folder = root / "/".join(dice.choice("abc") for _ in range(dice.randrange(4)))
        folder.mkdir(parents=True, exist_ok=True)
        lines = [" ".join(dice.choices(words, k=4)) for _ in range(dice.randrange(30))]
        (folder / f"f{number}.txt").write_text("\n".join(lines) + dice.choice(["", "\n"]))


@pytest.mark.parametrize("pattern", ["foo", "^foo", "r$", "o+b", "[a-f]{3}", "x|0", "^$", "f.*x"])
async def test_it_finds_what_grep_finds(pattern: str, search: Searcher, root: Path) -> None:
    grow(root, seed=len(pattern), files=60)
    lines, outcome = await search(pattern, limit=10_000)
    shown = [f"{line.path.decode()}:{line.line}:{line.text.decode()}" for line in lines]
    assert outcome.truncated is None
    assert shown == grep(root, pattern)


async def test_a_tree_that_is_swapped_for_links_meanwhile_shows_nothing_of_outside(
    search: Searcher, root: Path
) -> None:
    outside = root.parent / "outside"
    for number in range(50):
        make(root, {f"dir/{number}/secret": b"inside\n"})
        make(outside, {f"{number}/secret": b"secret\n"})
    found: set[bytes] = set()
    is_over = False

    def swap() -> None:
        while not is_over:
            os.rename(root / "dir", root / "away")
            os.symlink(outside, root / "dir")
            os.unlink(root / "dir")
            os.rename(root / "away", root / "dir")

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, swap)
        for _ in range(5):
            lines, _ = await search("inside|secret")
            found |= {line.text for line in lines}
        is_over = True
    assert found <= {b"inside"}


async def test_a_fifo_in_the_place_of_a_gitignore_keeps_nobody_waiting(
    any_hands: Hands, root: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "PATIENCE", 0.1)
    make(root, {"a": b"foo\n", "b/c": b"foo\n", "b/d": b"bar\n", "e": b"foo\n"})
    os.mkfifo(root / "b" / ".gitignore")
    search = Searcher(any_hands, "python")  # where ripgrep waits, our own finder goes on
    with anyio.fail_after(20):
        assert await search.places("foo") == ["a:1", "b/c:1", "e:1"]


async def test_a_slow_reader_is_waited_for(
    search: Searcher, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its finder sleeps, but not because nothing would come of it."""
    monkeypatch.setattr(searching, "PATIENCE", 0.05)
    make(root, {f"{number:04}": b"foo\n" * 900 for number in range(20)})
    wanted = {**DEFAULTS, "pattern": "foo", "limit": 10_000}
    tool = await search.hands.tool(ToolName.SEARCH, "", wanted)
    try:
        await anyio.sleep(0.5)
        lines = [row async for record in records_of(tool, search.hands.pipe_io) for row in record]
        assert len(lines) == 10_000
        assert outcome_from(await tool.result()).engine == search.engine
    finally:
        await tool.aclose()


async def test_a_path_that_leads_nowhere_any_more_is_told_by_its_code(
    any_hands: Hands, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(root, {"a": b"foo\n"})
    ours = searching._ours
    monkeypatch.setattr(searching, "_ours", lambda path, query: ours("gone", query))
    with pytest.raises(CallError) as caught:
        await Searcher(any_hands, "python")("foo", "a")
    assert caught.value.code is Code.NOT_FOUND
