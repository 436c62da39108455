"""What a hub that is started again still knows."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import anyio.to_thread
import pytest

from sidecar.clock import ManualClock
from sidecar.errors import SettingsError
from sidecar.hub.platform.file import PlatformFile
from sidecar.hub.platform.platform import Platform, Unauthorized
from sidecar.hub.platform.run import RunEnded, Superseded

LIFE = 3600.0


def renew(platform: Platform, token: str, incarnation: str, now: float) -> str:
    return platform.renew(platform.check_run_token(token, "demo", now=now), incarnation, now=now)


async def saved(path: Path, platform: Platform, clock: ManualClock) -> None:
    await PlatformFile(path, clock).save(platform)


def loaded(path: Path, clock: ManualClock) -> Platform:
    platform = Platform(run_token_life=LIFE)
    PlatformFile(path, clock).load(platform)
    return platform


async def test_keys_tokens_generations_and_ends_are_still_known(tmp_path: Path) -> None:
    path, clock = tmp_path / "state", ManualClock()
    before = Platform(run_token_life=LIFE)
    key = before.add_key()
    old = renew(before, before.mint("demo", now=clock.now()), "a", clock.now())
    used = before.mint("demo", now=clock.now())
    offered = renew(before, used, "b", clock.now())
    over = before.mint("over", now=clock.now())
    before.end("over")
    await saved(path, before, clock)

    after = await anyio.to_thread.run_sync(loaded, path, clock)
    now = clock.now()
    after.check_key(key, now=now)
    assert after.get("demo").generation == 2
    with pytest.raises(Superseded):
        renew(after, old, "a", now)
    renew(after, used, "b", now)
    renew(after, offered, "b", now)
    assert after.get("demo").generation == 2
    with pytest.raises(RunEnded):
        after.renew(after.check_run_token(over, "over", now=now), "c", now=now)


async def test_tokens_go_on_to_age_while_the_hub_and_its_clock_are_gone(tmp_path: Path) -> None:
    path = tmp_path / "state"
    first = ManualClock(now=50_000.0, wall=1_800_000_000.0)
    before = Platform(run_token_life=LIFE)
    token = before.mint("demo", now=first.now())
    await saved(path, before, first)

    booted = ManualClock(now=7.0, wall=1_800_000_000.0 + LIFE - 1)
    after = await anyio.to_thread.run_sync(loaded, path, booted)
    after.check_run_token(token, "demo", now=7.0)
    with pytest.raises(Unauthorized):
        after.check_run_token(token, "demo", now=8.0)


async def test_the_file_is_ours_alone_and_holds_no_secret(tmp_path: Path) -> None:
    path, clock = tmp_path / "state", ManualClock()
    platform = Platform(run_token_life=LIFE)
    texts = [platform.add_key(), platform.mint("demo", now=0.0)]
    texts.append(renew(platform, texts[1], "a", 0.0))
    await saved(path, platform, clock)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_text()
    assert [text.split("_", 2)[2] in content for text in texts] == [False] * 3
    assert list(tmp_path.iterdir()) == [path]


async def test_what_has_not_changed_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "state"
    platform = Platform(run_token_life=LIFE)
    platform.add_key()
    file = PlatformFile(path, ManualClock())
    await file.save(platform)
    path.unlink()
    await file.save(platform)
    assert not path.exists()
    platform.add_key()
    await file.save(platform)
    assert len(json.loads(path.read_text())["keys"]) == 2


def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    assert loaded(tmp_path / "state", ManualClock()).runs == {}


@pytest.mark.parametrize(
    "content, sentence",
    [
        ("", "not of format 1"),
        ("{", "not of format 1"),
        ("[]", "not of format 1"),
        ('{"format": 2}', "not of format 1"),
        ('{"format": 1}', "is damaged"),
        ('{"format": 1, "keys": [{"id": "a", "sha256": "00"}], "runs": []}', "is damaged"),
        ('{"format": 1, "keys": [], "runs": [{"id": "a"}]}', "is damaged"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_and_kept(
    tmp_path: Path, content: str, sentence: str
) -> None:
    path = tmp_path / "state"
    path.write_text(content)
    with pytest.raises(SettingsError, match=sentence):
        loaded(path, ManualClock())
    assert path.read_text() == content
