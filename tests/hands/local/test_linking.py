"""Links that are made, with both ways to resolve and through both forms of hands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.errors import CallError, Code
from sidecar.hands.interface import Hands
from sidecar.hands.local.beneath import Beneath
from sidecar.hands.local.linking import leads_out


async def refusal(hands: Hands, method: str, *arguments: object, **options: object) -> CallError:
    with pytest.raises(CallError) as caught:
        await getattr(hands, method)(*arguments, **options)
    return caught.value


def furnish(root: Path) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").touch()
    (root / "deep").symlink_to("a/b")
    (root / "out").symlink_to("../outside")


@pytest.mark.parametrize(
    "path, text",
    [
        ("link", "a/b/file"),
        ("link", "a/b/"),
        ("link", "."),
        ("link", "not/there/yet"),
        ("link", "none/.."),
        ("a/link", ".."),
        ("a/b/link", "../../a"),
        ("a/b/link", "../../not there"),
        # `deep` is a/b, whatever the names say.
        ("deep/link", "../../a"),
        ("link", "deep/../.."),
        ("link", "x" * 300),
    ],
)
async def test_a_link_is_made_with_the_text_it_was_given(
    hands: Hands, root: Path, path: str, text: str
) -> None:
    furnish(root)
    await hands.symlink(path, text)
    assert os.readlink(root / path) == text


@pytest.mark.parametrize(
    "path, text",
    [
        ("link", ".."),
        ("link", "../outside/secret"),
        ("link", "a/../.."),
        ("link", "/etc/passwd"),
        ("link", "ROOT/a/b"),
        ("a/link", "../.."),
        ("deep/link", "../../.."),
        ("link", "deep/../../.."),
        ("link", "out"),
        ("link", "out/secret"),
        # What is not there yet might be a directory when it is followed.
        ("link", "none/../../outside"),
        ("a/link", "none/../none/../../../x"),
    ],
)
async def test_a_link_that_leads_out_is_made_only_if_it_is_asked_for(
    hands: Hands, root: Path, path: str, text: str
) -> None:
    furnish(root)
    text = text.replace("ROOT", str(root))
    error = await refusal(hands, "symlink", path, text)
    assert (error.code, error.details["path"]) == (Code.OUTSIDE, text)
    assert not os.path.lexists(root / path)
    await hands.symlink(path, text, anywhere=True)
    assert os.readlink(root / path) == text


@pytest.mark.parametrize(
    "path, text, code",
    [
        ("there", "x", Code.EXISTS),
        ("none/link", "x", Code.NOT_FOUND),
        ("there/link", "x", Code.NOT_DIRECTORY),
        ("link/", "x", Code.NOT_DIRECTORY),
        ("", "x", Code.INVALID),
        ("..", "x", Code.INVALID),
        ("../link", "x", Code.OUTSIDE),
        ("out/link", "x", Code.OUTSIDE),
        ("link", "", Code.INVALID),
        ("link", "x\0", Code.INVALID),
        ("link", "x" * 4096, Code.INVALID),
        ("link", "\ud800", Code.INVALID),
    ],
)
async def test_what_cannot_be_a_link_is_told(
    hands: Hands, root: Path, path: str, text: str, code: Code
) -> None:
    (root / "there").touch()
    (root / "out").symlink_to("../outside")
    assert (await refusal(hands, "symlink", path, text, anywhere=True)).code is code
    assert sorted(os.listdir(root)) == ["out", "there"]


async def test_names_that_are_not_utf_8(hands: Hands, root: Path) -> None:
    await hands.symlink(b"\xff", b"\xfe/\x80")
    assert os.readlink(os.fsencode(root) + b"/\xff") == b"\xfe/\x80"
    assert (await hands.stat(b"\xff")).target == b"\xfe/\x80"


async def test_a_hard_link_has_no_slash_at_its_end(hands: Hands, root: Path) -> None:
    (root / "a").touch()
    assert (await refusal(hands, "link", "a", "b/")).code is Code.NOT_DIRECTORY
    assert os.listdir(root) == ["a"]


def test_a_directory_that_was_moved_out_leads_out(root: Path, beneath: Beneath) -> None:
    (root / "a").mkdir()
    here = os.open(root / "a", os.O_PATH)
    assert not leads_out(beneath, here, b"x")
    (root / "a").rename(root.parent / "a")
    assert leads_out(beneath, here, b"x")
    os.close(here)


def test_a_root_that_was_moved_is_still_the_root(root: Path, beneath: Beneath) -> None:
    (root / "a").mkdir()
    root.rename(root.parent / "moved")
    here = os.open(root.parent / "moved/a", os.O_PATH)
    assert not leads_out(beneath, here, b"../x")
    assert leads_out(beneath, here, b"../../x")
    os.close(here)
