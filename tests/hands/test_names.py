from __future__ import annotations

import pytest

from sidecar.errors import Invalid, Outside
from sidecar.hands.names import as_bytes, parent_and_name, relative

ROOTS = (b"/work/space", b"/mnt/real/space")


@pytest.mark.parametrize(
    "path, expected",
    [
        ("", b"."),
        (".", b"."),
        ("./", b"."),
        ("a", b"a"),
        ("a//b/./c", b"a/b/c"),
        ("a/", b"a/."),
        ("a/.", b"a/."),
        ("../a", b"../a"),
        ("a/..", b"a/.."),
        (b"\xff\xfe", b"\xff\xfe"),
        ("\udcff", b"\xff"),
        ("\u00e9", b"\xc3\xa9"),
        ("/work/space", b"."),
        ("/work/space/", b"."),
        ("//work//space//a/", b"a/."),
        ("/work/space/../x", b"../x"),
        ("/mnt/real/space/a", b"a"),
    ],
)
def test_a_path_is_seen_from_the_root(path: str | bytes, expected: bytes) -> None:
    assert relative(path, ROOTS) == expected


@pytest.mark.parametrize(
    "path", ["/", "/etc/passwd", "/work", "/work/spaceship", "/x/../work/space"]
)
def test_an_absolute_path_elsewhere_is_outside(path: str) -> None:
    with pytest.raises(Outside):
        relative(path, ROOTS)


def test_below_the_root_of_the_file_system_everything_is_inside() -> None:
    assert relative("/etc/passwd", (b"/",)) == b"etc/passwd"


@pytest.mark.parametrize("path", ["a\0b", b"a\0b", "\ud800"])
def test_what_the_kernel_cannot_take_is_invalid(path: str | bytes) -> None:
    with pytest.raises(Invalid):
        as_bytes(path, "path")


def test_a_path_longer_than_the_kernel_takes_is_invalid() -> None:
    assert relative("a" * 4095, ROOTS) == b"a" * 4095
    with pytest.raises(Invalid):
        relative("a" * 4096, ROOTS)


@pytest.mark.parametrize(
    "path, expected",
    [
        (b".", (b".", b".", False)),
        (b"a", (b".", b"a", False)),
        (b"a/.", (b".", b"a", True)),
        (b"a/b", (b"a", b"b", False)),
        (b"../a", (b"..", b"a", False)),
        (b"a/..", (b"a", b"..", False)),
    ],
)
def test_a_path_is_a_directory_and_a_name(path: bytes, expected: tuple[bytes, bytes, bool]) -> None:
    assert parent_and_name(path) == expected
