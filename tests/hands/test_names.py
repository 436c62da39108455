from __future__ import annotations

import pytest

from sidecar.errors import Invalid, Outside
from sidecar.hands.names import as_bytes, is_part, parent_and_name, part_name, relative

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


def test_the_name_of_a_part_is_short_and_cut_between_characters() -> None:
    name = part_name("\u20ac".encode() * 85, bytes(16))
    assert name == b"." + "\u20ac".encode() * 21 + b"." + b"0" * 32 + b".sidecar-part"
    assert len(name) <= 143


@pytest.mark.parametrize("name", [b"a.txt", b"\xff", b"n" * 255, b"\xff" * 255, b"a\nb", b".."])
@pytest.mark.parametrize("size", [6, 16])
def test_a_part_is_known_by_its_name(name: bytes, size: int) -> None:
    assert is_part(part_name(name, b"\xa5" * size))


@pytest.mark.parametrize(
    "name",
    [
        b"a.txt",
        b".sidecar-part",
        b"a.0123456789ab.sidecar-part",  # of somebody else: ours begin with a dot
        b".a.0123456789abc.sidecar-part",
        b".a.0123456789AB.sidecar-part",
        b".a.sidecar-part",
        b".a.0123456789ab.sidecar-part.bak",
        b".a.0123456789ab.sidecar-part\n",
        b"",
    ],
)
def test_a_name_that_only_looks_like_one_is_no_part(name: bytes) -> None:
    assert not is_part(name)
