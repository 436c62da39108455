"""`files.copy`, `files.link`, `files.chmod`: what is answered, what is told, and to whom."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from stack import Stack, open_stack

from sidecar.client import CallError, Code, Copied, Event, Run, Started

Place = tuple[Path, Run]


async def refusal(run: Run, command: str, **arguments: object) -> CallError:
    with pytest.raises(CallError) as caught:
        await run.call(command, arguments)
    return caught.value


async def test_a_tree_is_copied_and_told(place: Place) -> None:
    workspace, run = place
    (workspace / "a/sub").mkdir(parents=True)
    (workspace / "a/sub/file").write_bytes(b"content")
    os.mkfifo(workspace / os.fsdecode(b"a/\xff"))
    outcome = await run.files.copy("a", "b", recursive=True)
    assert outcome == Copied(3, 7, [(b"\xff", "unsupported")], 1)
    assert (workspace / "b/sub/file").read_bytes() == b"content"


async def test_a_file_is_copied_or_kept(place: Place) -> None:
    workspace, run = place
    (workspace / "a").write_bytes(b"new")
    (workspace / "b").write_bytes(b"old")
    error = await refusal(run, "files.copy", source="a", target="b", replace=False)
    assert (error.code, error.details["path"]) == (Code.EXISTS, "b")
    assert await run.files.copy("a", "b") == Copied(1, 3, [], 0)
    assert (workspace / "b").read_bytes() == b"new"


async def test_a_link_that_leads_out_is_made_only_if_it_is_asked_for(place: Place) -> None:
    workspace, run = place
    error = await refusal(run, "files.link", path="link", target="../secret")
    assert (error.code, error.details["path"]) == (Code.OUTSIDE, "../secret")
    assert os.listdir(workspace) == []
    await run.files.link("link", "../secret", anywhere=True)
    assert os.readlink(workspace / "link") == "../secret"
    await run.files.link(b"\xfe", b"to/\xff")
    assert os.readlink(os.fsencode(workspace) + b"/\xfe") == b"to/\xff"


async def test_a_hard_link_is_a_second_name(place: Place) -> None:
    workspace, run = place
    (workspace / "a").write_bytes(b"a")
    await run.files.link("b", "a", hard=True)
    assert os.path.samefile(workspace / "a", workspace / "b")
    error = await refusal(run, "files.link", path="c", target="none", hard=True)
    assert (error.code, error.details["path"]) == (Code.NOT_FOUND, "none")


async def test_a_mode_is_changed(place: Place) -> None:
    workspace, run = place
    (workspace / "a").touch()
    await run.files.chmod("a", 0o750)
    assert (workspace / "a").stat().st_mode & 0o7777 == 0o750
    error = await refusal(run, "files.chmod", path="a", mode=0o10000)
    assert error.code is Code.INVALID


@pytest.mark.parametrize(
    "outcome",
    [
        {},
        {"copied": -1, "bytes": 0, "skipped": [], "skipped_count": 0},
        {"copied": 1, "bytes": "0", "skipped": [], "skipped_count": 0},
        {"copied": 1, "bytes": 0, "skipped": {}, "skipped_count": 0},
        {"copied": 1, "bytes": 0, "skipped": [["x", "denied"]], "skipped_count": 0},
        {"copied": 1, "bytes": 0, "skipped": [[b"x", "gone away"]], "skipped_count": 0},
        {"copied": 1, "bytes": 0, "skipped": [[b"x"]], "skipped_count": 0},
        {"copied": 1, "bytes": 0, "skipped": [[b"x", []]], "skipped_count": 0},
    ],
)
async def test_what_hands_says_of_a_copy_is_not_believed(
    place_stack: Stack, place: Place, monkeypatch: pytest.MonkeyPatch, outcome: dict[str, Any]
) -> None:
    workspace, run = place
    (workspace / "a").touch()

    class Liar:
        async def result(self) -> dict[str, Any]:
            return outcome

        async def aclose(self) -> None:
            return None

    async def tool(*arguments: object) -> Liar:
        return Liar()

    monkeypatch.setattr(place_stack.sidecar.means.hands, "tool", tool)
    error = await refusal(run, "files.copy", source="a", target="b")
    assert (error.code, error.started) == (Code.HANDS_AWAY, Started.YES)


async def test_changes_are_told_as_events(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        (stack.workspace / "a").write_bytes(b"content")
        await run.files.copy("a", "b")
        await run.files.link("c", "a")
        await run.files.chmod("b", 0o600)
        told: dict[str, Any] = {}
        with anyio.fail_after(5):
            async for item in run.events():
                if isinstance(item, Event) and item.name.startswith("files."):
                    told[item.name] = item.data
                    if len(told) == 3:
                        break
    assert told == {
        "files.copied": {"source": "a", "target": "b", "copied": 1, "bytes": 7},
        "files.linked": {"path": "c", "target": "a", "hard": False},
        "files.mode_changed": {"path": "b", "mode": 0o600},
    }


async def test_several_roots_are_shown_and_kept(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_bytes(b"data")
    async with open_stack(tmp_path, roots=f"{tmp_path}/data") as stack:
        run = await stack.attach()
        assert (await run.info())["capabilities"]["roots"] == f"{tmp_path}/data:ro"
        assert await run.files.read(f"{tmp_path}/data/file") == b"data"
        assert (await run.files.copy(f"{tmp_path}/data", "copy", recursive=True)).copied == 2
        with pytest.raises(CallError) as caught:
            await run.files.write(f"{tmp_path}/data/file", b"changed")
        assert caught.value.code is Code.READ_ONLY
        with pytest.raises(CallError) as caught:
            await run.files.move(f"{tmp_path}/data/file", "file")
        assert caught.value.code is Code.UNSUPPORTED
        assert (tmp_path / "data/file").read_bytes() == b"data"
