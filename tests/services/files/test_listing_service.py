"""Lists, globs and stats through the whole stack, in both forms of hands."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from sidecar.client import CallError, Code, Run

Place = tuple[Path, Run]


def make(workspace: Path, *names: str) -> None:
    for name in names:
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_text(name)


async def test_a_tree_is_listed_in_the_order_of_its_names(place: Place) -> None:
    workspace, run = place
    make(workspace, "a/b/c", "a/d", "a.x", "e")
    os.mknod(os.fsencode(workspace) + b"/a/\xff")
    entries = await run.files.list(recursive=True)
    assert [entry.name for entry in entries] == [
        *("a", "a/b", "a/b/c", "a/d", b"a/\xff", "a.x", "e"),
    ]
    assert [entry.type for entry in entries[:3]] == ["directory", "directory", "file"]
    assert [entry.name for entry in await run.files.list("a", recursive=True, depth=1)] == [
        *("b", "d", b"\xff"),
    ]
    assert [entry.name for entry in await run.files.list("a")] == ["b", "d", b"\xff"]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_pages_of_any_size_give_the_same_tree(place: Place, limit: int) -> None:
    workspace, run = place
    make(workspace, "a/b/c", "a/d/e", "a.x", "f", "g/h")
    os.mknod(os.fsencode(workspace) + b"/a/\xff")
    found: list[str | bytes] = []
    arguments = {"recursive": True, "limit": limit}
    while True:
        page = await run.call("files.list", arguments)
        assert len(page["entries"]) <= limit
        found += [entry["name"] for entry in page["entries"]]
        if "next" not in page:
            break
        arguments = {**arguments, "after": page["next"]}
    assert found == ["a", "a/b", "a/b/c", "a/d", "a/d/e", b"a/\xff", "a.x", "f", "g", "g/h"]


async def test_what_came_last_need_not_be_there_any_more(place: Place) -> None:
    workspace, run = place
    make(workspace, "a/b", "a/d", "e")
    page = await run.call("files.list", {"recursive": True, "after": "a/c/x"})
    assert [entry["name"] for entry in page["entries"]] == ["a/d", "e"]


async def test_ignore_rules_and_patterns_leave_out(place: Place) -> None:
    workspace, run = place
    make(workspace, ".git/config", "src/a.o", "src/b.c", "out/x", "notes.txt")
    (workspace / ".gitignore").write_text("*.o\n/out/\n")
    entries = await run.files.list(recursive=True, ignore="git", exclude=["*.txt"])
    assert [entry.name for entry in entries] == [".gitignore", "src", "src/b.c"]
    everything = await run.files.list(recursive=True)
    assert len(everything) == 9
    assert [entry.name for entry in await run.files.list(ignore="git")] == [
        *(".gitignore", "notes.txt", "src"),
    ]


async def test_globs_name_paths_and_pass_over_what_git_ignores(place: Place) -> None:
    workspace, run = place
    make(workspace, "a.py", "src/b.py", "src/deep/c.py", "src/deep/d.md", "env/e.py")
    (workspace / ".gitignore").write_text("env/\n")
    assert [entry.name for entry in await run.files.glob("**/*.py")] == [
        *("a.py", "src/b.py", "src/deep/c.py"),
    ]
    assert [entry.name for entry in await run.files.glob("*.py", "src/*/*.md")] == [
        *("a.py", "src/deep/d.md"),
    ]
    assert [e.name for e in await run.files.glob("*.py", path="env", ignore="none")] == ["e.py"]
    assert await run.files.glob("nothing") == []


async def test_many_paths_are_looked_at_in_one_call(place: Place) -> None:
    workspace, run = place
    make(workspace, "a", "d/b")
    (workspace / "link").symlink_to("a")
    os.mkfifo(workspace / "fifo")
    wanted = ["a", "no", "d", "link", "../x", "fifo", "a\0"]
    found = await run.files.stat_many(wanted, hash=True)
    assert [entry.name for entry in found] == wanted
    assert [entry.type for entry in found] == [
        *("file", "unknown", "directory", "symlink", "unknown", "fifo", "unknown"),
    ]
    assert [entry.error and entry.error.code for entry in found] == [
        *(None, Code.NOT_FOUND, None, None, Code.OUTSIDE, None, Code.INVALID),
    ]
    assert found[0].sha256 == hashlib.sha256(b"a").digest()
    assert {entry.sha256 for entry in found[1:]} == {None}


async def test_a_digest_is_of_what_a_link_leads_to_if_it_is_followed(place: Place) -> None:
    workspace, run = place
    content = os.urandom(3_000_000)
    (workspace / "file").write_bytes(content)
    (workspace / "link").symlink_to("file")
    entry = await run.files.stat("link", follow=True, hash=True)
    assert (entry.size, entry.sha256) == (3_000_000, hashlib.sha256(content).digest())
    assert (await run.files.stat("link", hash=True)).sha256 is None
    assert (await run.files.stat("file")).sha256 is None


async def test_a_thousand_paths_have_their_answer_in_order(place: Place) -> None:
    workspace, run = place
    names = [f"{number:04}" for number in range(1000)]
    make(workspace, *names[::2])
    found = await run.files.stat_many([*names, *names[:5]])
    assert [entry.name for entry in found] == [*names, *names[:5]]
    assert [entry.error is None for entry in found[:4]] == [True, False, True, False]


@pytest.mark.parametrize(
    "command, arguments, code",
    [
        ("files.list", {"path": "file"}, Code.NOT_DIRECTORY),
        ("files.list", {"path": "no", "recursive": True}, Code.NOT_FOUND),
        ("files.list", {"path": "..", "recursive": True}, Code.OUTSIDE),
        ("files.list", {"depth": 0}, Code.INVALID),
        ("files.list", {"after": "a\0"}, Code.INVALID),
        ("files.list", {"exclude": ["a\0"]}, Code.INVALID),
        ("files.glob", {"patterns": []}, Code.INVALID),
        ("files.glob", {"patterns": ["*"], "path": "file"}, Code.NOT_DIRECTORY),
        ("files.stat", {"path": "file", "paths": ["file"]}, Code.INVALID),
        ("files.stat", {"paths": []}, Code.INVALID),
    ],
)
async def test_bad_input_has_a_code(
    place: Place, command: str, arguments: dict[str, object], code: Code
) -> None:
    workspace, run = place
    make(workspace, "file")
    with pytest.raises(CallError) as caught:
        await run.call(command, arguments)
    assert caught.value.code == code
