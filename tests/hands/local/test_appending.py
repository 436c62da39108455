"""Files that are written at their end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sidecar.errors import CallError, Code
from sidecar.hands.interface import Hands


async def test_a_file_is_written_at_its_end(any_hands: Hands, root: Path) -> None:
    (root / "file").write_bytes(b"old ")
    (root / "link").symlink_to("file")
    for path in ("file", "link"):
        fd = await any_hands.append(path, create=False)
        os.write(fd, b"more ")
        os.close(fd)
    assert (root / "file").read_bytes() == b"old more more "


async def test_a_missing_file_is_made_to_append_to_only_when_asked_for(
    any_hands: Hands, root: Path
) -> None:
    for options in ({"create": False}, {"create": False, "parents": True}, {}):
        with pytest.raises(CallError) as caught:
            await any_hands.append("a/file", **options)
        assert caught.value.code == Code.NOT_FOUND
    assert os.listdir(root) == []
    os.close(await any_hands.append("a/file", parents=True, mode=0o666))
    assert stat.S_IMODE((root / "a/file").stat().st_mode) == 0o666
    (root / "link").symlink_to("a/new")
    os.close(await any_hands.append("link"))
    assert (root / "a/new").exists()


@pytest.mark.parametrize(
    "path, code",
    [
        ("", Code.IS_DIRECTORY),
        ("fifo", Code.UNSUPPORTED),
        ("../outside/secret", Code.OUTSIDE),
        ("out", Code.OUTSIDE),
        ("out-new", Code.OUTSIDE),
        ("loop", Code.INVALID),
        ("new/", Code.IS_DIRECTORY),
    ],
)
async def test_what_cannot_be_appended_to_has_a_code(
    hands: Hands, root: Path, path: str, code: Code
) -> None:
    os.mkfifo(root / "fifo")
    (root / "out").symlink_to("../outside/secret")
    (root / "out-new").symlink_to("../outside/new")
    (root / "loop").symlink_to("loop")
    with pytest.raises(CallError) as caught:
        await hands.append(path)
    assert caught.value.code == code
    assert (root.parent / "outside/secret").read_bytes() == b"secret"
    assert os.listdir(root.parent / "outside") == ["secret"]
