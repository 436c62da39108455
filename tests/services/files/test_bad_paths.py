"""Paths that lead nowhere, or out: each command says so at once, of the path as it was written.

Every path of every `files.*` command, through the whole stack, with either form of hands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from sidecar.client import CallError, Code, Run
from sidecar.errors import show_path
from sidecar.protocol.commands import CATALOGUE

Place = tuple[Path, Run]
Subject = tuple[str, str, dict[str, Any]]

# Each argument that is a path, and what else the command needs.
SUBJECTS: list[Subject] = [
    ("files.read", "path", {}),
    ("files.write", "path", {"content": b"x"}),
    ("files.write", "path", {"content": b"x", "parents": True}),
    ("files.upload", "path", {"upload": bytes(16)}),
    ("files.append", "path", {"content": b"x"}),
    ("files.append", "path", {"content": b"x", "create": False}),
    ("files.edit", "path", {"edits": [{"old": "a", "new": "b"}]}),
    ("files.list", "path", {}),
    ("files.list", "path", {"recursive": True, "ignore": "git"}),
    ("files.glob", "path", {"patterns": ["*"]}),
    ("files.stat", "path", {}),
    ("files.stat", "path", {"follow": True, "hash": True}),
    ("files.watch", "path", {}),
    ("files.archive", "path", {}),
    ("files.extract", "path", {}),
    ("files.copy", "source", {"target": "new"}),
    ("files.copy", "target", {"source": "file"}),
    ("files.copy", "source", {"target": "new", "recursive": True}),
    ("files.copy", "target", {"source": "folder", "recursive": True}),
    ("files.search", "pattern", {}),
    ("files.search", "path", {"pattern": "x"}),
    ("files.mkdir", "path", {}),
    ("files.mkdir", "path", {"parents": True, "exist_ok": True}),
    ("files.move", "source", {"target": "new"}),
    ("files.move", "target", {"source": "file"}),
    ("files.link", "path", {"target": "file"}),
    ("files.link", "path", {"target": "file", "hard": True}),
    ("files.link", "target", {"path": "new", "hard": True}),
    ("files.chmod", "path", {"mode": 0o600}),
    ("files.remove", "path", {}),
    ("files.remove", "path", {"recursive": True}),
]
PATHS = [subject for subject in SUBJECTS if subject[1] != "pattern"]

LONG_NAME = "n" * 256
LONG_PATH = "d/" * 2048 + "d"  # 4097 bytes: one name less than the kernel would refuse

# Where a path has to name an entry, one that ends in `..` or is the root's is none.
BAD: dict[str | bytes, set[Code]] = {
    "..": {Code.OUTSIDE, Code.INVALID},
    "/": {Code.OUTSIDE},
    "../outside/secret": {Code.OUTSIDE},
    "folder/../../outside/secret": {Code.OUTSIDE},
    "/etc/passwd": {Code.OUTSIDE},
    "absolute/secret": {Code.OUTSIDE},
    "relative/secret": {Code.OUTSIDE},
    b"relative/\xff": {Code.OUTSIDE},
    "loop/../../x": {Code.OUTSIDE},
    "a\0b": {Code.INVALID},
    b"a\0\xff": {Code.INVALID},
    LONG_NAME: {Code.INVALID},
    f"folder/{LONG_NAME}": {Code.INVALID},
    LONG_PATH: {Code.INVALID},
    "round/x": {Code.INVALID},
    "file/x": {Code.NOT_DIRECTORY},
    "file/x/y": {Code.NOT_DIRECTORY},
}


def furnish(workspace: Path) -> None:
    outside = workspace.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "secret").write_bytes(b"secret")
    (workspace / "folder").mkdir()
    (workspace / "folder/child").touch()
    (workspace / "file").write_bytes(b"content")
    (workspace / "absolute").symlink_to(outside)
    (workspace / "relative").symlink_to("../outside")
    (workspace / "loop").symlink_to(".")
    (workspace / "round").symlink_to("round")
    (workspace / "dangling").symlink_to("nothing")


def snapshot(workspace: Path) -> dict[str, tuple[int, int, int]]:
    """Everything in the workspace and beside it: inode, mode and time of change."""
    found = {}
    for top in (workspace, workspace.parent / "outside"):
        for path in (top, *top.rglob("*")):
            info = path.lstat()
            found[str(path)] = (info.st_ino, info.st_mode, info.st_mtime_ns)
    return found


async def refusal(run: Run, command: str, arguments: dict[str, Any]) -> CallError:
    with anyio.fail_after(5), pytest.raises(CallError) as caught:
        await run.call(command, arguments)
    return caught.value


def name_of(value: object) -> str:
    if isinstance(value, tuple):
        command, argument, others = value
        flags = [name for name, given in others.items() if given is True]
        return "-".join([command.removeprefix("files."), argument, *flags])
    return repr(value)[:30] if isinstance(value, str | bytes) else str(value)


def test_every_command_has_its_paths_tried() -> None:
    tried = {(command, argument) for command, argument, _ in SUBJECTS}
    takes = {
        (command.name, field)
        for command in CATALOGUE.values()
        for field in ("path", "source", "target")
        if command.name.startswith("files.") and field in command.arguments.model_fields
    }
    assert takes - tried == set()


@pytest.mark.parametrize("subject", PATHS, ids=name_of)
async def test_a_path_that_leads_out_or_nowhere_says_so_and_changes_nothing(
    subject: Subject, place: Place
) -> None:
    workspace, run = place
    furnish(workspace)
    before = snapshot(workspace)
    command, argument, others = subject
    for path, codes in BAD.items():
        error = await refusal(run, command, {argument: path, **others})
        assert error.code in codes, (path, error)
        assert path == LONG_PATH or show_path(path) in error.message, (path, error)
        assert snapshot(workspace) == before, path


# All but what makes the directories that are missing, and what is asked whether there is one.
NEED_THEM = [
    subject
    for subject in PATHS
    if subject[0] not in ("files.upload", "files.extract") and "parents" not in subject[2]
]


@pytest.mark.parametrize("subject", NEED_THEM, ids=name_of)
async def test_what_is_not_there_is_not_found_by_the_name_it_was_given(
    subject: Subject, place: Place
) -> None:
    workspace, run = place
    furnish(workspace)
    before = snapshot(workspace)
    command, argument, others = subject
    for path in ("none/x", b"none/\xff", "dangling/x"):
        error = await refusal(run, command, {argument: path, **others})
        assert (error.code, error.details["path"]) == (Code.NOT_FOUND, path)
        assert snapshot(workspace) == before


@pytest.mark.parametrize(
    "command, arguments, code",
    [
        ("files.read", {"path": ""}, Code.IS_DIRECTORY),
        ("files.write", {"path": "", "content": b"x"}, Code.INVALID),
        ("files.append", {"path": "", "content": b"x"}, Code.IS_DIRECTORY),
        ("files.upload", {"path": "", "upload": bytes(16)}, Code.INVALID),
        ("files.edit", {"path": "", "edits": [{"old": "a", "new": "b"}]}, Code.IS_DIRECTORY),
        ("files.copy", {"source": "", "target": "new"}, Code.IS_DIRECTORY),
        ("files.copy", {"source": "", "target": "new", "recursive": True}, Code.INVALID),
        ("files.copy", {"source": "file", "target": ""}, Code.INVALID),
        ("files.mkdir", {"path": ""}, Code.INVALID),
        ("files.move", {"source": "", "target": "new"}, Code.INVALID),
        ("files.move", {"source": "file", "target": ""}, Code.INVALID),
        ("files.link", {"path": "", "target": "file"}, Code.INVALID),
        ("files.link", {"path": "new", "target": ""}, Code.INVALID),
        ("files.link", {"path": "new", "target": "", "hard": True}, Code.INVALID),
        ("files.remove", {"path": "", "recursive": True}, Code.INVALID),
    ],
)
async def test_the_workspace_itself_is_no_entry_and_no_file(
    command: str, arguments: dict[str, Any], code: Code, place: Place
) -> None:
    workspace, run = place
    furnish(workspace)
    before = snapshot(workspace)
    assert (await refusal(run, command, arguments)).code is code
    assert snapshot(workspace) == before


async def test_of_many_paths_each_says_what_is_wrong_with_it(place: Place) -> None:
    workspace, run = place
    furnish(workspace)
    bad = {path: codes for path, codes in BAD.items() if path != ".."}
    answer = await run.call("files.stat", {"paths": ["file", *bad]})
    first, *others = answer["entries"]
    assert (first["type"], first["size"]) == ("file", 7)
    for (path, codes), row in zip(bad.items(), others, strict=True):
        assert row["path"] == path
        assert row["error"]["code"] in codes


@pytest.mark.parametrize("command", ["files.read", "files.remove", "files.mkdir"])
async def test_a_surrogate_that_stands_for_no_byte_reaches_nobody(
    command: str, place: Place
) -> None:
    workspace, run = place
    furnish(workspace)
    before = snapshot(workspace)
    error = await refusal(run, command, {"path": "folder/\ud800"})
    assert error.code is Code.INVALID
    assert snapshot(workspace) == before
