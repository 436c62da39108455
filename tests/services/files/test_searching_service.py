"""`files.search` through the whole stack: what is answered, and who is not believed."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from stack import Stack, open_stack, until

from sidecar.client import CallError, Code, Found, FoundLine, Run
from sidecar.hands.records import framed


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path) as stack:
        yield stack


@pytest.fixture
async def run(stack: Stack) -> Run:
    return await stack.attach()


def make(stack: Stack, files: dict[str | bytes, bytes]) -> None:
    for name, content in files.items():
        path = Path(os.fsdecode(os.path.join(os.fsencode(stack.workspace), os.fsencode(name))))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


async def test_paths_are_good_for_other_commands(stack: Stack, run: Run) -> None:
    make(stack, {"src/deep/a.py": b"x\nfoo\n", b"src/caf\xe9.py": b"\xff foo"})
    found = await run.files.search("fo+", "src", glob=["*.py"], before=1)
    assert found.lines == [
        FoundLine(b"src/caf\xe9.py", 1, 3, b"\xff foo", False),
        FoundLine("src/deep/a.py", 1, 0, "x", False),
        FoundLine("src/deep/a.py", 2, 1, "foo", False),
    ]
    assert [line.is_match for line in found.lines] == [True, False, True]
    assert (found.truncated, found.searched, found.matched) == (None, 2, 2)
    assert await run.files.read(found.lines[0].path) == b"\xff foo"
    assert (await run.files.search("foo", "src/deep/a.py")).lines[0].path == "src/deep/a.py"
    absolute = f"{stack.workspace}/src/deep"
    assert (await run.files.search("foo", absolute)).lines[0].path == f"{absolute}/a.py"


async def test_an_answer_too_large_for_a_message_comes_all_the_same(stack: Stack, run: Run) -> None:
    make(stack, {"file": b"foo and some more of it\n" * 8000})
    found = await run.files.search("foo", limit=5000)
    assert [line.number for line in found.lines] == list(range(1, 5001))
    assert found.truncated == "limit"


@pytest.mark.parametrize("pattern", ["a\nb", "a\0b"])
async def test_a_pattern_is_of_one_line(pattern: str, run: Run) -> None:
    with pytest.raises(CallError, match="searched one by one") as caught:
        await run.files.search(pattern)
    assert caught.value.code is Code.INVALID


async def test_a_deadline_ends_an_expression_that_never_ends(stack: Stack, run: Run) -> None:
    make(stack, {"file": b"a" * 60 + b"!\n"})
    began = time.monotonic()
    with pytest.raises(CallError) as caught:
        await run.call("files.search", {"pattern": "(?=(a+)+$)"}, deadline=0.5)
    assert caught.value.code is Code.TIMEOUT
    assert time.monotonic() - began < 3
    await until(lambda: not stack.sidecar.dispatcher._open)
    assert children() == []


def children() -> list[str]:
    """Finders that still run."""
    pid = os.getpid()
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        found += Path(f"/proc/{pid}/task/{task}/children").read_text().split()
    return found


class FakeTool:
    """A tool of a hands that says what a test makes it say."""

    def __init__(self, records: list[Any], outcome: dict[str, Any]) -> None:
        self.fd, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for record in records:
            os.write(writer, framed(record))
        os.close(writer)
        self._outcome = outcome

    def close_fd(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    async def result(self) -> dict[str, Any]:
        return self._outcome

    async def aclose(self) -> None:
        self.close_fd()


END = {"engine": "ripgrep", "truncated": None, "searched": 1, "unreadable": 0}
ROW = [b"file", 1, 1, b"foo", False]


@pytest.mark.parametrize(
    "records, outcome",
    [
        pytest.param(["text"], END, id="no list"),
        pytest.param([[ROW[:4]]], END, id="too short"),
        pytest.param([[["file", *ROW[1:]]]], END, id="a path of text"),
        pytest.param([[[b"a\0", *ROW[1:]]]], END, id="a NUL"),
        pytest.param([[[b"a" * 8193, *ROW[1:]]]], END, id="a long path"),
        pytest.param([[[b"file", -1, 1, b"", False]]], END, id="no number"),
        pytest.param([[[b"file", 1, 1, b"x" * 17, False]]], END, id="more than was asked for"),
        pytest.param([[ROW] * 3], END, id="more lines than wanted"),
        pytest.param([[ROW]], {}, id="no end"),
        pytest.param([[ROW]], END | {"engine": "other"}, id="no engine"),
        pytest.param([[ROW]], END | {"truncated": "why"}, id="no reason"),
        pytest.param([[ROW]], END | {"searched": "1"}, id="no count"),
        pytest.param([[ROW]], END | {"more": 1}, id="something else"),
    ],
)
async def test_a_hands_that_says_something_else_is_not_believed(
    records: list[Any],
    outcome: dict[str, Any],
    stack: Stack,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def tool(name: str, path: str, options: object) -> FakeTool:
        return FakeTool(records, outcome)

    monkeypatch.setattr(stack.sidecar.means.hands, "tool", tool)
    with anyio.fail_after(5), pytest.raises(CallError) as caught:
        await run.files.search("foo", limit=2, line_bytes=16)
    assert caught.value.code is Code.HANDS_AWAY
    assert "hands broke the protocol" in caught.value.message


async def test_what_hands_says_is_answered(
    stack: Stack, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tool(name: str, path: str, options: object) -> FakeTool:
        return FakeTool([[ROW]], END)

    monkeypatch.setattr(stack.sidecar.means.hands, "tool", tool)
    line = FoundLine("file", 1, 1, "foo", False)
    assert await run.files.search("foo") == Found([line], "ripgrep", None, 1, 1, 0)
