"""The run token in the state folder, at every moment whole."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import anyio
import pytest

from sidecar.errors import NoToken
from sidecar.platform.runtoken import RunToken, RunTokenStore, digest
from sidecar.tokens import private, watched


async def test_the_first_one_is_used_until_there_is_a_next(tmp_path: Path) -> None:
    store = RunTokenStore(tmp_path, first="first")
    held = await store.current()
    assert (held.value, held.is_first, held.origin) == ("first", True, digest("first"))
    await store.keep(RunToken("second", held.origin))
    assert (await store.current()).value == "second"
    again = RunTokenStore(tmp_path, first="first")
    assert (await again.current()).value == "second"


async def test_it_is_ours_alone_and_nothing_of_it_stays_beside(tmp_path: Path) -> None:
    store = RunTokenStore(tmp_path, first="first")
    old = os.umask(0)
    try:
        await store.keep(RunToken("second", digest("first")))
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "run-token").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["run-token"]
    assert "first" not in (tmp_path / "run-token").read_text()


async def test_another_first_one_is_the_newer_word(tmp_path: Path) -> None:
    await RunTokenStore(tmp_path, first="first").keep(RunToken("second", digest("first")))
    assert (await RunTokenStore(tmp_path, first="other").current()).value == "other"


async def test_what_is_kept_will_do_without_a_first_one(tmp_path: Path) -> None:
    await RunTokenStore(tmp_path, first="first").keep(RunToken("second", digest("first")))
    store = RunTokenStore(tmp_path, first_file=tmp_path / "gone")
    assert (await store.current()).value == "second"


@pytest.mark.parametrize("content", [None, "", "two words"])
async def test_without_any_it_says_where_it_looked(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "first"
    if content is not None:
        path.write_text(content)
    with pytest.raises(NoToken, match="run token"):
        await RunTokenStore(tmp_path, first_file=path).current()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', "\x00" * 200, "[" * 99999])
async def test_a_damaged_file_is_told_and_the_first_one_used(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run-token").write_text(content)
    assert (await RunTokenStore(tmp_path, first="first").current()).value == "first"
    assert "cannot be read" in caplog.text


async def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run-token").write_text(json.dumps({"format": 2}))
    with pytest.raises(NoToken, match="newer sidecar"):
        await RunTokenStore(tmp_path, first="first").current()
    assert json.loads((tmp_path / "run-token").read_text()) == {"format": 2}


@pytest.mark.parametrize("step", ["fsync", "replace"])
async def test_killed_at_any_step_there_is_one_whole_token(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process leaves that dies there is what one leaves whose call fails there."""
    store = RunTokenStore(tmp_path, first="first")
    await store.keep(RunToken("second", digest("first")))

    def die(*arguments: object) -> None:
        raise OSError("died here")

    owner = private.os if step == "fsync" else private.Path
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, die)
        await store.keep(RunToken("third", digest("first")))
    assert (await RunTokenStore(tmp_path, first="first").current()).value == "second"
    # and the next one is not hindered by what lies there
    await store.keep(RunToken("fourth", digest("first")))
    assert (await RunTokenStore(tmp_path, first="first").current()).value == "fourth"


async def test_a_disk_that_fails_costs_the_next_restart_and_not_this_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = RunTokenStore(tmp_path / "gone", first="first")
    await store.keep(RunToken("second", digest("first")))
    assert (await store.current()).value == "second"
    assert "could not be written" in store.complaint
    (tmp_path / "gone").mkdir()
    await store.keep(RunToken("third", digest("first")))
    assert store.complaint == ""
    assert "second" not in caplog.text


async def test_another_first_file_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "POLL_INTERVAL", 0.01)
    path = tmp_path / "first"
    path.write_text("one")
    store = RunTokenStore(tmp_path, first_file=path)
    assert (await store.current()).value == "one"
    with anyio.move_on_after(0.05) as unchanged:
        await store.changed()
    assert unchanged.cancelled_caught
    (tmp_path / "new").write_text("two")
    os.replace(tmp_path / "new", path)
    with anyio.fail_after(5):
        await store.changed()
    assert (await store.current()).value == "two"


def test_a_run_token_does_not_show() -> None:
    assert "hush" not in repr(RunToken("hush", "origin"))
