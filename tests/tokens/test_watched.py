"""How often a file is looked at, and what of it counts as a change."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from sidecar.errors import SettingsError
from sidecar.tokens import watched
from sidecar.tokens.watched import WatchedFile


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every look there was; it looks twice eagerly, and then hardly."""
    found: list[Path] = []
    look = watched._look

    def noted(path: Path) -> watched.Mark | None:
        found.append(path)
        return look(path)

    monkeypatch.setattr(watched, "_look", noted)
    monkeypatch.setattr(watched, "POLL_INTERVAL", 0.0)
    monkeypatch.setattr(watched, "EAGER_LOOKS", 2)
    monkeypatch.setattr(watched, "IDLE_POLL_INTERVAL", 60.0)
    return found


async def test_it_is_looked_at_seldom_after_a_while_also_by_who_waits_in_slices(
    tmp_path: Path, looks: list[Path]
) -> None:
    path = tmp_path / "token"
    path.write_text("one")
    file = WatchedFile(path)
    assert await file.read() == "one"
    looks.clear()
    for _ in range(5):
        with anyio.move_on_after(0.05):
            await file.changed()
    assert len(looks) == 3 + 4  # two eager ones and one; then one for each slice


async def test_who_reads_it_is_in_a_hurry_again(tmp_path: Path, looks: list[Path]) -> None:
    path = tmp_path / "token"
    path.write_text("one")
    file = WatchedFile(path)
    for _ in range(2):
        await file.read()
        looks.clear()
        with anyio.move_on_after(0.05):
            await file.changed()
        assert len(looks) == 3


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * 100_000])
async def test_what_cannot_be_a_token_is_told_by_the_name_of_the_file(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=str(path)):
        await WatchedFile(path).read()
